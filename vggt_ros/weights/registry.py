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

from vggt_ros.device import choose_device, choose_precision, failure_of, release
from vggt_ros.inference import NetworkPredictor
from vggt_ros.network import HEADS, VGGT, VGGTConfig, checkpoint
from vggt_ros.types import Accuracy, DeviceError, DeviceMemoryError


@dataclass(frozen=True)
class NetworkEntry:
    """One network, and what has to be known of it before it is loaded."""

    title: str  # what to call it in logs
    weights: str  # checkpoint file or hub id; '' = random weights, for timing
    family: str = 'vggt'  # which loader reads the weights, see LOADERS
    heads: tuple[str, ...] = HEADS  # that it has
    accuracy: Accuracy = field(default_factory=Accuracy)  # how exact it is, by default as VGGT-1B


@torch.no_grad()
def _random(source: str, device: torch.device, heads: Sequence[str], dtype: torch.dtype) -> VGGT:
    with torch.device('meta'):
        network = VGGT(VGGTConfig(), heads).prepare('meta', dtype)
    network.to_empty(device=device)
    for name, parameter in network.named_parameters():
        # Gains of norms are about 1, all else is about 0.
        parameter.normal_(float(parameter.ndim == 1 and name.endswith('weight')), 0.02)
    return network


# Family -> (weights, device, heads, type of the aggregator's matrices) -> the network, all of it on the device.
# Raises CheckpointError, and torch's own errors of the device.
LOADERS: Mapping[str, Callable[[str, torch.device, Sequence[str], torch.dtype], VGGT]] = {
    'vggt': lambda source, device, heads, dtype: checkpoint.load(source, device, heads, dtype=dtype),
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
    Raises CheckpointError, or ValueError for an impossible image size; DeviceError, of the kind DeviceMemoryError when
    there is too little memory, with nothing left on the device.
    """
    entry, chosen = find(name), choose_device(device)
    precision = choose_precision(precision, chosen.device)

    def load() -> NetworkPredictor:
        wanted = [head for head in heads if head in entry.heads]
        network = LOADERS[entry.family](entry.weights, chosen.device, wanted, getattr(torch, precision))
        return NetworkPredictor(
            network,
            name=entry.title,
            device=chosen.device,
            precision=precision,
            image_size=image_size or network.config.img_size,
            cache_bytes=cache_bytes,
            accuracy=entry.accuracy,
            why=chosen.reason,
            warnings={'no GPU': chosen.reason} if chosen.warning else {},
        )

    try:
        return load()
    except (RuntimeError, MemoryError) as error:
        failure = failure_of(error)
        if failure is None:
            raise
    # Past the except block, where the traceback would still hold what was loaded.
    release(chosen.device)
    if failure.memory:
        raise DeviceMemoryError(
            f'too little memory on {chosen.device} for {entry.title} in {precision} ({failure.reason}): '
            'free some, or choose a smaller network, precision bfloat16 or another device'
        )
    raise DeviceError(f'{chosen.device} failed while {entry.title} was loaded ({failure.reason})')
