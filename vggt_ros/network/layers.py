"""Building blocks of the transformers: attention with rotary positions, MLP, LayerScale, the pre-norm block.

Mixed precision: a :class:`Linear` computes in the dtype of its weight, everything else in the dtype of the residual
stream. With bfloat16 matrices and float32 norms this gives the numbers of autocast without casting weights each time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """nn.Linear that casts its input to the dtype of the weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def init_linear(module: nn.Module) -> None:
    """Initialise one Linear as in the ViT literature; to be used with ``nn.Module.apply``.

    The usual truncation at +-2 is 100 standard deviations away, so it is left out.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Mlp(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """The learned gain of each channel of a residual branch."""

    def __init__(self, dim: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), init))

    def forward(self, x: Tensor, branch: Tensor) -> Tensor:
        """x + gamma * branch, in the dtype of x."""
        return torch.addcmul(x, branch, self.gamma)


class Rope:
    """Cosines and sines that rotate the heads of a token by its place (y, x) in the patch grid.

    cos, sin: (tokens, 1, head_dim) float32, to be broadcast over heads. The first half of a head turns with y, the
    second with x; in each half channel j is paired with j + head_dim / 4, and sin carries the minus of the first.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos, self.sin = cos, sin

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate (..., tokens, heads, head_dim); tokens may be any whole number of repetitions of the table's."""
        table = self.cos.shape[0]
        # (.., frames * P, heads, D) -> (.., frames, P, heads, D): every frame uses the same positions.
        frames = x.unflatten(-3, (-1, table))
        swapped = frames.unflatten(-1, (2, 2, -1)).flip(-2).flatten(-3)
        return torch.addcmul(frames * self.cos, swapped, self.sin).flatten(-4, -3)

    def rows(self, index: Iterable[slice]) -> Rope:
        """The table of the tokens in these slices, one after the other."""
        index = list(index)
        return Rope(torch.cat([self.cos[i] for i in index]), torch.cat([self.sin[i] for i in index]))


@lru_cache(maxsize=16)
def rope_table(grid: tuple[int, int], special: int, head_dim: int, device: torch.device, base: float = 100.0) -> Rope:
    """The rotation of ``special`` unrotated tokens followed by a grid (rows, columns) of patches.

    Patches count from 1, so that place (0, 0) belongs to the special tokens. RoPE (arXiv 2104.09864) per axis.
    """
    # A cache filled in inference mode must still serve training.
    with torch.inference_mode(False), torch.no_grad():
        pairs = head_dim // 4
        frequency = base ** (-torch.arange(pairs, dtype=torch.float32, device=device) / pairs)
        rows, columns = (torch.arange(1, n + 1, dtype=torch.float32, device=device) for n in grid)
        place = torch.cartesian_prod(rows, columns)
        place = torch.cat([place.new_zeros(special, 2), place])
        angle = place[:, :, None] * frequency  # (tokens, axis, pairs)
        cos, sin = angle.cos(), angle.sin()
        cos = torch.stack([cos, cos], dim=2).flatten(1)
        sin = torch.stack([-sin, sin], dim=2).flatten(1)
        return Rope(cos[:, None], sin[:, None])


class HeadNorm(nn.LayerNorm):
    """LayerNorm of queries or keys that casts its input to the dtype of its own weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class Attention(nn.Module):
    """Multi-head self-attention with a fused qkv projection; optionally LayerNorm on queries and keys, then RoPE."""

    def __init__(self, dim: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = HeadNorm(dim // heads, eps=1e-5) if qk_norm else nn.Identity()
        self.k_norm = HeadNorm(dim // heads, eps=1e-5) if qk_norm else nn.Identity()
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tensor, rope: Rope | None = None, context: Tensor | None = None, context_rope: Rope | None = None
    ) -> Tensor:
        """(B, M, C) -> (B, M, C): x attends to itself, or to a context (B, L, C) that it is a part of."""
        if context is None:
            q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
            context_rope = rope
        else:
            dim, weight, bias = x.shape[-1], self.qkv.weight, self.qkv.bias
            q = F.linear(x.to(weight.dtype), weight[:dim], bias[:dim]).unflatten(-1, (self.heads, -1))
            kv = F.linear(context.to(weight.dtype), weight[dim:], bias[dim:])
            k, v = kv.unflatten(-1, (2, self.heads, -1)).unbind(2)
        return self._attend(self._place(self.q_norm(q), rope), self._place(self.k_norm(k), context_rope), v)

    @staticmethod
    def _place(x: Tensor, rope: Rope | None) -> Tensor:
        return x if rope is None else rope(x)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # (B, L, heads, D) -> (B, heads, L, D) as views: the kernels take strides.
        q, k, v = (t.to(v.dtype).transpose(1, 2) for t in (q, k, v))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale on both branches."""

    def __init__(self, dim: int, heads: int, *, eps: float = 1e-5, scale: float = 0.01, qk_norm: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm)
        self.ls1 = LayerScale(dim, scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim, scale)

    def forward(
        self, x: Tensor, rope: Rope | None = None, context: Tensor | None = None, context_rope: Rope | None = None
    ) -> Tensor:
        """(B, M, C) -> (B, M, C). With a context (B, L, C): the rows x of the output for the whole context."""
        if context is not None:
            context = self.norm1(context)
        x = self.ls1(x, self.attn(self.norm1(x), rope, context, context_rope))
        return self.ls2(x, self.mlp(self.norm2(x)))
