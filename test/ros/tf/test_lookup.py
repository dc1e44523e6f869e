"""Looking up transforms with tf2 itself, and what tf2 makes of those that we broadcast."""

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros('tf2_ros', 'tf2_msgs')
pytest.importorskip('rclpy')
pytest.importorskip('tf2_ros')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

import tf2_ros
from geometry_msgs.msg import TransformStamped
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock

from exact_robot import T_BASE_CAMERA, T_MAP_ODOM, base_at, pose, wheels
from harness import PERIOD, stamp_of, wait_until
from tf_stage import SETTINGS, Stage, at
from vggt_ros.camera import invert
from vggt_ros.ros import compat
from vggt_ros.ros.messages import ns_to_time, to_transform
from vggt_ros.ros.tf.lookup import Lookup
from vggt_ros.ros.tf.transforms import Transforms


class Robot(Stage):
    """The other node places the camera on the base, and drives."""

    def __init__(self):
        super().__init__()
        self.lookup = Lookup(self.node, self.tf)
        self.static = tf2_ros.StaticTransformBroadcaster(self.other)
        self.moving = compat.transform_broadcaster(self.other)
        assert wait_until(lambda: self.moving.pub_tf.get_subscription_count() == 2)

    def send(self, broadcaster, parent, child, T, stamp=0):
        transform = TransformStamped(child_frame_id=child, transform=to_transform(T))
        transform.header.frame_id, transform.header.stamp = parent, ns_to_time(stamp)
        broadcaster.sendTransform(transform)

    def mount(self):
        self.send(self.static, 'base_link', 'eye', T_BASE_CAMERA)
        assert wait_until(lambda: self.known('base_link', 'eye'))

    def drive(self, index):
        self.send(self.moving, 'odom', 'base_link', wheels(index), stamp_of(index))
        assert wait_until(lambda: self.known('odom', 'base_link', stamp_of(index)))

    def known(self, target, source, stamp=None):
        return not isinstance(self.lookup(target, source, stamp), str)

    def close(self):
        self.lookup.close()
        super().close()


@pytest.fixture
def robot():
    robot = Robot()
    yield robot
    robot.close()


def test_fixed_transforms_hold_at_every_stamp_and_moving_ones_at_their_own(robot):
    robot.mount()
    robot.drive(2)
    robot.drive(3)
    for stamp in (None, 1, stamp_of(2), stamp_of(99)):
        np.testing.assert_allclose(robot.lookup('base_link', 'eye', stamp), T_BASE_CAMERA, atol=1e-12)
    np.testing.assert_allclose(robot.lookup('odom', 'eye', stamp_of(2)), wheels(2) @ T_BASE_CAMERA, atol=1e-12)
    np.testing.assert_allclose(robot.lookup('eye', 'odom'), invert(wheels(3) @ T_BASE_CAMERA), atol=1e-12)
    between = robot.lookup('odom', 'base_link', stamp_of(2) + PERIOD // 2)
    np.testing.assert_allclose(between[:3, 3], (wheels(2)[:3, 3] + wheels(3)[:3, 3]) / 2, atol=1e-8)


def test_what_is_not_there_is_told_in_words(robot):
    robot.mount()
    robot.drive(2)
    assert 'nobody' in robot.lookup('odom', 'nobody')
    assert 'extrapolation' in robot.lookup('odom', 'base_link', stamp_of(3))


def test_clear_forgets_what_moves_so_that_time_may_begin_anew(robot):
    robot.mount()
    robot.drive(200)
    robot.lookup.clear()
    assert isinstance(robot.lookup('odom', 'base_link'), str)
    robot.drive(0)
    np.testing.assert_allclose(robot.lookup('odom', 'eye'), wheels(0) @ T_BASE_CAMERA, atol=1e-12)


def test_a_jump_of_simulated_time_clears(robot):
    clock = robot.other.create_publisher(Clock, '/clock', 1)
    robot.node.set_parameters([Parameter('use_sim_time', value=True)])
    assert wait_until(lambda: clock.get_subscription_count() == 1)

    def set_clock(ns):
        clock.publish(Clock(clock=ns_to_time(ns)))
        assert wait_until(lambda: robot.node.get_clock().now().nanoseconds == ns)

    robot.mount()
    set_clock(stamp_of(200))
    robot.drive(200)
    set_clock(stamp_of(0))
    assert wait_until(lambda: not robot.known('odom', 'base_link'))
    assert robot.known('base_link', 'eye')


def test_close_leaves_no_subscription(robot):
    robot.lookup.close()
    assert wait_until(lambda: robot.other.count_subscribers('/tf') == 1)
    assert wait_until(lambda: robot.other.count_subscribers('/tf_static') == 0)


@pytest.mark.parametrize('mode', ['odom', 'map', 'full'])
def test_the_tree_composes_to_the_pose_of_the_camera(robot, mode):
    """As anybody on the robot sees it, at every image's stamp; a correction moves the map alone."""
    corrected = pose([0.3, 0.1, 0], [0, 0, 0.2]) @ T_MAP_ODOM
    placed = []
    robot.mount()
    transforms = Transforms(robot.node, SETTINGS | {'tf_mode': mode}, robot.tf, robot.lookup, placed.append)
    robot.transforms = transforms
    assert wait_until(lambda: robot.other.count_publishers('/tf') == 2)
    top = 'odom' if mode == 'odom' else 'map'
    for i in range(6):
        T_map_odom = T_MAP_ODOM if i < 3 else corrected
        assert transforms.send(at(i, T_map_odom)) is None
        if mode == 'map':
            robot.drive(i)  # later than the image, as life is
            assert transforms.retry() is None
        stamp = stamp_of(i)
        assert wait_until(lambda stamp=stamp: robot.known(top, 'eye', stamp)), robot.lookup(top, 'eye', stamp)
        expected = base_at(0.1 * i) @ T_BASE_CAMERA
        if mode != 'odom':
            expected = T_map_odom @ expected
        np.testing.assert_allclose(robot.lookup(top, 'eye', stamp), expected, atol=1e-9)
    assert [one.stamp for one in placed] == [stamp_of(i) for i in range(6)]


def test_a_base_that_is_not_the_root_is_found_out(robot):
    robot.send(robot.static, 'base_footprint', 'base_link', pose([0, 0, 0.1], [0, 0, 0]))
    robot.mount()
    transforms = robot.transforms = Transforms(
        robot.node, SETTINGS | {'tf_mode': 'odom'}, robot.tf, robot.lookup, print
    )
    assert wait_until(lambda: transforms._broadcaster.parents.conflict('base_link'))
    problem = transforms.send(at(0))
    assert 'base_link already has the parent base_footprint on /tf_static (published by /robot/ekf)' in problem
    assert 'root' in problem
