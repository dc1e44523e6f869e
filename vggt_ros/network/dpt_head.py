"""Patch tokens -> maps at image resolution: the dense prediction transformer head (DPT, arXiv 2103.13413)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vggt_ros.network.config import VGGTConfig

# Frames are independent here; this many at a time bound the memory.
FRAMES_AT_ONCE = 8


@lru_cache(maxsize=32)
def position_table(
    channels: int, grid: tuple[int, int], aspect: float, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sine-cosine position embedding of a map, times 0.1, as its x half (C/2, 1, w) and its y half (C/2, h, 1).

    Coordinates are those of pixel centres in an image of this aspect (width / height) whose half diagonal is 1;
    frequencies are 100^(-k / (C/4)). The halves stay apart because the x half is constant along y and vice versa.
    """
    diagonal = (aspect**2 + 1) ** 0.5
    quarter = channels // 4
    with torch.inference_mode(False), torch.no_grad():
        frequency = 100.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
        halves = []
        for span, count in ((aspect / diagonal, grid[1]), (1 / diagonal, grid[0])):
            edge = span * (count - 1) / count
            angle = torch.linspace(-edge, edge, count, dtype=torch.float64)[:, None] * frequency
            halves.append(0.1 * torch.cat([angle.sin(), angle.cos()], dim=1).to(device, dtype))
        # Channels last in memory, like the maps that they are added to.
        return halves[0].T[:, None, :], halves[1].T[:, :, None]


def add_positions(x: Tensor, aspect: float) -> Tensor:
    """Add the position embedding to maps (F, C, h, w) in place; aspect: width / height of the image."""
    along_x, along_y = position_table(x.shape[1], (x.shape[2], x.shape[3]), aspect, x.device, x.dtype)
    half = x.shape[1] // 2
    x[:, :half] += along_x
    x[:, half:] += along_y
    return x


class ResidualConvUnit(nn.Module):
    """Two 3x3 convolutions around a residual that is itself rectified.

    The published network was trained with an in-place ReLU, so the branch point is relu(x), not x.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class FusionBlock(nn.Module):
    """Merge a coarse map with the next finer one and upsample."""

    def __init__(self, features: int, has_skip: bool = True) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if has_skip:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        """(F, C, h, w), skip of the same shape or None -> (F, C, *size)."""
        if skip is not None:
            x = x + self.resConfUnit1(skip)
        # A 1x1 convolution commutes with interpolation (weights sum to one) and is cheaper before it.
        return upsample(self.out_conv(self.resConfUnit2(x)), size)


class TokenProjection(nn.Module):
    """A 1x1 convolution (its parameters' shapes say so) from tokens to a map: one matrix product.

    The map has its channels last in memory, which all that follows keeps; on a CPU this saves a seventh of the time.
    """

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(dim, channels, 1)
        self.weight, self.bias = convolution.weight, convolution.bias

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(F, N, C) with N = rows * columns -> (F, channels, rows, columns)."""
        return F.linear(tokens, self.weight.flatten(1), self.bias).transpose(1, 2).unflatten(2, grid)


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corner pixels on corner pixels."""
    return F.interpolate(x, size=size, mode='bilinear', align_corners=True)


class Scratch(nn.Module):
    """The convolutional half of the head; ``outputs`` None leaves the last two convolutions out."""

    def __init__(self, channels: Sequence[int], features: int, outputs: int | None) -> None:
        super().__init__()

        def flatten(width: int) -> nn.Module:
            return nn.Conv2d(width, features, 3, padding=1, bias=False)

        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (flatten(width) for width in channels)
        self.refinenet1, self.refinenet2, self.refinenet3 = (FusionBlock(features) for _ in range(3))
        self.refinenet4 = FusionBlock(features, has_skip=False)
        last = features if outputs is None else features // 2
        self.output_conv1 = nn.Conv2d(features, last, 3, padding=1)
        if outputs is not None:
            self.output_conv2 = nn.Sequential(nn.Conv2d(last, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, outputs, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Four maps, finest first -> one at twice the finest resolution."""
        layers = (self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn)
        levels = [layer(x) for layer, x in zip(layers, maps, strict=True)]
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        x = self.refinenet4(levels[3], None, sizes[2])
        x = self.refinenet3(x, levels[2], sizes[1])
        x = self.refinenet2(x, levels[1], sizes[0])
        x = self.refinenet1(x, levels[0], (2 * sizes[0][0], 2 * sizes[0][1]))
        return self.output_conv1(x)


class DPT(nn.Module):
    """Four layers of patch tokens -> maps (F, outputs, H / down_ratio, W / down_ratio).

    outputs: channels of the result, None for the ``features`` themselves. positions: add position embeddings.
    """

    def __init__(
        self,
        config: VGGTConfig,
        features: int,
        *,
        outputs: int | None = None,
        down_ratio: int = 1,
        positions: bool = True,
    ) -> None:
        super().__init__()
        dim, channels = 2 * config.embed_dim, config.dpt_out_channels
        self.patch_size, self.down_ratio, self.positions = config.patch_size, down_ratio, positions
        self.norm = nn.LayerNorm(dim)
        self.projects = nn.ModuleList(TokenProjection(dim, width) for width in channels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(channels, features, outputs)

    def forward(self, patches: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Four tensors (F, N, 2C) with N = rows * columns of the grid -> (F, channels, h, w)."""
        chunks = zip(*(tokens.split(FRAMES_AT_ONCE) for tokens in patches), strict=True)
        return torch.cat([self._maps(chunk, grid) for chunk in chunks])

    def _maps(self, patches: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        aspect = grid[1] / grid[0]
        maps = []
        for tokens, project, resize in zip(patches, self.projects, self.resize_layers, strict=True):
            x = project(self.norm(tokens), grid)
            maps.append(resize(add_positions(x, aspect) if self.positions else x))
        x = self.scratch(maps)
        size = tuple(side * self.patch_size // self.down_ratio for side in grid)
        x = upsample(x, (size[0], size[1]))
        if not hasattr(self.scratch, 'output_conv2'):
            return add_positions(x, aspect) if self.positions else x
        return self.scratch.output_conv2(add_positions(x, aspect) if self.positions else x)


class DenseHead(DPT):
    """A DPT whose last channel is a confidence: ``kind`` 'depth' or 'point'."""

    def __init__(self, config: VGGTConfig, kind: str) -> None:
        super().__init__(config, config.dpt_features, outputs={'depth': 2, 'point': 4}[kind])
        self.kind = kind

    def predict(self, patches: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Four tensors (F, N, 2C) -> values (F, H, W, 1 or 3) and confidence (F, H, W), at least 1.

        Values are z-depth, or points in the world of the first frame; both in the window's own unit.
        """
        maps = self(patches, grid).float()
        values, confidence = maps[:, :-1], 1 + maps[:, -1].exp()
        if self.kind == 'depth':
            values = values.exp()
        else:
            values = values.sign() * values.abs().expm1()
        return values.permute(0, 2, 3, 1), confidence
