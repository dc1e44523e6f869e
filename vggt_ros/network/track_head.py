"""Query points of the first frame -> their places in all frames (the tracker of VGGSfM, arXiv 2312.04563, in VGGT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vggt_ros.network.config import VGGTConfig
from vggt_ros.network.correlation import correlate, pyramid
from vggt_ros.network.dpt_head import DPT
from vggt_ros.network.layers import Mlp, init_linear
from vggt_ros.network.update_former import UpdateFormer

# The feature maps, and the tracker's own coordinates, have half of the image's resolution.
STRIDE = 2
# Displacements enter the transformer also as a fraction of the longest image side of the training.
MAX_SCALE = 518.0


class TrackHead(nn.Module):
    """Feature extractor and tracker."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.feature_extractor = DPT(
            config, config.track_features, down_ratio=STRIDE, positions=config.track_position_embedding
        )
        self.tracker = Tracker(config)

    def forward(
        self, patches: Sequence[Tensor], grid: tuple[int, int], queries: Tensor, iterations: int
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Four tensors (B, S, N, 2C) and queries (B, Q, 2) in pixels of frame 0 -> see :meth:`Tracker.forward`."""
        batch = queries.shape[0]
        maps = self.feature_extractor([tokens.flatten(0, 1) for tokens in patches], grid)
        return self.tracker(maps.unflatten(0, (batch, -1)), queries, iterations)


class Tracker(nn.Module):
    """Refines all tracks together: correlation around each estimate, a transformer over time and tracks, correction."""

    correlate = staticmethod(correlate)

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        features, hidden = config.track_features, config.track_hidden_size
        self.levels, self.radius = config.track_corr_levels, config.track_corr_radius
        # Displacement embedding, displacement twice, correlation, feature.
        inputs = features + 4 + features + features
        self.corr_mlp = Mlp(self.levels * (2 * self.radius + 1) ** 2, hidden, features)
        self.query_ref_token = nn.Parameter(torch.randn(1, 2, inputs))
        self.updateformer = UpdateFormer(inputs, hidden, features + 2)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))
        self.corr_mlp.apply(init_linear)

    def forward(self, maps: Tensor, queries: Tensor, iterations: int) -> tuple[list[Tensor], Tensor, Tensor]:
        """Feature maps (B, S, C, H / 2, W / 2) and queries (B, Q, 2) as (x, y) in image pixels of frame 0.

        Returns the tracks (B, S, Q, 2) in image pixels after every iteration, and after the last one the visibility
        and the confidence (B, S, Q), both in [0, 1]. Frame 0 holds the queries.
        """
        batch, frames = maps.shape[:2]
        maps = self.fmap_norm(maps.permute(0, 1, 3, 4, 2))  # (B, S, h, w, C)
        start = queries / STRIDE
        features = sample(maps[:, 0], start)[:, None].expand(-1, frames, -1, -1)
        scales = pyramid(maps.flatten(0, 1), self.levels)

        place = position_embedding(start, self.query_ref_token.shape[-1], maps.shape[2:4])
        reference = self.query_ref_token[:, :1], self.query_ref_token[:, 1:].expand(-1, frames - 1, -1)
        constant = place[:, None] + torch.cat(reference, dim=1)[:, :, None]  # (B, S, Q, inputs)

        first = start[:, None]
        coords = first.expand(-1, frames, -1, -1)
        tracks = []
        for _ in range(iterations):
            # Each iteration learns to correct the estimate it is given, whatever led there.
            coords = coords.detach()
            correlation = self.correlate(features.flatten(0, 1), scales, coords.flatten(0, 1), self.radius)
            correlation = self.corr_mlp(correlation).unflatten(0, (batch, frames))
            flow = coords - first
            embedding = displacement_embedding(flow, features.shape[-1])
            x = torch.cat([embedding, flow / MAX_SCALE, flow / MAX_SCALE, correlation, features], dim=-1)
            delta = self.updateformer(x + constant)
            update = self.ffeat_norm(delta[..., 2:].flatten(0, 2)).view_as(features)
            features = features + self.ffeat_updater(update)
            coords = torch.cat([first, (coords + delta[..., :2])[:, 1:]], dim=1)
            tracks.append(coords * STRIDE)
        visibility, confidence = self.vis_predictor(features), self.conf_predictor(features)
        return tracks, visibility[..., 0].sigmoid(), confidence[..., 0].sigmoid()


def sample(maps: Tensor, coords: Tensor) -> Tensor:
    """Bilinear samples of maps (B, h, w, C) at coords (B, Q, 2) as (x, y), clamped to the border -> (B, Q, C)."""
    height, width, channels = maps.shape[1:]
    low, rest = [], []
    for axis, size in enumerate((width, height)):
        place = coords[..., axis].clamp(0, size - 1)
        low.append(place.floor().clamp(max=max(size - 2, 0)).long())
        rest.append((place - low[-1])[..., None])
    pixels = maps.flatten(1, 2)

    def at(x: Tensor, y: Tensor) -> Tensor:
        index = y.clamp(max=height - 1) * width + x.clamp(max=width - 1)
        return pixels.gather(1, index[..., None].expand(-1, -1, channels))

    (x, y), (u, v) = low, rest
    return torch.lerp(torch.lerp(at(x, y), at(x + 1, y), u), torch.lerp(at(x, y + 1), at(x + 1, y + 1), u), v)


def position_embedding(coords: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Sine-cosine embedding (B, Q, channels), x half before y half, of places (B, Q, 2) in a map of size (h, w).

    As published, the embedding of a map's pixels is interpolated bilinearly, which differs from the embedding of the
    place itself. Each half depends on one axis, so two neighbours per axis are enough.
    """
    frequency = 10000.0 ** -torch.arange(0, 1, 4 / channels, dtype=torch.float64, device=coords.device)
    halves = []
    for axis, side in enumerate((size[1], size[0])):
        place = coords[..., axis].double().clamp(0, side - 1)
        low = place.floor()
        angle = low[..., None] * frequency
        next_angle = (low + 1).clamp(max=side - 1)[..., None] * frequency
        here = torch.cat([angle.sin(), angle.cos()], dim=-1)
        there = torch.cat([next_angle.sin(), next_angle.cos()], dim=-1)
        halves.append(torch.lerp(here, there, (place - low)[..., None]))
    return torch.cat(halves, dim=-1).to(coords.dtype)


def displacement_embedding(flow: Tensor, channels: int) -> Tensor:
    """Displacements (..., 2) in map pixels -> (..., channels), x half before y half, sine and cosine interleaved.

    The frequencies are linear, k * 1000 / (channels / 2) for even k, as published.
    """
    half = channels // 2
    frequency = torch.arange(0, half, 2, dtype=flow.dtype, device=flow.device) * (1000 / half)
    angle = flow[..., None] * frequency  # (..., 2, channels / 4)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-3)
