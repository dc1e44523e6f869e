"""VGGT: a window of images in, cameras, depth, points and tracks out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vggt_ros.network.aggregator import Aggregator, imagenet, select
from vggt_ros.network.camera_head import CameraHead
from vggt_ros.network.config import HEADS, SPECIAL_TOKENS, ConfigError, VGGTConfig
from vggt_ros.network.dpt_head import DenseHead, position_table
from vggt_ros.network.layers import Linear, rope_table
from vggt_ros.network.track_head import TrackHead


def forget_tables() -> None:
    """Free the tables that all networks of a process share on their device; whoever needs one makes it again."""
    for table in (imagenet, position_table, rope_table):
        table.cache_clear()


class VGGT(nn.Module):
    """The Visual Geometry Grounded Transformer (arXiv 2503.11651).

    heads: any of 'camera', 'depth', 'point', 'track'; heads left out do not exist in the module, nor in its state dict.

    :meth:`forward` is one window in one call. A sliding window calls its three parts instead, and keeps the results of
    the first two, which are exact for every window that the frame is in::

        patch_tokens = network.embed(images)                      # per frame
        entered = network.enter(patch_tokens, first, size)        # per frame and role
        outputs = network.decode(entered, size, depth_frames=[3]) # per window
    """

    def __init__(self, config: VGGTConfig | None = None, heads: Sequence[str] = HEADS) -> None:
        super().__init__()
        config = config or VGGTConfig()
        unknown = sorted(set(heads) - set(HEADS))
        if unknown:
            raise ConfigError(f'unknown heads {", ".join(unknown)}; known are {", ".join(HEADS)}')
        self.config = config
        self.heads = tuple(head for head in HEADS if head in heads)
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config) if 'camera' in heads else None
        self.point_head = DenseHead(config, 'point') if 'point' in heads else None
        self.depth_head = DenseHead(config, 'depth') if 'depth' in heads else None
        self.track_head = TrackHead(config) if 'track' in heads else None

    def prepare(self, device: str | torch.device, dtype: torch.dtype = torch.float32) -> VGGT:
        """Make ready for inference: move to a device, store the matrices of the aggregator in ``dtype``; returns self.

        With bfloat16 the results are those of autocast: norms, residual stream and rotary positions stay float32. So
        do all heads, the tracker among them, whose coordinates lose up to 0.8 pixels in bfloat16.
        """
        for module in self.aggregator.modules():
            if isinstance(module, Linear | nn.Conv2d):
                module.to(device, dtype)
        # The dense heads work channels last; other weights would be reordered in each call.
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, query_points: Tensor | None = None, track_iterations: int = 4) -> dict[str, Any]:
        """One window, or a batch of windows, of S frames.

        images: (S, 3, H, W) or (B, S, 3, H, W) in [0, 1], RGB; H and W multiples of the patch size. The first frame is
        the world. query_points: (Q, 2) or (B, Q, 2) as (x, y) in pixels of the first frame.

        Returns what the existing heads give, with the batch dimension always present:
        pose_enc (B, S, 9), pose_enc_list (one per iteration) -- see CameraHead; depth (B, S, H, W, 1) and
        depth_conf (B, S, H, W); world_points (B, S, H, W, 3) and world_points_conf (B, S, H, W); with query points
        track (B, S, Q, 2) in pixels, track_list (one per iteration), vis and conf (B, S, Q); images in eval mode.
        Raises ValueError for inputs of a wrong shape or type.
        """
        if images.ndim == 4:
            images = images[None]
        if images.ndim != 5 or images.shape[2] != 3 or not images.shape[0] * images.shape[1]:
            raise ValueError(f'images must be (S, 3, H, W) or (B, S, 3, H, W), not {tuple(images.shape)}')
        batch, frames = images.shape[:2]
        size = (images.shape[3], images.shape[4])
        patch_tokens = self.embed(images.flatten(0, 1))
        entered = self.aggregator.enter(patch_tokens, ([0] + [1] * (frames - 1)) * batch, self._grid(size))
        outputs = self.decode(
            entered.unflatten(0, (batch, frames)),
            size,
            point_frames=None,
            query_points=query_points,
            track_iterations=track_iterations,
        )
        if not self.training:
            outputs['images'] = images
        return outputs

    def embed(self, images: Tensor) -> Tensor:
        """Images (F, 3, H, W) in [0, 1] -> patch tokens (F, N, C) float32; each frame by itself."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f'images must be (F, 3, H, W) floats in [0, 1], not {tuple(images.shape)} {images.dtype}')
        self._grid((images.shape[2], images.shape[3]))
        return self.aggregator.embed(images)

    def enter(self, patch_tokens: Tensor, first: bool, size: tuple[int, int]) -> Tensor:
        """Patch tokens (F, N, C) of images of ``size`` (H, W) -> (F, P, C) after the first frame block, P = N + 5.

        first: whether these frames stand first in their window; the result depends on it, and on nothing else in the
        window. The size is needed because tokens do not tell portrait from landscape.
        """
        grid = self._grid(size)
        if patch_tokens.ndim != 3 or patch_tokens.shape[1:] != (grid[0] * grid[1], self.config.embed_dim):
            raise ValueError(
                f'patch tokens of {size[0]}x{size[1]} images must be (F, {grid[0] * grid[1]}, '
                f'{self.config.embed_dim}), not {tuple(patch_tokens.shape)}'
            )
        return self.aggregator.enter(patch_tokens, [0 if first else 1] * len(patch_tokens), grid)

    def decode(
        self,
        entered: Tensor,
        size: tuple[int, int],
        *,
        depth_frames: Sequence[int] | None = None,
        point_frames: Sequence[int] | None = (),
        query_points: Tensor | None = None,
        track_iterations: int = 4,
    ) -> dict[str, Any]:
        """Everything that depends on the whole window.

        entered: (S, P, C) or (B, S, P, C) from :meth:`enter`, the first frame in slot 0. size: (H, W) of the images.
        depth_frames, point_frames: the slots whose depth or points are wanted, None for all; the result holds them in
        this order. query_points, track_iterations and the result are as in :meth:`forward`.
        Raises ValueError for inputs of a wrong shape, slots that do not exist and heads that were left out.
        """
        grid = self._grid(size)
        tokens = grid[0] * grid[1] + SPECIAL_TOKENS
        if entered.ndim == 3:
            entered = entered[None]
        if entered.ndim != 4 or entered.shape[2:] != (tokens, self.config.embed_dim) or not entered.shape[1]:
            raise ValueError(
                f'tokens of {size[0]}x{size[1]} images must be (S, {tokens}, {self.config.embed_dim}), '
                f'not {tuple(entered.shape)}'
            )
        slots = {
            'depth': self._slots('depth', depth_frames, entered.shape[1]),
            'point': self._slots('point', point_frames, entered.shape[1]),
        }
        if query_points is not None:
            query_points = self._queries(query_points, entered, track_iterations)
            slots['track'] = list(range(entered.shape[1]))
        needed = sorted({slot for chosen in slots.values() for slot in chosen})
        features = self.aggregator.decode(entered, grid, needed)

        outputs: dict[str, Any] = {}
        if self.camera_head is not None:
            outputs['pose_enc_list'] = encodings = self.camera_head(features.camera)
            outputs['pose_enc'] = encodings[-1]
        for head, name, chosen in (
            (self.depth_head, 'depth', slots['depth']),
            (self.point_head, 'world_points', slots['point']),
        ):
            if chosen and head is not None:
                rows = [needed.index(slot) for slot in chosen]
                patches = [select(layer, rows).flatten(0, 1) for layer in features.patches]
                values, confidence = head.predict(patches, grid)
                outputs[name] = values.unflatten(0, (len(entered), -1))
                outputs[f'{name}_conf'] = confidence.unflatten(0, (len(entered), -1))
        if query_points is not None and self.track_head is not None:
            tracks, outputs['vis'], outputs['conf'] = self.track_head(
                features.patches, grid, query_points, track_iterations
            )
            outputs['track_list'], outputs['track'] = tracks, tracks[-1]
        return outputs

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """(H, W) in pixels -> (rows, columns) of patches."""
        patch = self.config.patch_size
        if any(side < patch or side % patch for side in size):
            raise ValueError(
                f'image sides must be positive multiples of the patch size {patch}, not {size[0]}x{size[1]} (HxW); '
                'resize or crop the images'
            )
        return size[0] // patch, size[1] // patch

    def _slots(self, head: str, wanted: Sequence[int] | None, frames: int) -> list[int]:
        if wanted is None:
            return list(range(frames)) if head in self.heads else []
        if wanted and head not in self.heads:
            raise ValueError(f'this network was built without its {head} head')
        if not all(0 <= slot < frames for slot in wanted):
            raise ValueError(f'{head} asked for slots {list(wanted)} of a window of {frames} frames')
        return list(wanted)

    def _queries(self, queries: Tensor, entered: Tensor, iterations: int) -> Tensor:
        if 'track' not in self.heads:
            raise ValueError('query points were given, but this network was built without its track head')
        if queries.ndim == 2:
            queries = queries[None]
        if queries.ndim != 3 or queries.shape[0] != len(entered) or not queries.shape[1] or queries.shape[2] != 2:
            raise ValueError(
                f'query points must be (Q, 2) or ({len(entered)}, Q, 2) with Q > 0, not {tuple(queries.shape)}'
            )
        if iterations < 1:
            raise ValueError(f'track_iterations must be at least 1, not {iterations}')
        return queries.to(entered.device, torch.float32)
