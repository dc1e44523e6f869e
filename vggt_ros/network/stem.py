"""From image to patch tokens without a backbone: a small convolutional stem and fixed position embeddings.

For networks that are too small to carry a ViT of their own. Two convolutions before the patches see the corners and
edges that one linear map per patch cannot (Xiao et al. 2021, "Early convolutions help transformers see better"); the
positions let a token say where its match lies, which rotary attention alone cannot pass on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDTH = 32  # channels before the patches
_OCTAVES = 5  # from half a wave over the longer side to 16 waves


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (F, C, H, W), in its own precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1).to(self.weight.dtype)).movedim(-1, 1)


class ConvStem(nn.Module):
    """(F, 3, H, W) -> (F, N, C), patches row by row. patch_size must be even, dim a multiple of 4."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTH, kernel_size=3, stride=2, padding=1)
        self.norm1 = ChannelNorm(_WIDTH)
        self.conv2 = nn.Conv2d(_WIDTH, _WIDTH, kernel_size=3, padding=1)
        self.norm2 = ChannelNorm(_WIDTH)
        self.proj = nn.Conv2d(_WIDTH, dim, kernel_size=patch_size // 2, stride=patch_size // 2)

    def forward(self, images: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(images.to(self.conv1.weight.dtype))))
        x = F.gelu(self.norm2(self.conv2(x.to(self.conv2.weight.dtype))))
        x = self.proj(x.to(self.proj.weight.dtype)).float()
        return x.flatten(2).transpose(1, 2) + positions(x.shape[1], x.shape[2:], x.device)


def positions(dim: int, grid: torch.Size | tuple[int, int], device: torch.device) -> Tensor:
    """(N, dim) sines and cosines of each patch's centre, x then y, measured from the image's middle in longer sides."""
    height, width = grid
    frequency = torch.pi * 2 ** (torch.arange(dim // 4, device=device) * (_OCTAVES / (dim // 4)))
    waves = []
    for count in (width, height):
        place = (torch.arange(count, device=device) + 0.5 - count / 2) / max(height, width)
        angle = place[:, None] * frequency
        waves.append(torch.cat([angle.sin(), angle.cos()], dim=-1))
    across, down = waves
    return torch.cat([across.expand(height, -1, -1), down[:, None].expand(-1, width, -1)], dim=-1).flatten(0, 1)
