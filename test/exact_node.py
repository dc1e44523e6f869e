"""The VGGT node with a predictor that knows the truth: ``exact_node.py FOLDER``, pictures of the room of exact.py."""

import sys

from exact import ExactPredictor
from vggt_ros.files.opening import open_sequence
from vggt_ros.ros import node

truth = open_sequence(sys.argv[1]).trajectory
poses = dict(zip(truth.stamps.tolist(), truth.T_world_camera, strict=True))


class ExactNode(node.VGGTNode):
    """Everything but the network is the real node."""

    def __init__(self) -> None:
        super().__init__(load=lambda settings: ExactPredictor(poses))


node.VGGTNode = ExactNode
sys.exit(node.main(sys.argv))
