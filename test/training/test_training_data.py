"""Training data: targets, windows and the stream of batches, against geometry that must agree with itself."""

import copy
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import training_small
from vggt_ros.network import ConfigError
from vggt_ros.synthetic.places import make_world
from vggt_ros.synthetic.scene import Scene
from vggt_ros.synthetic.sequence import default_intrinsics, render_frames
from vggt_ros.synthetic.tracks import follow as follow_exactly
from vggt_ros.synthetic.trajectory import make_trajectory
from vggt_ros.synthetic.writers import write_folder
from vggt_ros.training import augment, clips, config, dataset, schedule, stream, targets, windows

torch.set_num_threads(1)
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def rendered():
    """Clips of two rooms, four frames each."""
    small = training_small.config()
    return clips.render_plan(clips.plan(small.data, small.stages[1], 14, seed=1, number=0), CPU)


def test_quaternions_agree_with_scipy_and_have_one_sign():
    R = Rotation.random(200, random_state=0)
    half_turns = Rotation.from_rotvec(np.pi * np.eye(3))
    for rotations in (R, half_turns, Rotation.identity(1)):
        found = targets.quaternion(torch.from_numpy(rotations.as_matrix())).numpy()
        assert (found[:, 3] >= 0).all()
        np.testing.assert_allclose(Rotation.from_quat(found).as_matrix(), rotations.as_matrix(), atol=1e-12)
    back = targets.rotation(3 * targets.quaternion(torch.from_numpy(R.as_matrix()))).numpy()
    np.testing.assert_allclose(back, R.as_matrix(), atol=1e-12)


def test_targets_are_in_the_first_camera_and_of_unit_size(rendered):
    truth = targets.normalise(rendered.depth, rendered.T_world_camera, rendered.K)
    mean = (truth.points.norm(dim=-1) * truth.known).sum((1, 2, 3)) / truth.known.sum((1, 2, 3))
    torch.testing.assert_close(mean, torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(truth.pose[:, 0, :7], torch.tensor([0.0, 0, 0, 0, 0, 0, 1]).expand(2, 7))
    # The pose encoding brings the points of every frame back to that frame's depth ...
    for b in range(2):
        T = targets.decode(truth.pose[b])
        back = targets.transform(T, truth.points[b].flatten(1, 2)).unflatten(1, truth.depth.shape[2:])
        error = (back[..., 2] - truth.depth[b]).abs()[truth.known[b]]
        assert float(error.max()) < 1e-5
        # ... and its fields of view are those of K.
        K = rendered.K[b].numpy()
        fov = 2 * np.arctan2([42 / 2, 56 / 2], np.stack([K[:, 1, 1], K[:, 0, 0]], -1))
        np.testing.assert_allclose(truth.pose[b, :, 7:], fov, atol=1e-6)
    # One factor scales everything back to metres.
    torch.testing.assert_close(truth.depth * truth.unit[:, None, None, None], rendered.depth)
    relative = targets.invert(rendered.T_world_camera) @ rendered.T_world_camera[:, :1]
    torch.testing.assert_close((truth.pose[..., :3] * truth.unit[:, None, None]).double(), relative[..., :3, 3])


def test_tracks_by_depth_and_pose_are_those_of_the_ray_caster():
    world = make_world('room', 5)
    path, K, size = make_trajectory(world, 'orbit', 5, 4, 2.0), default_intrinsics((112, 84)), (112, 84)
    frames = list(render_frames(world, path, K, size))
    depth = torch.from_numpy(np.stack([frame.depth for frame in frames]))[None].nan_to_num(0)
    rng = np.random.default_rng(0)
    queries = np.stack([rng.integers(0, 112, 300), rng.integers(0, 84, 300)], -1).astype(np.float64)
    exact = follow_exactly(Scene.pack(world, path.times), path.T_world_camera, K, size, queries, frame=1)
    pixels = torch.from_numpy(queries).float()
    z = depth[0, 1, pixels[:, 1].long(), pixels[:, 0].long()][None]
    poses = torch.from_numpy(path.T_world_camera)[None]
    intrinsics = torch.from_numpy(K).expand(1, 4, 3, 3)
    tracks = targets.follow(pixels[None], z, torch.tensor([1]), depth, poses, intrinsics)
    both = tracks.visible & exact.visible
    assert both.sum() > 600
    assert float((tracks.uv - exact.uv).norm(dim=-1)[both].max()) < 1e-2
    assert float((tracks.visible == exact.visible)[tracks.judged].float().mean()) > 0.99


def test_mirrored_windows_are_consistent_worlds(rendered):
    flip = torch.tensor([True, False])
    images, depth, T, K = windows.mirror(
        rendered.images.float(), rendered.depth, rendered.T_world_camera, rendered.K, flip
    )
    assert torch.equal(images[0], rendered.images[0].flip(-1))
    assert torch.equal(depth[1], rendered.depth[1])
    assert torch.equal(T[1], rendered.T_world_camera[1])
    torch.testing.assert_close(torch.linalg.det(T[0]), torch.ones(4, dtype=torch.float64))
    # A mirrored pixel moves to the mirror image of where the pixel moved.
    pixels = torch.tensor([[10.0, 12], [30, 25], [45, 8]])
    mirrored = torch.stack([55 - pixels[:, 0], pixels[:, 1]], -1)
    first, z = torch.zeros(1, dtype=torch.long), rendered.depth[:1, 0, pixels[:, 1].long(), pixels[:, 0].long()]
    plain = targets.follow(pixels[None], z, first, rendered.depth[:1], rendered.T_world_camera[:1], rendered.K[:1])
    other = targets.follow(mirrored[None], z, first, depth[:1], T[:1], K[:1])
    torch.testing.assert_close(other.uv[..., 0], 55 - plain.uv[..., 0], atol=1e-3, rtol=0)
    torch.testing.assert_close(other.uv[..., 1], plain.uv[..., 1], atol=1e-3, rtol=0)


def test_frames_are_chosen_by_overlap_without_repetition_in_any_order():
    # Frames 0-1-2 hang together, 3 sees nothing of them.
    overlap = np.eye(4)
    for i, j in ((0, 1), (1, 2)):
        overlap[i, j] = overlap[j, i] = 0.6
    overlap = np.stack([overlap, overlap])
    rng = np.random.default_rng(0)
    chosen = windows.choose_frames(overlap, rng.integers(2, size=400), 3, 0.5, rng)
    assert all(len(set(row)) == 3 for row in chosen)
    connected = [row for row in chosen.tolist() if set(row) == {0, 1, 2}]
    assert len({tuple(row) for row in connected}) == 6  # every order
    # Only a window that began with the lonely frame holds it.
    assert 0.15 < 1 - len(connected) / 400 < 0.35


def test_colours_change_and_geometry_does_not():
    images = torch.rand(2, 3, 3, 14, 14)
    generator = torch.Generator().manual_seed(0)
    same = augment.colours(images, np.random.default_rng(0), generator, strength=0.0, noise=0.0)
    torch.testing.assert_close(same, images.clamp(1e-4, 1), atol=1e-6, rtol=0)
    changed = augment.colours(images, np.random.default_rng(0), generator, strength=1.0, noise=0.05)
    assert changed.shape == images.shape
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert float((changed - images).abs().mean()) > 0.03


def test_image_sizes_are_multiples_of_the_patch():
    assert clips.image_size('4x3', 168, 14) == (168, 126)
    assert clips.image_size('16x9', 168, 14) == (168, 98)
    assert clips.image_size('3x4', 112, 14) == (84, 112)


def test_every_set_of_clips_is_shown_as_often_as_planned():
    data = training_small.config(**{'data.slots': 3, 'data.uses': 4}).data
    shown = [schedule.born(step, data) for step in range(120)]
    assert all(number <= step for step, number in enumerate(shown))
    counts = [shown.count(number) for number in set(shown) if 12 < number < 90]
    assert set(counts) == {4}
    # The order of births is the order in which they are wanted, also after a resume in the middle.
    for first in (0, 50):
        wanted, have = [], {}
        for step in range(first, 80):
            if have.get(step % 3) != shown[step]:
                have[step % 3] = shown[step]
                wanted.append(shown[step])
        births = schedule.births(first, data)
        assert [next(births) for _ in wanted] == wanted


def equal(a, b):
    return torch.equal(a.images, b.images) and all(
        torch.equal(x, y)
        for x, y in zip((*a.truth, a.queries, *a.tracks), (*b.truth, b.queries, *b.tracks), strict=True)
    )


def test_a_batch_is_a_function_of_its_step():
    small = training_small.config()
    first, second, later = stream.batches(small, CPU), stream.batches(small, CPU), stream.batches(small, CPU, 3)
    batches = [next(first) for _ in range(6)]
    assert all(equal(batch, next(second)) for batch in batches)
    assert all(equal(batch, next(later)) for batch in batches[3:])
    assert not equal(batches[0], batches[2])  # the same clips, other windows
    assert batches[0].images.shape[1:] == (2, 3, 28, 42)  # stage 1: pairs, small
    assert batches[5].images.shape[3:] == (42, 56)  # stage 2


def test_queries_are_where_depth_is_known():
    depth = torch.zeros(2, 6, 8)
    depth[:, 2, 3:7] = 2.0
    pixels, z = windows.draw_queries(depth, 4, torch.Generator().manual_seed(0))
    assert {tuple(pixel) for pixel in pixels[0].tolist()} == {(3, 2), (4, 2), (5, 2), (6, 2)}
    assert (z == 2).all()


def test_evaluation_worlds_are_never_trained_on(monkeypatch):
    seeds = []
    monkeypatch.setattr(
        clips, 'make_world', lambda kind, seed, **options: (seeds.append(seed), make_world(kind, seed))[1]
    )
    small = training_small.config(**{'data.worlds': 5})
    for number in range(4):
        clips.plan(small.data, small.stages[0], 14, seed=0, number=number)
    assert len(set(seeds)) == len(seeds) >= 20
    assert min(seeds) >= clips.RESERVED_SEEDS


# Configuration -----------------------------------------------------------------------------------------------------


def test_configuration_survives_its_own_text():
    small = training_small.config()
    assert config.from_dict(config.to_dict(small)) == small


@pytest.mark.parametrize('name', ['train_tiny.yaml', 'train_tiny_cpu.yaml'])
def test_shipped_configurations_are_valid(name):
    loaded = config.load(Path(__file__).parents[2] / 'config' / name)
    assert loaded.stages[-1].frames == (2, 8)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda v: v['loss'].pop('alpha'), 'missing loss.alpha'),
        (lambda v: v['run'].update(stepz=3), 'unknown run.stepz'),
        (lambda v: v['stages'][1].update(frames='many'), r'stages\[1\].frames must be a list'),
        (lambda v: v['stages'][1].update(frames=[2, 9]), r'stages\[1\].frames .* data.frames 4'),
        (lambda v: v['optimizer'].update(learning_rate='high'), 'optimizer.learning_rate must be float'),
        (lambda v: v['stages'][0]['worlds'].update(moon=1), "no kind 'moon'"),
        (lambda v: v['network'].update(embed_dim=31), 'embed_dim 31'),
        (lambda v: v['stages'][1].update(longest=50), 'longest 50 is not a multiple'),
        (lambda v: v['data'].update(aspects={'wide': 1}), "'wide' is not like 4x3"),
    ],
)
def test_configuration_errors_name_the_field(change, message):
    values = copy.deepcopy(training_small.VALUES)
    change(values)
    with pytest.raises(ConfigError, match=message):
        config.from_dict(values)


def test_a_broken_configuration_file_is_named(tmp_path):
    for name, text in (('a.yaml', 'data: [1'), ('b.json', '{'), ('c.yaml', '3')):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match=name):
            config.load(tmp_path / name)
    with pytest.raises(ConfigError, match=r'nothing\.yaml'):
        config.load(tmp_path / 'nothing.yaml')


# Recordings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
    """A folder of 8 pictures whose principal point is not in the middle."""
    folder = tmp_path_factory.mktemp('recordings') / 'room'
    world = make_world('room', 3)
    K = default_intrinsics((160, 120))
    K[:2, 2] += (8, -3)
    frames = list(render_frames(world, make_trajectory(world, 'handheld', 3, 8, 5.0), K, (160, 120)))
    write_folder(folder, frames, K, (160, 120))
    return folder


def test_recordings_become_clips_with_the_principal_point_in_the_middle(recording):
    small = training_small.config(**{'data.folders': [str(recording)]})
    made = next(dataset.recorded(small, CPU, 0))
    width, height = made.depth.shape[3], made.depth.shape[2]
    assert width == 56
    np.testing.assert_allclose(made.K[0, 0, :2, 2], [(width - 1) / 2, (height - 1) / 2], atol=0.51)
    # Depth and pose of different frames agree: what frame 0 sees is where frame 3 sees it.
    pixels = torch.stack(torch.meshgrid(torch.arange(8.0, 50, 6), torch.arange(8.0, 34, 6), indexing='ij'), -1)
    pixels = pixels.flatten(0, 1)
    z = made.depth[:, 0, pixels[:, 1].long(), pixels[:, 0].long()]
    tracks = targets.follow(
        pixels.expand(2, -1, -1), z, torch.zeros(2, dtype=torch.long), made.depth, made.T_world_camera, made.K
    )
    inside = (tracks.uv > 0).all(-1) & (tracks.uv[..., 0] < width - 1) & (tracks.uv[..., 1] < height - 1)
    assert float(tracks.visible[inside].float().mean()) > 0.8
    seen, z_there = tracks.uv[tracks.visible], tracks.z[tracks.visible]
    place = tracks.visible.nonzero()
    there = made.depth[place[:, 0], place[:, 1], seen[:, 1].round().long(), seen[:, 0].round().long()]
    assert float(((there - z_there).abs() / z_there).median()) < 0.02
    batch = next(stream.batches(small, CPU))
    assert torch.isfinite(batch.truth.pose).all()


def without(folder, tmp_path, name):
    """A copy of a recording without one of its files."""
    copy_of = tmp_path / 'copy'
    shutil.copytree(folder, copy_of)
    (copy_of / name).unlink()
    return copy_of


@pytest.mark.parametrize(
    ('name', 'message'),
    [('poses.txt', 'there are no true poses'), ('intrinsics.yaml', '000000.png: the camera is not calibrated')],
)
def test_recordings_without_truth_are_refused(recording, tmp_path, name, message):
    with pytest.raises(dataset.DatasetError, match=message):
        dataset.RecordedFolder.read(without(recording, tmp_path, name), 56, 14)


@pytest.mark.parametrize('name', ['images/000004.png', 'depth/000004.png'])
@pytest.mark.parametrize('gone', [True, False])
def test_pictures_with_holes_are_left_out_and_it_is_said(recording, tmp_path, name, gone):
    copy_of = without(recording, tmp_path, name)
    if not gone or name.startswith('images'):
        (copy_of / name).write_text('no picture' if not gone else '')
    whole = dataset.RecordedFolder.read(recording, 56, 14)
    read = dataset.RecordedFolder.read(copy_of, 56, 14)
    rest = [i for i in range(8) if i != 4]
    np.testing.assert_array_equal(read.seconds, whole.seconds[rest])
    np.testing.assert_array_equal(read.images, whole.images[rest])
    np.testing.assert_array_equal(read.depth, whole.depth[rest])
    np.testing.assert_array_equal(read.T_world_camera, whole.T_world_camera[rest])
    assert any('000004.png' in note for note in read.notes)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('poses.txt', '1.0 0 0 0 0 0 0\n', r'poses\.txt:1: 7 values instead of'),
        ('intrinsics.yaml', 'fx: [', r'intrinsics\.yaml'),
    ],
)
def test_broken_files_of_a_recording_are_named(recording, tmp_path, name, content, message):
    copy_of = without(recording, tmp_path, name)
    (copy_of / name).write_text(content)
    with pytest.raises(dataset.DatasetError, match=message):
        dataset.RecordedFolder.read(copy_of, 56, 14)


def test_a_picture_without_a_pose_is_left_out(recording, tmp_path):
    copy_of = without(recording, tmp_path, 'depth/000000.png')
    poses = (copy_of / 'poses.txt').read_text().splitlines()
    (copy_of / 'depth' / '000000.png').write_bytes((recording / 'depth' / '000000.png').read_bytes())
    (copy_of / 'poses.txt').write_text('\n'.join([*poses[:4], *poses[6:]]) + '\n')
    read = dataset.RecordedFolder.read(copy_of, 56, 14)
    assert len(read.seconds) == 6
    assert any('2 pictures without pose or depth are left out, 000003.png' in note for note in read.notes)


def test_depth_of_other_pixels_is_that_of_the_nearest(recording, tmp_path):
    """As ScanNet has it."""
    copy_of = tmp_path / 'copy'
    shutil.copytree(recording, copy_of)
    for file in (copy_of / 'depth').iterdir():
        raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), raw[::2, ::2])
    small, whole = (dataset.RecordedFolder.read(folder, 56, 14) for folder in (copy_of, recording))
    both = (small.depth > 0) & (whole.depth > 0)
    assert both.mean() > 0.9
    assert np.median(np.abs(np.log(small.depth[both] / whole.depth[both]))) < 0.01


def test_a_distorting_camera_is_rectified(recording, tmp_path):
    copy_of = without(recording, tmp_path, 'intrinsics.yaml')
    text = (recording / 'intrinsics.yaml').read_text()
    (copy_of / 'intrinsics.yaml').write_text(text + 'distortion: [-0.2, 0.05, 0, 0]\ndistortion_model: plumb_bob\n')
    read, whole = (dataset.RecordedFolder.read(folder, 56, 14) for folder in (copy_of, recording))
    np.testing.assert_allclose(read.K, whole.K)
    assert np.abs(read.images.astype(int) - whole.images).mean() > 2
    # The middle stays where it is.
    height, width = read.depth.shape[1:]
    middle = np.s_[:, height // 2 - 2 : height // 2 + 3, width // 2 - 2 : width // 2 + 3]
    assert np.median(np.abs(np.log(read.depth[middle] / whole.depth[middle]))) < 0.02
