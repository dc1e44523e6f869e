"""Which network a name stands for: the embedded one, a file, or a hub id.

``vggt_tiny.safetensors`` beside this file is the embedded network; docs/guides/training.md says how it was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vggt_ros.network import HEADS, VGGT, checkpoint
from vggt_ros.types import Accuracy

EMBEDDED = Path(__file__).with_name('vggt_tiny.safetensors')
EMBEDDED_NAME = 'vggt-tiny (embedded)'
EMBEDDED_ACCURACY = Accuracy(
    rotation=float(np.radians(4.0)), translation=0.04, depth=0.04, surface=0.15, focal=0.2, track=12.0
)
"""By the scatter of its windows on unseen worlds, and docs/reports/evaluation.md."""
_EMBEDDED_HEADS = ('camera', 'depth', 'track')


def load(name: str, device: str | torch.device = 'cpu', heads: Sequence[str] = HEADS) -> tuple[VGGT, str]:
    """The network and what to call it. name: '' for the embedded one, else a checkpoint file or hub id.

    heads: the ones wanted; the embedded network has no point head, and goes without. Raises CheckpointError with the
    reason.
    """
    if name:
        return checkpoint.load(name, device=device, heads=heads), name
    present = [head for head in heads if head in _EMBEDDED_HEADS]
    return checkpoint.load(EMBEDDED, device=device, heads=present), EMBEDDED_NAME


def accuracy(name: str) -> Accuracy:
    """How exact the network of this name is, see ``load``."""
    return Accuracy() if name else EMBEDDED_ACCURACY
