"""Load everything that set-up installed, and name what the system still lacks."""

import ctypes
import importlib
import sys

REQUIRED = [
    'rclpy',
    'tf2_msgs.msg',
    'vggt_ros.msg',
    'vggt_ros.srv',
    'cv2',
    'matplotlib',
    'rosbags',
    'mcap',
    'av',
    'safetensors',
    'scipy',
    'torch',
]
OPTIONAL = {
    'gtsam': 'loop closure',
    'evo': 'evaluation of trajectories',
    'pycolmap': 'COLMAP models of saved maps',
    'open3d': 'tests of clouds',
}
# What open3d wants from the system and a minimal Debian or Ubuntu lacks.
DEBIAN = {
    'libEGL.so.1': 'libegl1',
    'libGL.so.1': 'libgl1',
    'libX11.so.6': 'libx11-6',
    'libgomp.so.1': 'libgomp1',
    'libidn2.so.0': 'libidn2-0',
    'libudev.so.1': 'libudev1',
}


def is_missing(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return True
    return False


def main() -> int:
    failed = False
    absent = []
    for name in [*REQUIRED, *OPTIONAL]:
        try:
            importlib.import_module(name)
        except ImportError as error:
            absent.append(name)
            failed = failed or name in REQUIRED
            meaning = f' (without it: no {OPTIONAL[name]})' if name in OPTIONAL else ''
            print(f'[setup] {name} does not load: {error}{meaning}', file=sys.stderr)
    packages = [package for library, package in DEBIAN.items() if absent and is_missing(library)]
    if packages:
        print(f'[setup] install what is missing with: sudo apt install {" ".join(packages)}', file=sys.stderr)
    if 'torch' not in absent:
        import torch

        device = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no CUDA device, the CPU is used'
        print(f'[setup] torch {torch.__version__}, {device}')
    return int(failed)


if __name__ == '__main__':
    sys.exit(main())
