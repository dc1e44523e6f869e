"""Alternating attention: frame blocks look inside each image, global blocks across all of them.

The work is cut where results can be reused: :meth:`Aggregator.embed` depends on one image,
:meth:`Aggregator.enter` on one image and its role, :meth:`Aggregator.decode` on the whole window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vggt_ros.network.config import REGISTERS, SPECIAL_TOKENS, VGGTConfig
from vggt_ros.network.dinov2 import DinoVisionTransformer, PatchEmbed
from vggt_ros.network.layers import Block, Rope, init_linear, rope_table
from vggt_ros.network.stem import ConvStem


class Features(NamedTuple):
    """What the heads read.

    camera: (B, S, 2C), the camera token of every frame in the last layer.
    patches: four tensors (B, F, N, 2C), the patch tokens of the asked frames in the intermediate layers.
    """

    camera: Tensor
    patches: tuple[Tensor, ...]


@lru_cache(maxsize=4)
def imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (3, 1, 1) of the pictures that backbones were trained with."""
    with torch.inference_mode(False):
        mean = torch.tensor([0.485, 0.456, 0.406], device=device)
        std = torch.tensor([0.229, 0.224, 0.225], device=device)
    return mean[:, None, None], std[:, None, None]


def select(x: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of dimension 1 of (B, F, ...); a view when they are all rows in order, or none."""
    if list(rows) == list(range(x.shape[1])):
        return x
    # Not by an index tensor: that would have to travel to the device.
    return torch.stack([x[:, row] for row in rows], dim=1) if rows else x[:, :0]


class Aggregator(nn.Module):
    """Images -> tokens that know of each other. Token order of a frame: camera, four registers, patches row by row."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.num_heads
        self.head_dim = dim // heads
        self.intermediate_layers = config.intermediate_layers
        self.patch_embed: nn.Module
        if config.patch_embed == 'stem':
            self.patch_embed = ConvStem(config.patch_size, dim)
        elif config.patch_embed == 'conv':
            self.patch_embed = PatchEmbed(config.patch_size, dim)
        else:
            self.patch_embed = DinoVisionTransformer(config)
        # Slot 0 is worn by the first frame, which defines the world; slot 1 by all others.
        self.camera_token = nn.Parameter(torch.empty(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.empty(1, 2, REGISTERS, dim))
        self.frame_blocks = nn.ModuleList(Block(dim, heads, qk_norm=True) for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(Block(dim, heads, qk_norm=True) for _ in range(config.depth))

        self.frame_blocks.apply(init_linear)
        self.global_blocks.apply(init_linear)
        for token in (self.camera_token, self.register_token):
            nn.init.normal_(token, std=1e-6)

    def embed(self, images: Tensor) -> Tensor:
        """Images (F, 3, H, W) in [0, 1] -> patch tokens (F, N, C), each frame by itself."""
        mean, std = imagenet(images.device)
        return self.patch_embed((images - mean) / std).float()

    def enter(self, patch_tokens: Tensor, slots: Sequence[int], grid: tuple[int, int]) -> Tensor:
        """Patch tokens (F, N, C) and each frame's role (0 first, 1 other) -> (F, P, C) after the first frame block."""
        special = torch.cat([self.camera_token, self.register_token], dim=2)[0]  # (2, 5, C)
        special = torch.stack([special[slot] for slot in slots])
        return self.frame_blocks[0](torch.cat([special, patch_tokens], dim=1), self._rope(grid, patch_tokens.device))

    def decode(self, entered: Tensor, grid: tuple[int, int], frames: Sequence[int]) -> Features:
        """Entered tokens (B, S, P, C) -> features, with patch tokens of ``frames`` only.

        Every token of every frame matters up to the keys and values of the last global block. Of that block's output
        only what a head reads is computed.
        """
        batch, count = entered.shape[:2]
        rope = self._rope(grid, entered.device)
        depth = len(self.frame_blocks)
        partial = depth - 1 if list(frames) != list(range(count)) else None  # the layer that leaves tokens out
        x, patches = entered, []
        for layer, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            if layer > 0:
                x = frame_block(x.flatten(0, 1), rope).unflatten(0, (batch, count))
            local = x
            if layer == partial:
                camera, chosen = self._last(global_block, local, frames, rope)
            else:
                x = global_block(local.flatten(1, 2), rope).unflatten(1, (count, -1))
                camera = x[:, :, 0]
            if layer in self.intermediate_layers and frames:
                if layer != partial:
                    chosen = select(x[:, :, SPECIAL_TOKENS:], frames)
                patches.append(torch.cat([select(local[:, :, SPECIAL_TOKENS:], frames), chosen], dim=-1))
        return Features(torch.cat([local[:, :, 0], camera], dim=-1), tuple(patches))

    def _rope(self, grid: tuple[int, int], device: torch.device) -> Rope:
        return rope_table(grid, SPECIAL_TOKENS, self.head_dim, device)

    def _last(self, block: nn.Module, x: Tensor, frames: Sequence[int], rope: Rope) -> tuple[Tensor, Tensor]:
        """A global block's camera tokens (B, S, C) of all frames and patch tokens (B, F, N, C) of some."""
        count = x.shape[1]
        chosen = select(x[:, :, SPECIAL_TOKENS:], frames)
        rows = torch.cat([x[:, :, 0], chosen.flatten(1, 2)], dim=1)
        places = rope.rows([slice(0, 1)] * count + [slice(SPECIAL_TOKENS, None)] * len(frames))
        out = block(rows, places, x.flatten(1, 2), rope)
        return out[:, :count], out[:, count:].unflatten(1, chosen.shape[1:3])
