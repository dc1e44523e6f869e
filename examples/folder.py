"""A folder of pictures (or a video, or a bag) to poses, depth and a coloured cloud. No ROS.

python examples/folder.py PATH OUTPUT [--weights facebook/VGGT-1B]

OUTPUT gets trajectory.txt (TUM), depth/STAMP.npy (float32 z-depth at the network's size, NaN unknown) and cloud.ply.
Lengths have one unit that is not the metre: nobody here knows metres.
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
from vggt_ros.pipeline import Pipeline
from vggt_ros.types import Frame
from vggt_ros.weights.registry import make_predictor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('path', type=Path)
    parser.add_argument('output', type=Path)
    parser.add_argument('--weights', default='', help='checkpoint file or hub id; the embedded network without')
    given = parser.parse_args()

    (given.output / 'depth').mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(make_predictor(given.weights, heads=('camera', 'depth')))
    cloud, poses = CloudBuilder(), {}
    for index, item in enumerate(open_sequence(given.path)):
        if not isinstance(item.image, RawImage) or item.image.encoding != 'rgb8':
            raise SystemExit(f'{item.name}: this example reads rgb8 only')
        image = item.image.data.reshape(item.image.height, item.image.width, 3)
        K = None if item.calibration is None else item.calibration.K  # the pictures must be undistorted
        frame = Frame(index, item.stamp, image, K)
        pipeline.look(frame, track=False)  # follows corners, which refine the poses
        for estimate in pipeline.process([frame], track=False).estimates:
            poses[estimate.frame.stamp] = estimate.T_map_camera
            np.save(given.output / 'depth' / f'{estimate.frame.stamp}.npy', estimate.depth)
            points = unproject(estimate.depth, estimate.K)
            cloud.add(points, color_to_network(estimate.frame.image, estimate.map), estimate.T_map_camera)
    T = np.array([poses[stamp] for stamp in sorted(poses)]).reshape(-1, 4, 4)
    write_tum(given.output / 'trajectory.txt', Trajectory(np.array(sorted(poses), np.int64), T))
    write_ply(given.output / 'cloud.ply', *cloud.result())
    print(f'{len(poses)} poses; the state of the map is {pipeline.world.state.name}')


if __name__ == '__main__':
    main()
