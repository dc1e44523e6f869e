"""The network's tracker against a plain one: whole correlation volumes and PyTorch's attention, as published."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

from vggt_ros.network.config import VGGTConfig
from vggt_ros.network.track_head import STRIDE, Tracker
from vggt_ros.network.update_former import HEADS, AxisAttention

ITERATIONS = 4


def volumes(features: Tensor, scales: Sequence[Tensor], coords: Tensor, radius: int) -> Tensor:
    """As :func:`vggt_ros.network.correlation.correlate`, by way of every product of a track with a pixel."""
    frames, tracks, channels = features.shape
    side = torch.arange(-radius, radius + 1.0, device=features.device)
    offsets = torch.stack(torch.meshgrid(side, side, indexing='ij'), dim=-1)
    windows = []
    for level, maps in enumerate(scales):
        height, width = maps.shape[1:3]
        volume = features @ maps.flatten(1, 2).transpose(1, 2) / channels**0.5
        place = coords.reshape(-1, 1, 1, 2) / 2**level + offsets
        size = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=features.device)
        window = F.grid_sample(volume.view(-1, 1, height, width), 2 * place / size - 1, align_corners=True)
        windows.append(window.view(frames, tracks, -1))
    return torch.cat(windows, dim=-1)


class PlainAttention(AxisAttention):
    """nn.MultiheadAttention as it is when nobody says that its weights are not needed."""

    def forward(self, x: Tensor, context: Tensor, axis: int) -> Tensor:
        """As :class:`vggt_ros.network.update_former.AxisAttention`."""
        x, context = (t.movedim(axis, 1) for t in (x, context))  # (B, length, other, C)
        batch, _, other, dim = x.shape
        queries, keys = (t.transpose(0, 1).flatten(1, 2) for t in (x, context))  # (length, B * other, C)
        packed = (
            self.in_proj_weight,
            self.in_proj_bias,
            None,
            None,
            False,
            0.0,
            self.out_proj.weight,
            self.out_proj.bias,
        )
        out, _ = F.multi_head_attention_forward(queries, keys, keys, dim, HEADS, *packed, training=False)
        return out.unflatten(1, (batch, other)).transpose(0, 1).movedim(1, axis)


class PlainTracker(Tracker):
    """Whole correlation volumes at every iteration, and plain attention."""

    correlate = staticmethod(volumes)

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            for name, child in module.named_children():
                if isinstance(child, AxisAttention):
                    setattr(module, name, PlainAttention(config.track_hidden_size))


def measure(
    frames: int, queries: int, size: tuple[int, int], device: torch.device, runs: int
) -> tuple[list[float], list[float], float]:
    """Seconds of each run of the project's tracker and of the plain one, in turns, and by how many pixels of the image
    their tracks differ at most after one iteration. size: (height, width) of the images. Random weights of VGGT-1B's.
    """
    torch.manual_seed(0)
    config = VGGTConfig()
    with torch.device(device):
        trackers = Tracker(config).eval(), PlainTracker(config).eval()
        maps = torch.randn(1, frames, config.track_features, size[0] // STRIDE, size[1] // STRIDE)
        points = torch.rand(1, queries, 2) * (torch.tensor([size[1], size[0]]) - 1)
    trackers[1].load_state_dict(trackers[0].state_dict())
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        ours, plain = (tracker(maps, points, 1)[0][0] for tracker in trackers)  # warms up
        for _ in range(runs):
            for tracker, times in zip(trackers, seconds, strict=True):
                if device.type == 'cuda':
                    torch.cuda.synchronize(device)
                started = perf_counter()
                visibility = tracker(maps, points, ITERATIONS)[1]
                visibility.sum().item()  # waits for the device
                times.append(perf_counter() - started)
    return *seconds, float((ours - plain).abs().max())


def table(ours: Sequence[float], plain: Sequence[float], difference: float) -> list[str]:
    """Markdown."""
    a, b = statistics.median(ours), statistics.median(plain)
    return [
        f'| tracker, {ITERATIONS} iterations | time | ratio |',
        '|---|---|---|',
        f'| plain: whole correlation volumes | {b:.3f} s | 1 |',
        f'| this project: a lattice around each estimate | {a:.3f} s | {a / b:.2f} |',
        '',
        f'Tracks after one iteration differ by {difference:.1e} px at most.',
    ]
