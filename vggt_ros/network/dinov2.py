"""From image to patch tokens: the DINOv2 ViT with registers (arXiv 2304.07193, 2309.16588), or one convolution."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggt_ros.network.config import DINOV2_DEPTHS, REGISTERS, VGGTConfig
from vggt_ros.network.layers import Block, init_linear

# Position embeddings are kept for so many image sizes.
RESIZED_GRIDS = 4


class PatchEmbed(nn.Module):
    """Non-overlapping patches -> tokens: (F, 3, H, W) -> (F, N, C), patches row by row."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class DinoVisionTransformer(nn.Module):
    """DINOv2 ViT-{S,B,L}/14 with four registers: normalised images -> final patch tokens.

    ``mask_token`` belongs to the published checkpoints only; nothing reads it.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim, depth = DINOV2_DEPTHS[config.patch_embed]
        self.patch_size = config.patch_size
        self.side = config.img_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, REGISTERS, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, dim))
        self.blocks = nn.ModuleList(Block(dim, dim // 64, eps=1e-6, scale=1.0) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

        self.apply(init_linear)
        for token in (self.cls_token, self.register_tokens):
            nn.init.normal_(token, std=1e-6)
        nn.init.normal_(self.pos_embed, std=0.02)
        # Grid -> (pos_embed, its state, the resized embedding).
        self._resized: dict[tuple[int, int], tuple[nn.Parameter, tuple[int, int], Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, H, W) -> (F, N, C) with N = (H / 14) (W / 14), in float32."""
        frames = images.shape[0]
        grid = (images.shape[2] // self.patch_size, images.shape[3] // self.patch_size)
        patches = self.patch_embed(images) + self._positions(grid)
        cls = self.cls_token + self.pos_embed[:, :1]
        # Registers have no position.
        special = torch.cat([cls, self.register_tokens], dim=1).expand(frames, -1, -1)
        x = torch.cat([special, patches], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, special.shape[1] :])

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embedding (1, N, C) resized to a grid (rows, columns) of patches."""
        if grid == (self.side, self.side):
            return self.pos_embed[:, 1:]
        if torch.is_grad_enabled() and self.pos_embed.requires_grad:
            return self._resize(grid)
        # Valid for these weights only: an optimiser step raises the version, a loaded or moved tensor is another one.
        version = 0 if self.pos_embed.is_inference() else self.pos_embed._version
        stamp = (self.pos_embed.data_ptr(), version)
        source, made, resized = self._resized.get(grid, (None, None, None))
        if resized is None or source is not self.pos_embed or made != stamp:
            if len(self._resized) == RESIZED_GRIDS:
                self._resized.clear()
            with torch.inference_mode(False), torch.no_grad():
                resized = self._resize(grid)
            self._resized[grid] = (self.pos_embed, stamp, resized)
        return resized

    def _resize(self, grid: tuple[int, int]) -> Tensor:
        table = self.pos_embed[:, 1:].unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
        return F.interpolate(table, size=grid, mode='bicubic', antialias=True).flatten(2).transpose(1, 2)
