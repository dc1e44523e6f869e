"""Camera tokens -> pose encodings, refined in four rounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggt_ros.network.config import VGGTConfig
from vggt_ros.network.layers import Block, Mlp, init_linear

ITERATIONS = 4


class CameraHead(nn.Module):
    """A small transformer across the camera tokens of all frames, conditioned on its own last estimate.

    A pose encoding is [tx ty tz, qx qy qz qw, fov_h fov_w]: camera-from-world translation and quaternion (scalar last,
    any norm), vertical and horizontal field of view in radians.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self.trunk = nn.ModuleList(Block(dim, config.camera_num_heads) for _ in range(config.camera_trunk_depth))
        self.token_norm = nn.LayerNorm(dim)
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, 9))
        self.embed_pose = nn.Linear(9, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.pose_branch = Mlp(dim, dim // 2, 9)
        self.apply(init_linear)

    def forward(self, camera_tokens: Tensor) -> list[Tensor]:
        """(B, S, 2C) -> the pose encodings (B, S, 9) after every iteration."""
        tokens = self.token_norm(camera_tokens)
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        raw, encodings = self.empty_pose_tokens, []
        for iteration in range(ITERATIONS):
            # In the first round the condition is one constant token, broadcast over the frames.
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(raw)).chunk(3, dim=-1)
            x = tokens + gate * (normed * (1 + scale) + shift)
            for block in self.trunk:
                x = block(x)
            delta = self.pose_branch(self.trunk_norm(x))
            raw = delta if iteration == 0 else raw + delta
            encodings.append(torch.cat([raw[..., :7], F.relu(raw[..., 7:])], dim=-1))
            # Each round learns to correct the estimate it is given, whatever led there (as published).
            raw = raw.detach()
        return encodings
