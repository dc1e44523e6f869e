"""Pictures to poses, depth and a coloured cloud. No ROS.

python examples/folder.py PATH OUTPUT [--weights facebook/VGGT-1B]

PATH: a folder of undistorted pictures, with intrinsics.yaml and timestamps.txt where there are any; or a video. All is
kept in memory: minutes, not hours. OUTPUT gets trajectory.txt (TUM), depth/STAMP.npy (float32 z-depth at the network's
size, NaN unknown) and cloud.ply. Lengths have one unit that is not the metre: nobody here knows metres.
"""

import argparse
from pathlib import Path

import numpy as np

from vggt_ros.camera import unproject
from vggt_ros.depth import color_to_network
from vggt_ros.files.cloud import CloudBuilder, write_ply
from vggt_ros.files.opening import open_sequence
from vggt_ros.files.sequence import RawImage
from vggt_ros.files.trajectory import Trajectory, write_tum
from vggt_ros.odometry.outcome import moved
from vggt_ros.odometry.world import WorldConfig
from vggt_ros.pipeline import Pipeline
from vggt_ros.similarity import for_all
from vggt_ros.types import Estimate, Frame
from vggt_ros.weights.registry import make_predictor

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('path', type=Path)
parser.add_argument('output', type=Path)
parser.add_argument('--weights', default='', help='checkpoint file or hub id; the embedded network without')
given = parser.parse_args()
(given.output / 'depth').mkdir(parents=True, exist_ok=True)

# One map for all pictures, however long the camera is lost.
world = WorldConfig(lost_timeout=0)
pipeline = Pipeline(make_predictor(given.weights, heads=('camera', 'depth')), world=world)
for warning in pipeline.warnings.values():
    print(warning)
cloud, estimates = CloudBuilder(), dict[int, Estimate]()
for item in open_sequence(given.path):
    if not isinstance(item.image, RawImage) or item.image.encoding != 'rgb8':
        raise SystemExit(f'{item.name}: this example reads rgb8 only')
    known = item.calibration is not None and not any(item.calibration.d)  # K holds for undistorted pictures
    image = item.image.to_rgb()
    frame = Frame(item.index, item.stamp, image, item.calibration.K if known else None)
    pipeline.look(frame, track=False)  # follows corners, which refine the poses
    result = pipeline.process([frame], track=False)
    for index, move in for_all(result.corrections, estimates).items():  # a closed loop moves the past
        estimates[index] = moved(estimates[index], move)
    estimates |= {estimate.frame.index: estimate for estimate in result.estimates}
for one in estimates.values():
    np.save(given.output / 'depth' / f'{one.frame.stamp}.npy', one.depth)
    cloud.add(unproject(one.depth, one.K), color_to_network(one.frame.image, one.map), one.T_map_camera)
T = np.array([one.T_map_camera for one in estimates.values()]).reshape(-1, 4, 4)
trajectory = Trajectory(np.array([one.frame.stamp for one in estimates.values()]), T)
write_tum(given.output / 'trajectory.txt', trajectory, pipeline.world.scale)
write_ply(given.output / 'cloud.ply', *cloud.result())
print(f'{len(estimates)} poses; state {pipeline.world.state.name}, scale {pipeline.world.scale.name}')
