"""Every parameter of the node, once: name, default, description, unit, range.

The declaration in the node, the validation of changes and ``config/vggt.yaml`` all come from this table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from vggt_ros.ros.tf.frames import MODES


class LoadError(RuntimeError):
    """The network cannot be held ready; the text says why and what to do. passing: it may be different later."""

    def __init__(self, text: str, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


class OptionError(ValueError):
    """A parameter that is missing or not allowed; the text says what is."""


_KINDS = {bool: 'true or false', int: 'a whole number', float: 'a number', list: 'a list of names'}


@dataclass(frozen=True)
class Declared:
    """One parameter. range: (low, high), inclusive. structural: takes effect at configure, fixed while configured."""

    name: str
    default: Any
    description: str
    unit: str = ''
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    structural: bool = True

    def problem(self, value: Any) -> str | None:
        """Why the value is not allowed, with what is; None when it is."""
        if self.choices and value not in self.choices:
            return f'{self.name}: {value!r} is not one of {", ".join(self.choices)}'
        if self.range and not self.range[0] <= value <= self.range[1]:
            return f'{self.name}: {value} is outside {self.range[0]} to {self.range[1]} {self.unit}'.rstrip()
        if self.name == 'image_size' and value % 14:
            return f'{self.name}: {value} is not a multiple of 14'
        return None

    def parse(self, text: str) -> Any:
        """The value that a person writes so; a pair of quotes is an empty text, for ``ros2 launch`` passes no other.

        Raises OptionError with what is allowed.
        """
        value: Any = '' if text in ("''", '""') else text
        if not isinstance(self.default, str):
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError:
                value = None
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list):  # depth; depth,height; ['depth', 'height']
            value = [str(name).strip() for name in (value if isinstance(value, list) else text.split(','))]
        if type(value) is not type(self.default):
            raise OptionError(f'{self.name}: {text!r} is not {_KINDS[type(self.default)]}')
        if problem := self.problem(value):
            raise OptionError(problem)
        return value

    @property
    def descriptor(self) -> ParameterDescriptor:
        """The ROS descriptor: unit in the description, range, choices and when a change takes effect."""
        text = f'{self.description} [{self.unit}]' if self.unit else self.description
        constraints = []
        if self.choices:
            constraints.append('one of ' + ', '.join(self.choices))
        if self.structural:
            constraints.append('fixed while the node is configured')
        descriptor = ParameterDescriptor(
            name=self.name, description=text, additional_constraints='; '.join(constraints)
        )
        if self.range and isinstance(self.default, float):
            low, high = self.range
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        elif self.range:
            low, high = self.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        return descriptor


PARAMETERS: tuple[Declared, ...] = (
    Declared('autostart', True, 'configure and activate at start; false leaves both to a lifecycle manager'),
    Declared(
        'weights',
        '',
        'checkpoint: a .safetensors or .pt file, or a hub id such as facebook/VGGT-1B; empty: the embedded network',
    ),
    Declared('device', 'auto', 'torch device: auto (CUDA where present), cpu, cuda, cuda:1, ...'),
    Declared(
        'precision',
        'auto',
        'arithmetic of the aggregator; auto: bfloat16 on GPUs that have it, else float32',
        choices=('auto', 'float32', 'bfloat16'),
    ),
    Declared('threads', 0, 'CPU threads of torch, 0: all cores but one, or one thread beside a GPU', range=(0, 256)),
    Declared(
        'image_size', 0, "longest side of the network's image, a multiple of 14; 0: the network's own", 'px', (0, 2072)
    ),
    Declared('cache_size', 1024, 'memory for what is kept of each frame between windows', 'MiB', (0, 65536)),
    Declared(
        'mode', 'live', 'live: the newest images win; every_frame: none is skipped', choices=('live', 'every_frame')
    ),
    Declared(
        'queue_size',
        1000,
        'most images that wait in every_frame mode; those that come then are dropped',
        '',
        (1, 10000),
    ),
    Declared(
        'queue_memory',
        512,
        'most memory for images that wait in every_frame mode, and as much again for those of a second or depth camera;'
        ' beside it DDS holds up to 32 messages while the node cannot take them',
        'MiB',
        (16, 65536),
    ),
    Declared('image_transport', 'raw', 'raw (image) or compressed (image/compressed)', choices=('raw', 'compressed')),
    Declared('image_bits', 16, 'significant bits of 16-bit images: 10 or 12 for many cameras', 'bits', (8, 16)),
    Declared(
        'rectified', False, 'the images are rectified already (image_rect): distortion in camera_info is not undone'
    ),
    Declared(
        'calibration',
        'auto',
        'auto: camera_info, predicted where none comes; required: only with camera_info; predicted: ignore camera_info',
        choices=('auto', 'required', 'predicted'),
    ),
    Declared('calibration_timeout', 2.0, 'how long auto waits for the first camera_info', 's', (0.0, 60.0)),
    Declared('window', 8, 'most frames the network sees at once', 'frames', (3, 64)),
    Declared('stride', 1, 'new images for each window', 'frames', (1, 32)),
    Declared(
        'keyframe_distance', 0.15, 'rotation (rad) + translation / median depth between keyframes', '', (0.01, 2.0)
    ),
    Declared('refine', True, "whether corners tracked from image to image refine the network's poses"),
    Declared('max_tracks', 256, 'most keypoint tracks in an image, 0 = none; there are 600 corners', '', (0, 600)),
    Declared(
        'min_track_score', 0.2, 'visibility x confidence below which a track ends', '', (0.0, 1.0), structural=False
    ),
    Declared('unique_track_ids', False, 'whether ids go on where no earlier epoch or run of the node had any'),
    Declared('track_adapters', [''], 'tracks as other programs read them: any of vins, vins_fusion, foxglove'),
    Declared('track_tails', 12, 'how far tails in ~/tracks/image go back', 'images', (0, 100), structural=False),
    Declared('loops', True, 'whether places met before are recognised; needs gtsam'),
    Declared(
        'lost_timeout',
        10.0,
        'how long a lost camera looks for a known place before a new map begins, 0 = for ever',
        's',
        (0.0, 3600.0),
        structural=False,
    ),
    Declared(
        'tf_mode',
        'camera',
        'camera: map -> camera; odom: odom -> base; map: map -> odom over the odom -> base of others; '
        'full: map -> odom and odom -> base; none',
        choices=MODES,
    ),
    Declared('map_frame', 'map', 'name of the world frame (z up)'),
    Declared('odom_frame', 'odom', 'name of the frame in which the robot moves without jumps'),
    Declared('base_frame', '', "root of the robot's own frames (base_footprint, base_link); empty: the camera itself"),
    Declared(
        'transform_wait',
        0.5,
        'how long a pose waits for transforms of others at its stamp',
        's',
        (0.0, 5.0),
        structural=False,
    ),
    Declared('camera_frame', '', "name of the camera's optical frame; empty: the images' frame_id"),
    Declared(
        'path_length',
        1000,
        'most poses in ~/path, 2 % of the depth or 2 degrees apart; the newest stay',
        'poses',
        (1, 100000),
        structural=False,
    ),
    Declared(
        'depth_size',
        'source',
        "size of depth and confidence images: the camera's (source) or the network's",
        choices=('source', 'network'),
        structural=False,
    ),
    Declared(
        'min_confidence', 0.02, 'depth with less confidence is published as NaN', '', (0.0, 1.0), structural=False
    ),
    Declared('map_period', 2.0, 'least time between two messages on ~/map', 's', (0.1, 3600.0), structural=False),
    Declared(
        'map_voxel',
        0.0,
        'edge length of the voxels of the map, in map units; 0: 2 % of the first median depth',
        '',
        (0.0, 100.0),
    ),
    Declared(
        'map_budget',
        1_000_000,
        'most voxels of the map; beyond it what lies farthest is forgotten',
        'voxels',
        (1000, 20_000_000),
    ),
    Declared(
        'map_min_confidence', 0.1, 'pixels with less confidence stay out of the map', '', (0.0, 1.0), structural=False
    ),
    Declared('save_map', '', 'folder for the map when the node ends, in place of the one from before; empty: none'),
    Declared('save_timeout', 20.0, 'how long the end of the node may take for that', 's', (1.0, 600.0)),
    Declared('scale_sources', [''], 'who knows metres: any of depth, odometry, baseline, height, fixed'),
    Declared('sync_tolerance', 0.02, 'most time between an image and its depth or second image', 's', (0.0, 1.0)),
    Declared('depth_near', 0.3, 'depth images are believed from here', 'm', (0.01, 1000.0), structural=False),
    Declared('depth_far', 8.0, 'depth images are believed up to here', 'm', (0.01, 1000.0), structural=False),
    Declared('camera_height', 0.0, 'optical centre above the ground, for scale source height', 'm', (0.0, 1000.0)),
    Declared('metric_factor', 0.0, 'metres per unit of the network, for scale source fixed', 'm', (0.0, 1000.0)),
    Declared(
        'gravity',
        'auto',
        'down by imu (topic imu), base (base_frame is level) or level (the camera is at first); auto: the first there',
        choices=('auto', 'imu', 'base', 'level'),
    ),
    Declared(
        'image_timeout',
        2.0,
        'without an image for so long the node says that it is lost',
        's',
        (0.1, 3600.0),
        structural=False,
    ),
    Declared(
        'failures_in_row',
        5,
        'images or windows that fail one after another before the node gives everything back and begins anew',
        '',
        (1, 1000),
        structural=False,
    ),
    Declared(
        'max_window_rate',
        0.0,
        'most windows a second, for robots whose GPU has other work; 0: as fast as it goes',
        'Hz',
        (0.0, 1000.0),
        structural=False,
    ),
    Declared(
        'network_share',
        1.0,
        'most of the time that the network may be at work, the rest of it the device is free',
        '',
        (0.01, 1.0),
        structural=False,
    ),
    Declared(
        'max_time_jump',
        1.0,
        'a stamp further back than this, or further ahead than this and the time that has passed, is of another time; '
        'three in a row are believed, and the map begins anew unless it is a gap of less than 10 s',
        's',
        (0.0, 3600.0),
    ),
)
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def chosen(settings: dict[str, Any], name: str, allowed: Sequence[str]) -> list[str]:
    """The names in the list parameter ``name``, each once. Raises LoadError for one that is not allowed."""
    # An empty list in a YAML file arrives as None, the default as ['']: rclpy cannot tell an empty list's type.
    names = [value for value in settings[name] or () if value]
    if unknown := [value for value in names if value not in allowed]:
        raise LoadError(f'{name}: {", ".join(unknown)} is not one of {", ".join(allowed)}')
    return list(dict.fromkeys(names))


def declare_options(node: Node, table: Sequence[Declared]) -> dict[str, Any]:
    """Declare a table of parameters as read-only; their values by name. Raises OptionError."""
    values = {}
    for option in table:
        descriptor = option.descriptor
        descriptor.read_only, descriptor.additional_constraints = True, ''
        try:
            values[option.name] = node.declare_parameter(option.name, option.default, descriptor).value
        except ParameterException as error:
            raise OptionError(str(error)) from error
    return values


def to_yaml() -> str:
    """The text of ``config/vggt.yaml``: every parameter with its default, described in comments."""
    lines = [
        '# Every parameter of the vggt node with its default. Made by: python -m vggt_ros.ros.parameters',
        '/**:',
        '  ros__parameters:',
    ]
    for parameter in PARAMETERS:
        notes = parameter.description + (f' [{parameter.unit}]' if parameter.unit else '')
        if parameter.range:
            notes += f'; {parameter.range[0]} to {parameter.range[1]}'
        value = parameter.default
        text = {True: 'true', False: 'false'}[value] if isinstance(value, bool) else value
        lines += [f'    # {notes}', f'    {parameter.name}: ' + (f"'{text}'" if isinstance(value, str) else f'{text}')]
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(to_yaml(), end='')
