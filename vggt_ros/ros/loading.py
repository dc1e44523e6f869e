"""From the node's parameters to a network held ready."""

from __future__ import annotations

from typing import Any

from vggt_ros import weights
from vggt_ros.inference import NetworkPredictor, choose_device, choose_precision, set_threads
from vggt_ros.network.checkpoint import CheckpointError
from vggt_ros.types import DeviceError


class LoadError(RuntimeError):
    """The network cannot be held ready; the text says why and what to do."""


def load_predictor(settings: dict[str, Any]) -> NetworkPredictor:
    """settings: the node's parameters by name. Raises LoadError."""
    heads = ('camera', 'depth', 'track') if settings['max_tracks'] else ('camera', 'depth')
    try:
        device = choose_device(settings['device'])
        precision = choose_precision(settings['precision'], device)
        set_threads(settings['threads'])
        network, name = weights.load(settings['weights'], device=device, heads=heads)
        return NetworkPredictor(
            network,
            name=name,
            device=device,
            precision=precision,
            image_size=settings['image_size'] or network.config.img_size,
            cache_bytes=settings['cache_size'] << 20,
            focal_sigma=weights.FOCAL_SIGMA if settings['weights'] else weights.EMBEDDED_FOCAL_SIGMA,
        )
    except (CheckpointError, DeviceError, ValueError) as error:
        raise LoadError(str(error)) from error
