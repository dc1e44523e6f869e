"""One step's mathematics: the network as it is trained, and the losses of a batch.

:meth:`VGGT.forward` serves one window well; here many windows share every kernel launch, each part has its own
precision, and depth is predicted for some frames only.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vggt_ros.network import HEADS, VGGT
from vggt_ros.network.config import SPECIAL_TOKENS
from vggt_ros.network.layers import rope_table
from vggt_ros.network.track_head import STRIDE, sample
from vggt_ros.training import losses, targets
from vggt_ros.training.config import LossConfig
from vggt_ros.training.windows import Batch


class FloatAttention(TorchFunctionMode):
    """Attention in float32 whatever autocast says: on a CPU its backward pass in bfloat16 takes four times as long."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            with torch.autocast('cpu', enabled=False):
                return func(*(tensor.float() for tensor in args), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class StepOutputs(NamedTuple):
    """What the heads say about a batch, where they exist.

    pose: four encodings (B, S, 9). frames: the slots of depth and points. depth (B, D, H, W, 1) and points
    (B, D, H, W, 3) with their confidences (B, D, H, W). tracks: (T, S, Q, 2) of the first T windows after every
    iteration; visibility, confidence: (T, S, Q). maps: (B, S, h, w, C), the features that the tracker correlates.
    patches: see :class:`vggt_ros.network.aggregator.Features`.
    """

    pose: list[Tensor] | None
    frames: list[int]
    depth: tuple[Tensor, Tensor] | None
    points: tuple[Tensor, Tensor] | None
    tracks: list[Tensor] | None
    visibility: Tensor | None
    confidence: Tensor | None
    maps: Tensor | None
    patches: tuple[Tensor, ...] = ()


def low_precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Where matrices and convolutions compute in ``dtype``; weights, norms and residual stream stay float32."""
    if dtype == torch.float32:
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, dtype))
    if device.type == 'cpu':
        stack.enter_context(FloatAttention())
    return stack


def predict(
    network: VGGT,
    images: Tensor,
    *,
    depth_frames: Sequence[int],
    queries: Tensor | None = None,
    tracked: int | None = None,
    iterations: int = 4,
    dtype: torch.dtype = torch.float32,
    heads: Sequence[str] = HEADS,
) -> StepOutputs:
    """Windows (B, S, 3, H, W) -> what the heads say.

    depth_frames: the slots whose depth and points are wanted. queries: (B, Q, 2) pixels of the first frames, None for
    no tracking; they are followed in the first ``tracked`` windows, None = all. dtype: of attention and dense heads;
    cameras and tracker are float32. heads: the ones that are asked.
    """
    batch, frames = images.shape[:2]
    aggregator, patch = network.aggregator, network.config.patch_size
    grid = (images.shape[3] // patch, images.shape[4] // patch)
    precision = low_precision(images.device, dtype)
    with precision:
        patches = aggregator.embed(images.flatten(0, 1)).unflatten(0, (batch, frames))
        # As Aggregator.enter, but in two copies instead of two for each frame.
        special = torch.cat([aggregator.camera_token, aggregator.register_token], dim=2)
        special = torch.cat([special[:, :1], special[:, 1:].expand(-1, frames - 1, -1, -1)], dim=1)
        tokens = torch.cat([special.expand(batch, -1, -1, -1), patches], dim=2)
        rope = rope_table(grid, SPECIAL_TOKENS, aggregator.head_dim, images.device)
        entered = aggregator.frame_blocks[0](tokens.flatten(0, 1), rope).unflatten(0, (batch, frames))
        features = aggregator.decode(entered, grid, range(frames))
    camera = network.camera_head if 'camera' in heads else None
    pose = None if camera is None else camera(features.camera)

    chosen = list(depth_frames)
    dense: list[tuple[Tensor, Tensor] | None] = []
    for name, head in (('depth', network.depth_head), ('point', network.point_head)):
        if head is None or name not in heads or not chosen:
            dense.append(None)
            continue
        with low_precision(images.device, dtype):
            value, sigma = head.predict([layer[:, chosen].flatten(0, 1) for layer in features.patches], grid)
        dense.append((value.unflatten(0, (batch, -1)), sigma.unflatten(0, (batch, -1))))

    tracks, visibility, confidence, maps = None, None, None, None
    if network.track_head is not None and 'track' in heads and queries is not None and queries.numel():
        tracker = network.track_head.tracker
        with low_precision(images.device, dtype):
            maps = network.track_head.feature_extractor([layer.flatten(0, 1) for layer in features.patches], grid)
        maps = maps.float().unflatten(0, (batch, frames))
        tracks, visibility, confidence = tracker(maps[:tracked], queries[:tracked], iterations)
        maps = tracker.fmap_norm(maps.permute(0, 1, 3, 4, 2))
    return StepOutputs(pose, chosen, dense[0], dense[1], tracks, visibility, confidence, maps, features.patches)


def loss_parts(outputs: StepOutputs, batch: Batch, config: LossConfig) -> dict[str, Tensor]:
    """The weighted parts of the loss, whose sum is to be minimised; names are those of the log's columns."""
    parts: dict[str, Tensor] = {}
    truth = batch.truth
    if outputs.pose is not None:
        camera = losses.camera(outputs.pose, truth.pose, config.epsilon, config.pose_discount)
        weights = {'translation': config.translation, 'rotation': config.rotation, 'fov': config.fov}
        parts |= {f'camera_{name}': config.camera * weights[name] * value for name, value in camera.items()}
    known = truth.known[:, outputs.frames]
    for name, dense, wanted, weight in (
        ('depth', outputs.depth, truth.depth[:, outputs.frames, ..., None], config.depth),
        ('point', outputs.points, truth.points[:, outputs.frames], config.point),
    ):
        if dense is not None:
            terms = losses.dense(*dense, wanted, known, config.alpha)
            parts |= {f'{name}_{term}': weight * value for term, value in terms.items()}
    if outputs.tracks is not None and outputs.visibility is not None and outputs.confidence is not None:
        followed = targets.TrackTargets(*(field[: len(outputs.visibility)] for field in batch.tracks))
        near = (outputs.tracks[-1].detach() - followed.uv).norm(dim=-1) < CONFIDENT_PIXELS
        parts['track_position'] = config.track * losses.track_position(
            outputs.tracks, followed.uv, followed.visible, config.track_discount
        )
        weight = config.track * config.visibility
        parts['track_visibility'] = weight * losses.binary(outputs.visibility, followed.visible, followed.judged)
        parts['track_confidence'] = weight * losses.binary(outputs.confidence, near & followed.visible, followed.judged)
    if config.matching and outputs.maps is not None:
        features = sample(outputs.maps[:, 0], batch.queries / STRIDE)
        found = losses.matching(features, outputs.maps, batch.tracks.uv / STRIDE, batch.tracks.visible)
        parts['track_matching'] = config.matching * found
    return parts


CONFIDENT_PIXELS = 4.0
"""A track is to be confident where it is visible and this near to the truth."""


def draw_depth_frames(rng: np.random.Generator, frames: int, share: float) -> list[int]:
    """Random slots, in order: ``share`` of them, at least one."""
    count = max(1, round(share * frames))
    return sorted(int(slot) for slot in rng.choice(frames, size=count, replace=False))
