"""Hints: what tokens should know by themselves, said to them directly. Not in the paper; nothing of it is exported.

A transformer that sees two images for the first time has to find out by itself that the same place in both matters,
and from nothing but nine numbers per image; large networks find it after many million images. The hints shorten that:

- attention: of every patch of a later frame, the first heads of each global block are to attend to the patch of the
  first frame that shows the same surface; all heads are to prefer the right patch within every frame.
- tokens: a linear layer on the patch tokens of each intermediate layer is to tell how far the patch lies from its
  place in the first frame (flow), where its surface is in the first camera's frame (point), and its log depth.

docs/guides/training.md has what they are worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vggt_ros.network import VGGT
from vggt_ros.network.config import SPECIAL_TOKENS
from vggt_ros.network.layers import Attention, Block
from vggt_ros.training import targets
from vggt_ros.training.config import LossConfig

HINTS = ('attention', 'first', 'flow', 'point', 'depth')
"""Parts of the loss, as the log names them."""
_HEADS = 2  # of each global block: these look for the first frame
_NEAREST = 0.05  # normalised depth below which a point has no sensible pixel
_FARTHEST = 5.0  # normalised: the error of a point counts up to here
_MODERATE = 1.0  # flow in image widths beyond which it does not count
_FLOW, _POINT, _DEPTH = 3.0, 0.3, 0.3  # weights, so that all three begin at about 0.3


class Matches:
    """Where the middle of every patch of every frame is in every frame, by exact depth and pose.

    index: (B, S, S, N) patch of frame t that shows the middle of patch n of frame s; seen: the same shape, bool,
    whether frame t sees it and is another one.
    """

    def __init__(self, truth: targets.Geometry, patch: int) -> None:
        windows, frames, height, width = truth.depth.shape
        h, w = height // patch, width // patch
        self.rows, self.columns = _middles(h, w, patch, truth.depth.device)
        K = _intrinsics(truth.pose[..., 7:], height, width)
        T = targets.invert(targets.decode(truth.pose.double()))
        uv = torch.stack([self.columns, self.rows], -1).float().expand(windows, -1, -1)
        index, seen = [], []
        for frame in range(frames):
            z = truth.depth[:, frame][:, self.rows, self.columns]
            number = torch.full((windows,), frame, device=z.device)
            tracks = targets.follow(uv, z, number, truth.depth, T, K)
            place = (tracks.uv.nan_to_num(0) / patch).floor().long()
            index.append(place[..., 1].clamp(0, h - 1) * w + place[..., 0].clamp(0, w - 1))
            visible = tracks.visible & (z > 0)[:, None]
            visible[:, frame] = False
            seen.append(visible)
        self.index, self.seen = torch.stack(index, 1), torch.stack(seen, 1)


def _middles(h: int, w: int, patch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column (N,) of the middle pixel of every patch."""
    v, u = (torch.arange(count, device=device) * patch + (patch - 1) // 2 for count in (h, w))
    grid = torch.cartesian_prod(v, u)
    return grid[:, 0], grid[:, 1]


def _intrinsics(fov: Tensor, height: int, width: int) -> Tensor:
    """Fields of view (..., 2) vertical, horizontal -> K (..., 3, 3) of pixels whose centres are integers."""
    K = torch.zeros(*fov.shape[:-1], 3, 3, device=fov.device)
    K[..., 0, 0], K[..., 1, 1] = width / 2 / torch.tan(fov[..., 1] / 2), height / 2 / torch.tan(fov[..., 0] / 2)
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = (width - 1) / 2, (height - 1) / 2, 1
    return K


class Hints(nn.Module):
    """The linear layers that read tokens, and an ear at the global blocks of a network in training."""

    def __init__(self, network: VGGT) -> None:
        super().__init__()
        config = network.config
        self.patch = config.patch_size
        dim = 2 * config.embed_dim
        self.readers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 6)) for _ in config.intermediate_layers
        )
        for reader in self.readers:
            nn.init.zeros_(reader[1].weight)  # type: ignore[index]
            nn.init.zeros_(reader[1].bias)  # type: ignore[index]
        self._heard: list[tuple[Tensor, Tensor]] = []
        # The first block knows nothing of the other images yet.
        for block in list(network.aggregator.global_blocks)[1:]:
            assert isinstance(block, Block)
            block.attn.register_forward_pre_hook(self._hear)

    def _hear(self, attention: nn.Module, inputs: tuple) -> None:
        assert isinstance(attention, Attention)
        if not (self.training and torch.is_grad_enabled()):
            return
        x, rope = inputs[0], inputs[1]
        q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).unbind(2)
        self._heard.append((rope(attention.q_norm(q)), rope(attention.k_norm(k))))

    def parts(self, patches: Sequence[Tensor], truth: targets.Geometry, config: LossConfig) -> dict[str, Tensor]:
        """The weighted parts of the loss of the pass just made; ``patches``: its tokens, see Outputs."""
        matches = Matches(truth, self.patch)
        parts: dict[str, Tensor] = {}
        heard, self._heard = self._heard, []
        if config.hint_attention:
            found = [attention(q.float(), k.float(), matches) for q, k in heard]
            for name, values in zip(('attention', 'first'), zip(*found, strict=True), strict=True):
                parts[f'hint_{name}'] = config.hint_attention * torch.stack(values).mean()
        if config.hint_tokens:
            told = [
                tokens(reader(layer.float()), truth, matches)
                for reader, layer in zip(self.readers, patches, strict=True)
            ]
            for name in told[0]:
                parts[f'hint_{name}'] = config.hint_tokens * torch.stack([one[name] for one in told]).mean()
        return parts


def attention(q: Tensor, k: Tensor, matches: Matches) -> tuple[Tensor, Tensor]:
    """Cross entropy of attending to the right patch: within each other frame, all heads; and among all tokens of the
    window, the first heads of later frames, to the first frame.

    q, k: (B, S * P, heads, D) of a global block, as the attention multiplies them.
    """
    frames, scale = matches.index.shape[1], q.shape[-1] ** -0.5
    of_frames = q.unflatten(1, (frames, -1))[:, :, SPECIAL_TOKENS:]
    keys = k.unflatten(1, (frames, -1))[:, :, SPECIAL_TOKENS:]
    within = (torch.einsum('bsnhd,btmhd->bsthnm', of_frames, keys) * scale).log_softmax(-1)
    heads = within.shape[3]
    right = within.gather(-1, matches.index[:, :, :, None, :, None].expand(-1, -1, -1, heads, -1, 1))[..., 0]
    first = min(_HEADS, heads)
    logits = torch.einsum('bsnhd,bmhd->bshnm', of_frames[:, 1:, :, :first], k[:, :, :first]) * scale
    place = (matches.index[:, 1:, 0] + SPECIAL_TOKENS)[:, :, None, :, None].expand(-1, -1, first, -1, 1)
    among_all = logits.log_softmax(-1).gather(-1, place)[..., 0]
    return _mean(-right, matches.seen[:, :, :, None]), _mean(-among_all, matches.seen[:, 1:, 0][:, :, None])


def tokens(told: Tensor, truth: targets.Geometry, matches: Matches) -> dict[str, Tensor]:
    """Errors of what the tokens tell, (B, S, N, 6): flow to the first frame in image widths, point, log depth."""
    height, width = truth.depth.shape[2:]
    rows, columns = matches.rows, matches.columns
    points, known = truth.points[:, :, rows, columns], truth.known[:, :, rows, columns]
    z = truth.depth[:, :, rows, columns]
    K = _intrinsics(truth.pose[:, :1, 7:], height, width)
    depth = points[..., 2].clamp(min=_NEAREST)
    u = points[..., 0] / depth * K[..., 0, 0, None] + K[..., 0, 2, None]
    v = points[..., 1] / depth * K[..., 1, 1, None] + K[..., 1, 2, None]
    flow = torch.stack([u - columns, v - rows], -1) / width
    moderate = known & (points[..., 2] > _NEAREST) & (flow.abs().amax(-1) < _MODERATE)
    # Of the first frame itself there is nothing to tell.
    moderate = torch.cat([torch.zeros_like(moderate[:, :1]), moderate[:, 1:]], 1)
    told = told.float()
    return {
        'flow': _FLOW * _mean((0.3 * told[..., :2] - flow).norm(dim=-1), moderate),
        'point': _POINT * _mean((told[..., 2:5] - points).norm(dim=-1).clamp(max=_FARTHEST), known),
        'depth': _DEPTH * _mean((told[..., 5] - z.clamp(min=1e-2).log()).abs(), known),
    }


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    counted = counted.expand_as(values)
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)
