"""What depth images cost is said, and how many of them wait for a late subscriber."""

from dataclasses import replace

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.srv', reason='the workspace is not built')

import rclpy
from rclpy.lifecycle import LifecycleNode
from sensor_msgs.msg import Image

from exact_windows import estimate
from harness import wait_until
from vggt_ros.camera import fit
from vggt_ros.ros.outputs.outputs import Outputs
from vggt_ros.ros.outputs.publishers import QUEUE, image_queue

SETTINGS = {'map_frame': 'map', 'depth_size': 'source', 'mode': 'live', 'stride': 1}


@pytest.fixture
def node():
    context = rclpy.Context()
    rclpy.init(context=context)
    node = LifecycleNode('vggt', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def seen_by(size):
    pixel_map = fit(size)
    depth = np.ones(pixel_map.size[::-1], np.float32)
    return replace(estimate(0), depth=depth, confidence=depth, map=pixel_map)


def test_what_a_large_depth_image_costs_is_said_once(node, capfd):
    outputs = Outputs(node, SETTINGS)
    node.create_subscription(Image, '/vggt/depth/image_rect', lambda message: None, 1)
    assert wait_until(lambda: outputs.depth.get_subscription_count() > 0)
    outputs.publish_view(seen_by((1920, 1080)))
    assert 'depth_size' not in capfd.readouterr().err
    for _ in range(2):
        outputs.publish_view(seen_by((3840, 2160)))
    said = capfd.readouterr().err
    assert said.count('of 3840x2160 are 33 MB each; depth_size:=network makes them 518x294') == 1
    outputs.close()


def test_live_no_more_images_wait_than_a_window_brings_and_one(node):
    assert [image_queue(SETTINGS | {'stride': stride}) for stride in (1, 4, 32)] == [2, 5, QUEUE]
    assert image_queue(SETTINGS | {'mode': 'every_frame'}) == QUEUE
    outputs = Outputs(node, SETTINGS)
    assert [one.qos_profile.depth for one in (outputs.depth, outputs.confidence, outputs.points)] == [2, 2, QUEUE]
    outputs.close()
