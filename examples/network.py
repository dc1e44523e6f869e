"""The network as a library: pictures in; cameras, depth and points out. No ROS.

python examples/network.py                          # of a room that is rendered for it
python examples/network.py FOLDER [--pictures 8]    # the first pictures of a folder, or of a video
python examples/network.py FOLDER --weights facebook/VGGT-1B --device cuda

Prints the names and shapes of what the network gives (those of the published VGGT), and where each camera is, in the
network's own unit, which is not the metre.
"""

import argparse

import numpy as np
import torch
from torch.nn import functional

from vggt_ros.camera import fit, intrinsics_from_fov
from vggt_ros.files.opening import open_sequence
from vggt_ros.inference import poses_from_encoding
from vggt_ros.network.checkpoint import load
from vggt_ros.synthetic.sequence import make_sequence
from vggt_ros.weights.registry import EMBEDDED, NETWORKS

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', nargs='?', help='of undistorted pictures of one scene and one size')
parser.add_argument('--pictures', type=int, default=4, help='how many')
parser.add_argument('--weights', default=NETWORKS[EMBEDDED].weights, help='checkpoint file or hub id')
parser.add_argument('--device', default='cpu')
given = parser.parse_args()

if given.folder:
    raw = [item.image for item in open_sequence(given.folder, limit=given.pictures)]
    images = np.stack([one.to_rgb() for one in raw])  # (S, H, W, 3) uint8, RGB
else:
    images = make_sequence('room', seed=1, frames=given.pictures, size=(160, 120), rate=2.0).images
network = load(given.weights, device=given.device, heads=('camera', 'depth'))

# The network wants sides that are multiples of its patches: scaled, then cropped by a few pixels.
pixels = fit((images.shape[2], images.shape[1]), network.config.img_size, network.config.patch_size)
(width, height), (left, top) = pixels.resized, pixels.offset
inputs = torch.from_numpy(images).to(given.device).permute(0, 3, 1, 2) / 255  # (S, 3, H, W) in [0, 1]
inputs = functional.interpolate(inputs, (height, width), mode='bicubic', antialias=True).clamp(0, 1)
inputs = inputs[..., top : top + pixels.size[1], left : left + pixels.size[0]]
with torch.inference_mode():
    outputs = network(inputs)

for name, value in outputs.items():
    if isinstance(value, torch.Tensor):
        print(f'{name}: {tuple(value.shape)}')
encoding = outputs['pose_enc'][0].cpu().numpy()  # (S, 9), of world-to-camera; below it is camera-to-world
K = intrinsics_from_fov(encoding[:, 7], encoding[:, 8], pixels.size)  # (S, 3, 3) in the network's pixels
for number, (T, one) in enumerate(zip(poses_from_encoding(encoding), K, strict=True), 1):
    x, y, z = T[:3, 3]
    print(f'picture {number}: at ({x:.4f}, {y:.4f}, {z:.4f}) in the first camera, focal length {one[0, 0]:.1f} px')
