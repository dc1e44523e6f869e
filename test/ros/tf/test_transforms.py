"""What goes to /tf, over DDS, as others hear it; transforms of others come from a table."""

import numpy as np
import pytest

pytestmark = pytest.mark.requires_ros('tf2_msgs')
pytest.importorskip('rclpy')
pytest.importorskip('vggt_ros.msg', reason='the workspace is not built')

from geometry_msgs.msg import TransformStamped

from exact_robot import T_BASE_CAMERA, T_MAP_ODOM, base_at, pose, wheels
from harness import stamp_of, stamps, wait_until
from tf_stage import SETTINGS, Others, Stage, at, transform
from vggt_ros.camera import invert
from vggt_ros.ros.messages import from_transform
from vggt_ros.ros.outputs.outputs import from_placement
from vggt_ros.ros.tf import heard, parents, transforms
from vggt_ros.ros.tf.transforms import Transforms
from vggt_ros.types import Scale


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    time = [100.0]
    for module in (transforms, parents, heard):
        monkeypatch.setattr(module, 'monotonic', lambda: time[0])
    return time


def matrices(edge):
    return np.stack([from_transform(one.transform) for one in edge])


COUNT = 5


def truth(count=COUNT):
    return np.stack([base_at(0.1 * i) for i in range(count)])


@pytest.mark.parametrize(
    ('mode', 'base', 'expected'),
    [
        ('none', 'base_link', {}),
        ('camera', 'base_link', {('map', 'eye'): T_MAP_ODOM @ truth() @ T_BASE_CAMERA}),
        ('odom', '', {('odom', 'eye'): truth() @ T_BASE_CAMERA}),
        ('odom', 'base_link', {('odom', 'base_link'): truth()}),
        (
            'map',
            'base_link',
            {('map', 'odom'): T_MAP_ODOM @ [base_at(0.1 * i) @ invert(wheels(i)) for i in range(COUNT)]},
        ),
        ('full', 'base_link', {('map', 'odom'): np.stack([T_MAP_ODOM] * COUNT), ('odom', 'base_link'): truth()}),
        ('full', 'eye', {('map', 'odom'): np.stack([T_MAP_ODOM] * COUNT), ('odom', 'eye'): truth() @ T_BASE_CAMERA}),
    ],
)
def test_each_mode_broadcasts_its_edges_at_the_stamps_of_the_images(stage, mode, base, expected):
    stage.begin(mode, Others(come=range(COUNT)), base_frame=base)
    assert [stage.transforms.send(at(i)) for i in range(COUNT)] == [None] * COUNT
    found = stage.edges(COUNT * len(expected))
    assert found.keys() == expected.keys()
    for edge, T in expected.items():
        assert stamps(found[edge]) == [stamp_of(i) for i in range(COUNT)]
        np.testing.assert_allclose(matrices(found[edge]), T, atol=1e-12)
    assert [placement.stamp for placement in stage.placed] == [stamp_of(i) for i in range(COUNT)]


def test_odometry_messages_tell_the_same_as_tf(stage):
    stage.begin('full')
    stage.transforms.send(at(3))
    message = from_placement(stage.placed[0])
    transform = stage.edges(2)['odom', 'base_link'][0]
    assert message.header == transform.header
    assert message.child_frame_id == transform.child_frame_id
    position, translation = message.pose.pose.position, transform.transform.translation
    assert (position.x, position.y, position.z) == (translation.x, translation.y, translation.z)
    assert message.pose.pose.orientation == transform.transform.rotation
    twist = message.twist.twist
    velocity = [getattr(part, axis) for part in (twist.linear, twist.angular) for axis in 'xyz']
    np.testing.assert_array_equal(velocity, stage.placed[0].velocity)
    np.testing.assert_array_equal(message.pose.covariance, stage.placed[0].covariance.ravel())
    np.testing.assert_array_equal(message.twist.covariance, stage.placed[0].velocity_covariance.ravel())


def test_a_correction_moves_odom_in_the_map_and_leaves_the_base_in_odom(stage):
    """A loop was closed: the map jumps, the steps of the robot in odom are its own."""
    corrected = pose([0.3, 0.1, 0], [0, 0, 0.2]) @ T_MAP_ODOM
    stage.begin('full')
    for i in range(8):
        stage.transforms.send(at(i, T_MAP_ODOM if i < 4 else corrected))
    found = stage.edges(16)
    np.testing.assert_allclose(matrices(found['odom', 'base_link']), truth(8), atol=1e-12)
    np.testing.assert_allclose(matrices(found['map', 'odom']), [T_MAP_ODOM] * 4 + [corrected] * 4, atol=1e-12)


def test_time_on_tf_never_goes_back(stage):
    stage.begin('full')
    for i in (3, 2, 3, 4, 0, 5):
        assert stage.transforms.send(at(i)) is None
    stage.transforms.reset()
    stage.transforms.send(at(1))
    for edge in stage.edges(8).values():
        assert stamps(edge) == [stamp_of(i) for i in (3, 4, 5, 1)]
    assert [placement.stamp for placement in stage.placed] == [stamp_of(i) for i in (3, 4, 5, 1)]


# Transforms of others


def test_a_pose_waits_for_the_transform_at_its_own_stamp(stage, clock):
    """Wheel odometry that is always later than the next image still gives every image its correction."""
    others = Others()
    stage.begin('map', others)
    for i in range(6):
        clock[0] += 0.1
        others.come.update(range(i - 2))
        assert stage.transforms.send(at(i)) is None
    assert [placement.stamp for placement in stage.placed] == [stamp_of(i) for i in range(6)]
    others.come.update(range(6))
    assert stage.transforms.retry() is None
    edge = stage.edges(6)['map', 'odom']
    assert stamps(edge) == [stamp_of(i) for i in range(6)]
    expected = T_MAP_ODOM @ [base_at(0.1 * i) @ invert(wheels(i)) for i in range(6)]
    np.testing.assert_allclose(matrices(edge), expected, atol=1e-12)


def test_a_transform_that_never_comes_is_given_up_and_said(stage, clock):
    others = Others()
    stage.begin('map', others)
    assert stage.transforms.send(at(0)) is None
    clock[0] += 0.4
    assert stage.transforms.send(at(1)) is None
    clock[0] += 0.2
    assert 'waited 0.6 s: extrapolation into the future' in stage.transforms.retry()
    assert stage.transforms.retry() is None
    others.come.update([0, 1])
    assert stage.transforms.retry() is None
    assert stamps(stage.edges(1)['map', 'odom']) == [stamp_of(1)]


def test_an_unknown_mount_is_waited_for_too(stage, clock):
    others = Others()
    others.mounted = False
    stage.begin('odom', others)
    stage.transforms.send(at(0))
    clock[0] += 0.6
    assert '"base_link" does not exist' in stage.transforms.send(at(1))
    assert not stage.placed
    others.mounted = True
    assert stage.transforms.send(at(2)) is None
    assert stamps(stage.edges(2)['odom', 'base_link']) == [stamp_of(1), stamp_of(2)]


def test_waiting_poses_are_bounded():
    """Even where the clock stands still."""
    waiting = transforms.Waiting(lambda: 1e9)
    problems = []
    for i in range(transforms.MOST_WAITING + 5):
        waiting.put(i)
        problems.append(waiting.take(lambda item: 'not yet')[1])
    assert sum(problem is not None for problem in problems) == 5
    ready, problem = waiting.take(lambda item: np.eye(4))
    assert [item for item, _ in ready] == list(range(5, transforms.MOST_WAITING + 5))
    assert problem is None


@pytest.mark.parametrize('mounted', [True, False], ids=['odometry', 'mount'])
def test_a_reset_forgets_what_waits(stage, mounted):
    others = Others()
    others.mounted = mounted
    stage.begin('map', others)
    stage.transforms.send(at(5))
    stage.transforms.reset()
    others.mounted = True
    others.come.update(range(6))
    stage.transforms.send(at(1))
    assert stamps(stage.edges(1)['map', 'odom']) == [stamp_of(1)]
    assert [placement.stamp for placement in stage.placed] == [stamp_of(i) for i in ([5, 1] if mounted else [1])]


def test_the_last_correction_holds_while_images_have_no_pose(stage):
    stage.begin('map', Others(come=[0, 5]))
    assert stage.transforms.hold(stamp_of(0)) is None  # nothing to hold yet
    stage.transforms.send(at(0))
    for i in (1, 2, 1):
        assert stage.transforms.hold(stamp_of(i)) is None
    stage.transforms.send(at(3))
    stage.transforms.hold(stamp_of(4))  # the pose of 3 is still to come, and comes in time
    stage.lookup.come.add(3)
    stage.transforms.send(at(5))
    edge = stage.edges(5)['map', 'odom']
    assert stamps(edge) == [stamp_of(i) for i in (0, 1, 2, 3, 5)]
    held = T_MAP_ODOM @ base_at(0) @ invert(wheels(0))
    np.testing.assert_allclose(matrices(edge)[:3], [held] * 3, atol=1e-12)


def test_only_mode_map_holds(stage):
    stage.begin('full')
    stage.transforms.send(at(0))
    stage.transforms.hold(stamp_of(1))
    stage.transforms.send(at(2))
    for edge in stage.edges(4).values():
        assert stamps(edge) == [stamp_of(0), stamp_of(2)]


@pytest.mark.parametrize('mode', ['odom', 'map', 'full'])
def test_a_map_without_metric_scale_does_not_meet_metres(stage, mode):
    stage.begin(mode, Others(come=range(2)))
    assert 'metric' in stage.transforms.send(at(0, scale=Scale.RELATIVE))
    assert not stage.placed
    assert stage.transforms.send(at(1)) is None
    for edge in stage.edges(2 if mode == 'full' else 1).values():
        assert stamps(edge) == [stamp_of(1)]


def test_modes_that_need_others_need_a_lookup(stage):
    for mode in ('map', 'odom', 'full'):
        with pytest.raises(ValueError, match=f'{mode} needs transforms of others'):
            Transforms(stage.node, SETTINGS | {'tf_mode': mode}, stage.tf, None, print)


def test_a_camera_with_the_name_of_the_map_is_refused(stage):
    stage.begin('camera')
    assert 'frame id map' in stage.transforms.send(at(0, camera='map'))
    assert stage.transforms.send(at(1)) is None


# Second parents


@pytest.mark.parametrize('static', [True, False], ids=['tf_static', 'tf'])
@pytest.mark.parametrize('parent', ['odom', 'base_footprint'], ids=['same parent', 'another parent'])
def test_a_frame_that_somebody_else_places_is_left_alone(stage, parent, static):
    """Whoever it is, is named; the edge that is ours alone goes on."""
    stage.begin('full')
    stage.transforms.send(at(0))
    stage.edges(2)
    stage.place(parent, 'base_link', static=static)
    problem = stage.transforms.send(at(1))
    topic = '/tf_static' if static else '/tf'
    assert f'{parent} on {topic} (published by /robot/ekf)' in problem
    assert 'odom -> base_link is not broadcast' in problem
    stage.transforms.send(at(2))
    found = stage.edges(4 if static else 5)
    assert stamps(found['map', 'odom']) == [stamp_of(i) for i in range(3)]
    ours = [one for one in found['odom', 'base_link'] if from_transform(one.transform)[2, 3] != 7]
    assert stamps(ours) == [stamp_of(0)]
    assert len(stage.placed) == 3


def test_another_map_is_named(stage):
    stage.begin('map', Others(come=range(2)))
    stage.place('map', 'odom')
    assert 'only one node may place odom in the map' in stage.transforms.send(at(0))


T_BODY_EYE = pose([0.1, 0.05, -0.02], [0.3, -1.2, 0.8])  # two fixed steps of a driver make it
T_BODY_HOUSING = pose([0.1, 0, 0], [0, 0, 0.2])


def mount(stage, *edges):
    """The driver's own frames on /tf_static: (parent, child, T), in one message."""
    stage.say([transform(*edge) for edge in edges], static=True)
    assert wait_until(lambda: stage.transforms._broadcaster.parents.conflict(edges[-1][1].lstrip('/')))


@pytest.mark.parametrize('slash', ['', '/'], ids=['ros2', 'ros1'])
@pytest.mark.parametrize('mode', ['camera', 'odom', 'full'])
def test_the_root_of_the_cameras_own_tree_is_placed_so_that_the_camera_is_where_it_is(stage, mode, slash):
    """RealSense, ZED and OAK drivers publish camera_link -> ... -> optical frame."""
    stage.begin(mode, base_frame='')
    T_housing_eye = invert(T_BODY_HOUSING) @ T_BODY_EYE
    mount(
        stage,
        (slash + 'camera_link', slash + 'housing', T_BODY_HOUSING),
        (slash + 'housing', slash + 'eye', T_housing_eye),
    )
    assert [stage.transforms.send(at(i)) for i in range(3)] == [None] * 3
    found = stage.edges(6 if mode == 'full' else 3)
    edge = found['map' if mode == 'camera' else 'odom', 'camera_link']
    expected = truth(3) @ T_BASE_CAMERA @ invert(T_BODY_EYE)
    np.testing.assert_allclose(matrices(edge), T_MAP_ODOM @ expected if mode == 'camera' else expected, atol=1e-12)
    assert {placement.child_frame_id for placement in stage.placed} == {'eye'}


def test_a_head_that_turns_under_the_camera_is_looked_up_at_the_stamp(stage, clock):
    """The pose waits for the joint; ~/odometry does not."""
    turned = {}

    def lookup(target, source, stamp):
        assert (target, source) == ('eye', 'torso')
        return turned.get(stamp, 'the head has not said')

    stage.begin('camera', lookup)
    mount(stage, ('neck', 'eye', T_BODY_EYE))
    stage.place('torso', 'neck')
    assert stage.transforms.send(at(0)) is None
    assert stage.transforms.send(at(1)) is None
    assert len(stage.placed) == 2
    turned |= {stamp_of(i): pose([0, 0, 0.3], [0, 0, 0.1 * i]) for i in range(2)}
    assert stage.transforms.retry() is None
    found = stage.edges(3)
    expected = [T_MAP_ODOM @ base_at(0.1 * i) @ T_BASE_CAMERA @ turned[stamp_of(i)] for i in range(2)]
    np.testing.assert_allclose(matrices(found['map', 'torso']), expected, atol=1e-12)
    stage.transforms.send(at(2))
    clock[0] += 0.6
    assert 'the head has not said' in stage.transforms.retry()


@pytest.mark.parametrize('prefix', ['', 'robot1/'], ids=['plain', 'prefixed'])
def test_a_robot_that_others_place_in_odom_is_left_to_them(stage, prefix):
    stage.begin('camera')
    mount(stage, ('base_link', 'eye', T_BODY_EYE))
    assert stage.transforms.send(at(0)) is None
    stage.place(prefix + 'odom', 'base_link')
    problem = stage.transforms.send(at(1))
    assert f'base_link is already placed in {prefix}odom on /tf (published by /robot/ekf)' in problem
    assert 'base_frame' in problem
    assert len(stage.placed) == 2


def test_a_circle_or_nonsense_of_others_ends(stage):
    """Names that are missing, or their own parents, and rotations that are none, are no tree."""
    stage.begin('camera')
    nothing = TransformStamped(child_frame_id='eye')
    nothing.header.frame_id = 'void'
    nothing.transform.rotation.w = 0.0
    stage.say([transform('eye', 'eye', np.eye(4)), transform('', 'eye', np.eye(4)), nothing], static=True)
    mount(stage, ('a', 'b', np.eye(4)), ('b', 'a', np.eye(4)))
    assert stage.transforms.send(at(0)) is None
    assert stage.edges(1).keys() == {('map', 'eye')}
    mount(stage, ('b', 'eye', np.eye(4)))
    problem = stage.transforms.send(at(1))
    assert 'already has the parent' in problem


def test_who_sends_the_same_edge_with_the_same_stamp_is_somebody_else(stage):
    """Two nodes that look at the same images."""
    stage.begin('camera')
    stage.transforms.send(at(4))
    stage.edges(1)
    stage.place('map', 'eye', index=4)
    assert 'eye is already placed in map' in stage.transforms.send(at(5))


def test_our_own_transforms_are_no_second_parent(stage):
    stage.begin('full')
    own = []
    stage.tf.listen(lambda raw, static: own.append(raw))
    stage.transforms.send(at(0))
    assert wait_until(lambda: own)
    assert stage.transforms.send(at(1)) is None


def test_a_frame_is_free_again_when_the_other_falls_silent(stage, clock):
    stage.begin('camera')
    stage.place('odom', 'eye')
    assert stage.transforms.send(at(0)) is not None
    clock[0] += parents.FORGET + 0.1
    assert stage.transforms.send(at(1)) is None


def test_close_leaves_nothing_behind(stage):
    for mode in ('none', 'camera', 'map'):
        stage.begin(mode)
        stage.transforms.close()
        assert wait_until(lambda: stage.other.count_publishers('/tf') == 0)
        assert wait_until(lambda: stage.other.count_subscribers('/tf') == 1)
    stage.transforms = None
