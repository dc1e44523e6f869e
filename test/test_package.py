"""The house: one version, true dependencies, files where ROS looks for them, and who may import what."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / 'vggt_ros').rglob('*.py'))
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()

# Keys of rosdep or names of released packages, looked up in rosdistro for Humble, Jazzy, Kilted and Lyrical.
ROSDISTRO_KEYS = {
    *('ament_cmake', 'ament_cmake_pytest', 'ament_cmake_python', 'rosidl_default_generators', 'rosidl_default_runtime'),
    *(
        'diagnostic_msgs',
        'geometry_msgs',
        'lifecycle_msgs',
        'nav_msgs',
        'sensor_msgs',
        'std_msgs',
        'std_srvs',
        'tf2_msgs',
    ),
    *('builtin_interfaces', 'rcl_interfaces', 'rclpy', 'rosgraph_msgs', 'ament_index_python', 'message_filters'),
    *('cv_bridge', 'sensor_msgs_py', 'tf2_ros_py', 'tf_transformations'),
    *('launch', 'launch_ros', 'launch_testing', 'launch_testing_ros', 'rviz2'),
    *('python3-matplotlib', 'python3-numpy', 'python3-opencv', 'python3-pytest', 'python3-scipy', 'python3-tqdm'),
    *('python3-pil', 'python3-yaml'),
}
# Modules whose package in package.xml is called differently.
KEY_OF_MODULE = {
    'cv2': 'python3-opencv',
    'PIL': 'python3-pil',
    'matplotlib': 'python3-matplotlib',
    'numpy': 'python3-numpy',
    'scipy': 'python3-scipy',
    'tf2_ros': 'tf2_ros_py',
    'tqdm': 'python3-tqdm',
    'yaml': 'python3-yaml',
}
EXTRAS = {'pillow_heif', 'evo', 'foxglove_msgs', 'pycolmap'}
ROS_MODULES = re.compile(
    r'(rclpy|launch\w*|tf2\w*|tf_transformations|cv_bridge|sensor_msgs_py|\w+_msgs|\w+_interfaces|std_srvs|vggt_ros\.(msg|srv))$'
)


def imports(path: Path) -> set[str]:
    """Return the names of all modules that a source file imports, anywhere in it: as `a` and `a.b` for `a.b.c`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {'.'.join(name.split('.')[:length]) for name in names for length in (1, 2)}


def room(path: Path) -> str:
    """Return the first component below vggt_ros/: 'camera.py' or 'network'."""
    return path.relative_to(ROOT / 'vggt_ros').parts[0]


def requirements(path: Path) -> dict[str, str]:
    lines = (line.partition('#')[0].strip() for line in path.read_text().splitlines())
    return dict(re.match(r'([\w-]+)(.*)', line).groups() for line in lines if line)


def test_version_is_stated_once():
    version = PACKAGE.findtext('version')
    answer = subprocess.run(
        [sys.executable, 'setup.py', '--version'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[-1] == version
    assert re.fullmatch(r'\d+\.\d+\.\d+', version)
    assert 'version' not in (ROOT / 'setup.cfg').read_text().partition('[options]')[0]


def test_package_xml_names_only_keys_that_exist():
    keys = {element.text for element in PACKAGE if element.tag.endswith('depend')}
    assert keys <= ROSDISTRO_KEYS


def test_package_xml_names_what_the_code_imports():
    keys = {element.text for element in PACKAGE if element.tag.endswith('depend')}
    from_pip = {name.replace('-', '_') for name in requirements(ROOT / 'requirements.txt')}
    standard = sys.stdlib_module_names | {'vggt_ros', 'rosbags'} | from_pip | EXTRAS
    code = [*SOURCES, *(ROOT / 'launch').glob('*.py')]
    imported = {name.partition('.')[0] for path in code for name in imports(path)} - standard
    assert {KEY_OF_MODULE.get(name, name) for name in imported} <= keys


def test_tested_versions_satisfy_the_ranges():
    from packaging.specifiers import SpecifierSet

    ranges = requirements(ROOT / 'requirements.txt')
    tested = requirements(ROOT / 'requirements' / 'tested.txt') | requirements(ROOT / 'requirements' / 'torch.txt')
    assert all(version.startswith('==') for version in tested.values())
    for name, allowed in ranges.items():
        assert tested[name].removeprefix('==') in SpecifierSet(allowed), name


def test_only_the_ros_room_knows_ros():
    def is_guilty(path: Path, name: str) -> bool:
        if room(path) == 'ros':
            return False
        # The command line may start the nodes, but speaks ROS only through them.
        return bool(ROS_MODULES.match(name)) or (name == 'vggt_ros.ros' and room(path) != 'tools')

    guilty = {
        f'{path.relative_to(ROOT)}: {name}' for path in SOURCES for name in imports(path) if is_guilty(path, name)
    }
    assert not guilty


def test_a_module_does_one_job():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


@pytest.mark.parametrize(
    ('module', 'absent'),
    [
        ('vggt_ros.similarity', ('cv2', 'scipy', 'torch')),
        ('vggt_ros.camera', ('cv2', 'scipy', 'torch')),
        ('vggt_ros.tracks.tracker', ('vggt_ros.mapping', 'vggt_ros.files', 'torch')),
        ('vggt_ros.mapping.history', ('vggt_ros.mapping.export', 'vggt_ros.odometry', 'torch')),
        ('vggt_ros.mapping.voxel_map', ('vggt_ros.mapping.export', 'vggt_ros.odometry', 'torch')),
        ('vggt_ros.files.folder', ('rosbags', 'vggt_ros.files.bag', 'torch')),
        ('vggt_ros.odometry.world', ('vggt_ros.network', 'vggt_ros.mapping', 'torch', 'gtsam')),
        ('vggt_ros.pipeline', ('vggt_ros.inference', 'vggt_ros.mapping', 'vggt_ros.files', 'torch')),
        ('vggt_ros.network', ('vggt_ros.odometry', 'cv2', 'scipy')),
        ('vggt_ros.inference', ('vggt_ros.odometry', 'vggt_ros.weights', 'cv2')),
    ],
)
def test_a_room_loads_only_what_it_needs(module, absent):
    assert loaded_besides(module, absent) == []


@pytest.mark.requires_ros
@pytest.mark.parametrize(
    ('module', 'absent'),
    [
        ('vggt_ros.ros.inputs.gravity', ('vggt_ros.ros.loading', 'vggt_ros.pipeline', 'vggt_ros.mapping', 'torch')),
        ('vggt_ros.ros.inputs.sensors', ('vggt_ros.ros.loading', 'vggt_ros.pipeline', 'vggt_ros.mapping', 'torch')),
        ('vggt_ros.ros.tf.transforms', ('vggt_ros.pipeline', 'vggt_ros.mapping', 'torch')),
        ('vggt_ros.ros.outputs.publication', ('vggt_ros.inference', 'vggt_ros.network', 'torch')),
    ],
)
def test_a_room_of_the_ros_edge_loads_only_what_it_needs(module, absent):
    assert loaded_besides(module, absent) == []


def loaded_besides(module: str, absent: tuple[str, ...]) -> list[str]:
    """Which of these modules and packages come along when a module is imported."""
    code = f'import sys, {module}; print(*(name for name in {absent!r} if name in sys.modules))'
    return subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


# Where threads, transitions and callbacks end: whatever comes is said with its traceback.
GUARDS = {f'vggt_ros/ros/{name}.py' for name in ('node', 'worker', 'problems', 'process', 'thread_pool')}


def test_no_error_is_caught_blindly():
    guilty = []
    for path in SOURCES:
        if str(path.relative_to(ROOT)) in GUARDS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = {getattr(name, 'id', '') for name in ast.walk(node.type)} if node.type else {'Exception'}
                if caught & {'Exception', 'BaseException'}:
                    guilty.append(f'{path.relative_to(ROOT)}:{node.lineno}')
    assert not guilty


def test_every_folder_with_code_is_a_package():
    assert not [folder for folder in {path.parent for path in SOURCES} if not (folder / '__init__.py').exists()]


@pytest.mark.parametrize('script', ['demo', 'check', 'scripts/setup.sh', '.ci/run', 'scripts/executable.in'])
def test_commands_are_executable(script):
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.requires_ros
def test_messages_import_beside_the_source_tree():
    from vggt_ros.msg import Status, TrackArray
    from vggt_ros.srv import SaveMap

    import vggt_ros.camera

    assert (TrackArray.SCALE_UNKNOWN, TrackArray.SCALE_RELATIVE, TrackArray.SCALE_METRIC) == (0, 1, 2)
    assert (Status.SCALE_UNKNOWN, Status.SCALE_RELATIVE, Status.SCALE_METRIC) == (0, 1, 2)
    states = ['INITIALIZING', 'TRACKING', 'STATIONARY', 'DEGRADED', 'LOST', 'RELOCALIZED', 'PAUSED', 'INACTIVE']
    assert [getattr(Status, state) for state in states] == list(range(len(states)))
    types = TrackArray.get_fields_and_field_types()
    assert types['id'] == 'sequence<uint64>'
    assert SaveMap.Response.get_fields_and_field_types() == {'success': 'boolean', 'message': 'string'}
    assert {types[name] for name in ('u', 'v', 'visibility', 'confidence', 'x', 'y', 'z')} == {'sequence<float>'}
    assert Path(vggt_ros.camera.__file__).parent == ROOT / 'vggt_ros'


@pytest.mark.requires_ros('ament_index_python')
def test_files_are_where_ros_looks_for_them():
    from ament_index_python import get_package_prefix, get_package_share_directory

    share, lib = (
        Path(get_package_share_directory('vggt_ros')),
        Path(get_package_prefix('vggt_ros')) / 'lib' / 'vggt_ros',
    )
    for folder in ('launch', 'config', 'examples', 'msg', 'srv'):
        expected = {path.name for path in (ROOT / folder).glob('*') if path.is_file()}
        assert expected <= {path.name for path in (share / folder).iterdir()}, folder
    for name in ('vggt_node', 'vggt_player', 'vggt_recorder'):
        assert os.access(lib / name, os.X_OK)


@pytest.mark.requires_ros
def test_executables_start_with_the_python_of_the_build(tmp_path):
    """Without an activated environment the node starts with the Python that built the workspace, which has torch."""
    from ament_index_python import get_package_prefix

    node = Path(get_package_prefix('vggt_ros')) / 'lib' / 'vggt_ros' / 'vggt_node'
    program = tmp_path / 'which python'
    program.write_text(
        node.read_text().partition('from vggt_ros')[0] + 'import sys; print(sys.executable, sys.argv[1:])\n'
    )
    program.chmod(0o755)
    for folder in (None, Path(sys.prefix)):
        environment = {key: value for key, value in os.environ.items() if key != 'VIRTUAL_ENV'}
        if folder:
            environment['VIRTUAL_ENV'] = str(folder)
        answer = subprocess.run([program, 'a b', '$c'], env=environment, capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == f"{sys.prefix}/bin/python3 ['a b', '$c']"
