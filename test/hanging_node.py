"""The VGGT node with a network that never answers, or with ``loading`` never comes: ``hanging_node.py [loading]``."""

import sys
import time

from exact import ExactPredictor
from harness import poses
from vggt_ros.ros import node


class Hanging(ExactPredictor):
    """Says when it has been asked."""

    def predict(self, frames, depth=None, queries=None):
        print('asked', flush=True)
        time.sleep(600)


def load(settings):
    if 'loading' in sys.argv:
        print('asked', flush=True)
        time.sleep(600)
    return Hanging(poses(9))


class HangingNode(node.VGGTNode):
    """Everything but the network is the real node."""

    def __init__(self) -> None:
        super().__init__(load=load)


node.VGGTNode = HangingNode
sys.exit(node.main(sys.argv))
