"""The tracker's transformer: attention over time per track, and across tracks through a few virtual ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggt_ros.network.layers import Mlp

HEADS = 8
DEPTH = 6
VIRTUAL_TRACKS = 64
TIME, TRACKS = 1, 2


class AxisAttention(nn.Module):
    """Multi-head attention along one axis of tokens (B, S, Q, C); parameters named as in nn.MultiheadAttention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, context: Tensor, axis: int) -> Tensor:
        """Tokens x attend to the context along ``axis`` (TIME or TRACKS); the other axes agree."""
        dim = x.shape[-1]
        if context is x:
            q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            q = F.linear(x, self.in_proj_weight[:dim], self.in_proj_bias[:dim])
            k, v = F.linear(context, self.in_proj_weight[dim:], self.in_proj_bias[dim:]).chunk(2, dim=-1)
        # (B, S, Q, C) -> (B * other, heads, length, C / heads), views where B is 1.
        other = TRACKS if axis == TIME else TIME
        order = (0, other, 3, axis, 4)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).permute(order).flatten(0, 1) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out = self.out_proj(out.unflatten(0, (x.shape[0], -1)))
        return out.transpose(1, 2) if axis == TIME else out


class AttentionBlock(nn.Module):
    """Self-attention and MLP. As published, the residual stream is the normalised input, not the input itself."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.attn = AxisAttention(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, axis: int) -> Tensor:
        x = self.norm1(x)
        x = x + self.attn(x, x, axis)
        return x + self.mlp(self.norm2(x))


class CrossAttentionBlock(nn.Module):
    """Attention across tracks to other tokens, and MLP, with the same kind of residual stream."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.cross_attn = AxisAttention(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.norm1(x)
        x = x + self.cross_attn(x, self.norm_context(context), TRACKS)
        return x + self.mlp(self.norm2(x))


class UpdateFormer(nn.Module):
    """Track tokens (B, S, Q, inputs) -> corrections (B, S, Q, outputs)."""

    def __init__(self, inputs: int, dim: int, outputs: int) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(inputs)
        self.input_transform = nn.Linear(inputs, dim)
        self.output_norm = nn.LayerNorm(dim)
        self.flow_head = nn.Linear(dim, outputs)
        # The misspelling is the published key.
        self.virual_tracks = nn.Parameter(torch.randn(1, VIRTUAL_TRACKS, 1, dim))
        self.time_blocks = nn.ModuleList(AttentionBlock(dim) for _ in range(DEPTH))
        self.space_virtual_blocks = nn.ModuleList(AttentionBlock(dim) for _ in range(DEPTH))
        self.space_point2virtual_blocks = nn.ModuleList(CrossAttentionBlock(dim) for _ in range(DEPTH))
        self.space_virtual2point_blocks = nn.ModuleList(CrossAttentionBlock(dim) for _ in range(DEPTH))

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, tracks = x.shape[:3]
        points = start = self.input_transform(self.input_norm(x))
        virtual = self.virual_tracks.transpose(1, 2).expand(batch, frames, -1, -1)
        for time, gather, virtual_self, scatter in zip(
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            both = time(torch.cat([points, virtual], dim=2), TIME)
            points, virtual = both.split([tracks, VIRTUAL_TRACKS], dim=2)
            virtual = virtual_self(gather(virtual, points), TRACKS)
            points = scatter(points, virtual)
        return self.flow_head(self.output_norm(points + start))
