"""From a name to a network held ready: the one way in which node, demo, benchmark, evaluation and training get theirs.

A name is one of ``NETWORKS``, a checkpoint file, or a hub id; '' is the embedded network, ``vggt_tiny.safetensors``
beside this file (docs/guides/training.md says how it was made).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from vggt_ros.inference import NetworkPredictor, choose_device, choose_precision
from vggt_ros.network import HEADS, VGGT, VGGTConfig, checkpoint
from vggt_ros.types import Accuracy


@dataclass(frozen=True)
class NetworkEntry:
    """One network, and what has to be known of it before it is loaded."""

    title: str  # what to call it in logs
    weights: str  # checkpoint file or hub id; '' = random weights, for timing
    family: str = 'vggt'  # which loader reads the weights, see LOADERS
    heads: tuple[str, ...] = HEADS  # that it has
    accuracy: Accuracy = field(default_factory=Accuracy)  # how exact it is, by default as VGGT-1B


def _random(source: str, device: torch.device, heads: Sequence[str]) -> VGGT:
    with torch.device(device):
        return VGGT(VGGTConfig(), heads)


# Family -> (weights, device, heads) -> the network. Raises CheckpointError.
LOADERS: Mapping[str, Callable[[str, torch.device, Sequence[str]], VGGT]] = {
    'vggt': lambda source, device, heads: checkpoint.load(source, device=device, heads=heads),
    'vggt, random weights': _random,
}

EMBEDDED = 'vggt-tiny'
NETWORKS: Mapping[str, NetworkEntry] = {
    EMBEDDED: NetworkEntry(
        'vggt-tiny (embedded)',
        str(Path(__file__).with_name('vggt_tiny.safetensors')),
        heads=('camera', 'depth', 'track'),
        # By the scatter of its windows on unseen worlds, and docs/reports/evaluation.md.
        accuracy=Accuracy(
            rotation=float(np.radians(4.0)), translation=0.04, depth=0.04, surface=0.15, focal=0.2, track=12.0
        ),
    ),
    'random': NetworkEntry('VGGT-1B, random weights', '', 'vggt, random weights'),
}


def find(name: str) -> NetworkEntry:
    """The entry of a name; what is not in the table is a file or a hub id of the VGGT family."""
    return NETWORKS.get(name or EMBEDDED) or NetworkEntry(name, name)


def make_predictor(
    name: str = '',
    *,
    device: str = 'auto',
    precision: str = 'auto',
    image_size: int = 0,
    heads: Sequence[str] = ('camera', 'depth', 'track'),
    cache_bytes: int = 1 << 30,
) -> NetworkPredictor:
    """The network of this name, held ready.

    device: a torch device, or 'auto' for CUDA where present. precision: 'float32', 'bfloat16' or 'auto'. image_size:
    longest side of the network's image in pixels, 0 = its own. heads: the ones wanted; a network goes without those
    that it has not. cache_bytes: see :class:`NetworkPredictor`.
    Raises CheckpointError, DeviceError, or ValueError for an impossible image size.
    """
    entry = find(name)
    chosen = choose_device(device)
    network = LOADERS[entry.family](entry.weights, chosen, [head for head in heads if head in entry.heads])
    return NetworkPredictor(
        network,
        name=entry.title,
        device=chosen,
        precision=choose_precision(precision, chosen),
        image_size=image_size or network.config.img_size,
        cache_bytes=cache_bytes,
        accuracy=entry.accuracy,
    )
