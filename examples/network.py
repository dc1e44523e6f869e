"""The network as a library: pictures in; cameras, depth and points out. No ROS.

python examples/network.py PICTURE PICTURE ...
python examples/network.py --weights facebook/VGGT-1B --device cuda PICTURE PICTURE ...

Prints the names and shapes of what the network gives (those of the published VGGT), and where each camera is.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from vggt_ros.camera import fit, intrinsics_from_fov
from vggt_ros.inference import poses_from_encoding
from vggt_ros.network.checkpoint import load
from vggt_ros.weights.registry import EMBEDDED, NETWORKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('pictures', type=Path, nargs='+', help='of one scene and one size')
    parser.add_argument('--weights', default=NETWORKS[EMBEDDED].weights, help='checkpoint file or hub id')
    parser.add_argument('--device', default='cpu')
    given = parser.parse_args()

    network = load(given.weights, device=given.device, heads=('camera', 'depth'))
    images = np.stack([cv2.imread(str(path))[..., ::-1] for path in given.pictures])  # (S, H, W, 3) RGB
    # The network wants sides that are multiples of its patches: scaled, then cropped by a few pixels.
    pixels = fit((images.shape[2], images.shape[1]), network.config.img_size, network.config.patch_size)
    (left, top), (width, height) = pixels.offset, pixels.size
    images = np.stack([cv2.resize(one, pixels.resized, interpolation=cv2.INTER_AREA) for one in images])
    images = images[:, top : top + height, left : left + width].transpose(0, 3, 1, 2)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(images / np.float32(255)).to(given.device))

    for name, value in outputs.items():
        if isinstance(value, torch.Tensor):
            print(f'{name}: {tuple(value.shape)}')
    encoding = outputs['pose_enc'][0].cpu().numpy()
    K = intrinsics_from_fov(encoding[:, 7], encoding[:, 8], pixels.size)
    for path, T, one in zip(given.pictures, poses_from_encoding(encoding), K, strict=True):
        x, y, z = T[:3, 3]
        print(f'{path.name}: at ({x:.3f}, {y:.3f}, {z:.3f}) in the first camera, focal length {one[0, 0]:.0f} px')


if __name__ == '__main__':
    main()
