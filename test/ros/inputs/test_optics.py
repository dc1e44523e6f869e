"""What the pixels mean: a change begins a new map and is said, jitter does neither and is used all the same."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from vggt_ros.calibration import Calibration
from vggt_ros.ros.inputs.frames import FrameMaker, Incoming
from vggt_ros.ros.inputs.serialized import IMAGE
from vggt_ros.ros.problems import Problems

STORE = get_typestore(Stores.ROS2_HUMBLE)
SIZE = (320, 240)
LENS = (-0.3, 0.1, 0.0, 0.001, 0.0)


def camera(fx=132.0, d=(), size=SIZE, **changes):
    k = (fx, 0.0, size[0] / 2, 0.0, fx, size[1] / 2, 0.0, 0.0, 1.0)
    return replace(Calibration(*size, 'plumb_bob', tuple(d), k), **changes)


class Maker:
    """A frame maker fed with grey images; ``said`` holds what was reported."""

    def __init__(self, **options):
        self.said = []
        logger = SimpleNamespace(warning=self.said.append)
        self.frames = FrameMaker(Problems(logger), '', options.pop('required', False), **options)
        self.stamp = 0

    def __call__(self, calibration, size=SIZE, frame_id='eye', encoding='mono8', value=90):
        """(frame, change since the epoch began); a change begins one, as the camera's thread does it."""
        self.stamp += 1
        types = STORE.types
        time = types['builtin_interfaces/msg/Time'](sec=self.stamp, nanosec=0)
        message = types[IMAGE](
            header=types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id), height=size[1], width=size[0],
            encoding=encoding, is_bigendian=0, step=int(encoding[4:]) // 8 * size[0],
            data=np.full(size[0] * size[1], value, f'u{int(encoding[4:]) // 8}').view(np.uint8),
        )  # fmt: skip
        data = bytes(STORE.serialize_cdr(message, IMAGE))
        frame = self.frames.make(Incoming(data, IMAGE, calibration, self.stamp, 0.0))
        change = self.frames.changed()
        if change:
            self.frames.begin_epoch()
        return frame, change


@pytest.mark.parametrize('d', [(), LENS])
def test_another_focal_length_begins_anew_and_is_named(d):
    make = Maker()
    assert make(camera(132.0, d))[1] == ''
    frame, change = make(camera(110.0, d))
    assert change == 'fx 132.0 -> 110.0, fy 132.0 -> 110.0'
    assert frame.K[0, 0] == 110
    assert make(camera(110.0, d))[1] == ''
    assert make(camera(77.0, d))[1] == 'fx 110.0 -> 77.0, fy 110.0 -> 77.0'


def test_calibration_that_comes_late_begins_anew():
    make = Maker()
    assert make(None)[1] == ''
    assert make(camera())[1] == 'intrinsics predicted -> of camera_info, fx 132.0'


def test_size_frame_and_lens_are_part_of_it():
    make = Maker()
    make(camera(d=LENS))
    assert 'distortion, by' in make(camera(d=(-0.2, 0.1, 0.0, 0.001, 0.0)))[1]
    assert make(camera(d=(-0.2, 0.1, 0.0, 0.001, 0.0)), frame_id='other')[1] == "frame_id 'eye' -> 'other'"
    assert make(camera(size=(160, 120)), (160, 120), 'other')[1] == 'image size 320x240 -> 160x120'
    turned = camera(size=(160, 120), r=(0.0, -1, 0, 1, 0, 0, 0, 0, 1), p=(132.0, 0, 80, 0, 0, 132, 60, 0, 0, 0, 1, 0))
    assert make(turned, (160, 120), 'other')[1]


@pytest.mark.parametrize('d', [(), LENS])
def test_a_lens_that_focuses_goes_on_with_each_images_own_intrinsics(d):
    make, seen = Maker(), []
    for i in range(20):
        fx = 228.5 * (1 + 0.004 * np.sin(i))
        frame, change = make(camera(fx, d))
        assert change == ''
        seen.append(frame.K[0, 0] / fx)
    assert np.abs(np.array(seen) - 1).max() < 4e-4  # to the precision of a map


@pytest.mark.parametrize('d', [(), LENS])
def test_noise_of_a_float_needs_no_new_maps(d):
    make = Maker()
    first, _ = make(camera(132.0, d))
    for i in range(5):
        frame, change = make(camera(132.0 * (1 + 1e-7 * i), d))
        assert change == ''
        assert frame.K is first.K
        assert frame.valid is first.valid


def test_what_creeps_is_measured_from_the_beginning_of_the_map():
    make = Maker()
    changes = [make(camera(132.0 * 0.996**i))[1] for i in range(9)]
    assert sum(bool(change) for change in changes) == 4
    assert changes[2] == 'fx 132.0 -> 130.9, fy 132.0 -> 130.9'


@pytest.mark.parametrize('required', [False, True])
def test_a_broken_camera_info_loses_nothing(required):
    make = Maker(required=required)
    first, _ = make(camera(d=LENS))
    frame, change = make(camera(d=(float('nan'),) * 5))
    assert change == ''
    assert np.array_equal(frame.K, first.K)
    assert 'not finite' in make.said[0]
    assert make.said[0].endswith('going on with the one before')
    other, change = make(camera(d=(float('nan'),) * 5), (160, 120))  # nothing is known of such images
    assert (other is None) == required
    assert required or other.K is None


@pytest.mark.parametrize(
    ('encoding', 'value', 'bits', 'told'),
    [('mono16', 4080, 16, True), ('mono16', 4080, 12, False), ('mono16', 40_000, 16, False), ('mono8', 5, 16, False)],
)
def test_sixteen_bits_that_hold_fewer_are_told(encoding, value, bits, told):
    make = Maker(bits=bits)
    assert make(None, encoding=encoding, value=value)[0] is not None
    assert any('image_bits' in text for text in make.said) is told


def test_a_flag_that_contradicts_the_topic_is_said():
    for topic, rectified, d, words in (
        ('/left/image_rect_color', False, LENS, 'set rectified:=true'),
        ('/camera/rect/image/compressed', False, LENS, 'set rectified:=true'),
        ('/camera/image_raw', True, LENS, 'is /camera/image_raw really rectified?'),
        ('/left/image_rect', True, LENS, ''),
        ('/left/image_rect', False, (), ''),
        ('/camera/image_raw', False, LENS, ''),
        ('/camera/direct/image', False, LENS, ''),
    ):
        make = Maker(rectified=rectified, topic=topic)
        make(camera(d=d))
        assert words in ''.join(make.said)
        assert bool(make.said) == bool(words)
