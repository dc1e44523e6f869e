"""From the node's parameters to a network held ready, and to what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vggt_ros.device import own_threads, set_threads
from vggt_ros.inference import NetworkPredictor
from vggt_ros.mapping.export import MapExportError, find_folder
from vggt_ros.mapping.voxel_map import MapConfig
from vggt_ros.network.checkpoint import CheckpointError
from vggt_ros.odometry.config import OdometryConfig
from vggt_ros.odometry.sensors import Sensor
from vggt_ros.odometry.world import WorldConfig
from vggt_ros.pipeline import Pipeline
from vggt_ros.ros.cdr import kind_of
from vggt_ros.ros.inputs.frames import FrameMaker
from vggt_ros.ros.inputs.intake import Intake
from vggt_ros.ros.inputs.serialized import transported
from vggt_ros.ros.parameters import LoadError
from vggt_ros.ros.problems import Problems
from vggt_ros.tracks.config import TrackerConfig
from vggt_ros.types import DeviceError, DeviceMemoryError, Predictor
from vggt_ros.weights.registry import make_predictor


def load_predictor(settings: dict[str, Any]) -> NetworkPredictor:
    """settings: the node's parameters by name. Raises LoadError."""
    heads = ('camera', 'depth', 'track') if settings['max_tracks'] else ('camera', 'depth')
    try:
        predictor = make_predictor(
            settings['weights'],
            device=settings['device'],
            precision=settings['precision'],
            image_size=settings['image_size'],
            heads=heads,
            cache_bytes=settings['cache_size'] << 20,
        )
        set_threads(settings['threads'] or own_threads(predictor.device))
        return predictor
    except (CheckpointError, DeviceMemoryError) as error:
        # A disk may be mounted later, the network come up, another process leave the device.
        raise LoadError(str(error), passing=True) from error
    except (DeviceError, ValueError) as error:
        raise LoadError(str(error)) from error


def check(settings: dict[str, Any]) -> None:
    """Refuse parameters that do not fit together. Raises LoadError."""
    if settings['stride'] > settings['window'] - 2:
        raise LoadError('stride must leave room for two frames of the window before: they join the windows')
    if 'odometry' in (settings['scale_sources'] or ()) and settings['tf_mode'] in ('odom', 'full'):
        raise LoadError(
            f'scale_sources: with tf_mode {settings["tf_mode"]} odometry would measure what we broadcast ourselves'
        )
    if settings['save_map']:
        try:
            find_folder(settings['save_map'], replace=True)
        except MapExportError as error:
            raise LoadError(f'save_map: {error}') from error


def make_pipeline(
    predictor: Predictor, settings: dict[str, Any], sensors: Sequence[Sensor], problems: Problems
) -> Pipeline:
    """settings: the node's parameters by name."""
    pipeline = Pipeline(
        predictor,
        OdometryConfig(
            window=settings['window'],
            keyframe_distance=settings['keyframe_distance'],
            refine=settings['refine'],
            min_confidence=settings['min_confidence'],
            accuracy=predictor.accuracy,
        ),
        TrackerConfig(settings['max_tracks'], settings['min_track_score'], settings['unique_track_ids']),
        WorldConfig(settings['loops'], settings['lost_timeout']),
        sensors,
    )
    for kind, warning in pipeline.warnings.items():
        problems.report(kind, warning)
    return pipeline


def tune(pipeline: Pipeline, settings: dict[str, Any]) -> None:
    """Hand on what may have changed while the pipeline runs."""
    pipeline.tune(settings['min_confidence'], settings['min_track_score'], settings['lost_timeout'])


def make_intake(
    settings: dict[str, Any], problems: Problems, resolve: Callable[[str], str]
) -> tuple[Intake, FrameMaker]:
    """What images pass on their way in. It outlives deactivation, as the map does: stamps and indices go on.

    resolve: the full name of a topic.
    """
    kind, topic = transported(settings, 'image')
    return (
        Intake(
            problems,
            settings['calibration'],
            settings['calibration_timeout'],
            round(settings['max_time_jump'] * 1e9),
            kind_of(kind),
        ),
        FrameMaker(
            problems,
            settings['camera_frame'],
            settings['calibration'] == 'required',
            settings['image_bits'],
            settings['rectified'],
            settings['image_size'],
            resolve(topic),
        ),
    )


def map_config(settings: dict[str, Any]) -> MapConfig:
    """settings: the node's parameters by name."""
    return MapConfig(
        voxel=settings['map_voxel'], budget=settings['map_budget'], min_confidence=settings['map_min_confidence']
    )
