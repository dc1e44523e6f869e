"""The size of a VGGT network as one dataclass, and its JSON form."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Width and depth of the published DINOv2 backbones with registers; every head is 64 wide.
DINOV2_DEPTHS = {'dinov2_vits14_reg': (384, 12), 'dinov2_vitb14_reg': (768, 12), 'dinov2_vitl14_reg': (1024, 24)}
HEADS = ('camera', 'depth', 'point', 'track')
REGISTERS = 4
# The camera token and the registers stand in front of the patch tokens of each frame.
SPECIAL_TOKENS = 1 + REGISTERS


class ConfigError(ValueError):
    """A network configuration that is unknown, incomplete or contradicts itself."""


@dataclass(frozen=True)
class VGGTConfig:
    """Sizes of a VGGT network; the defaults are VGGT-1B (arXiv 2503.11651). Raises ConfigError for impossible ones."""

    img_size: int = 518  # side in pixels of the square image that the backbone's position embedding was trained for
    patch_size: int = 14  # side of a patch in pixels; image sides must be multiples of it
    embed_dim: int = 1024  # width of the alternating attention
    depth: int = 24  # number of its frame/global block pairs
    num_heads: int = 16  # of its heads
    # ``dinov2_vit{s,b,l}14_reg``, ``conv`` (one convolution, no backbone) or ``stem`` (a few convolutions and
    # positions, see stem.py)
    patch_embed: str = 'dinov2_vitl14_reg'
    intermediate_layers: tuple[int, int, int, int] = (4, 11, 17, 23)  # the four pairs whose tokens feed the dense heads
    camera_trunk_depth: int = 4  # of the camera head's transformer, ``2 * embed_dim`` wide
    camera_num_heads: int = 16  # likewise
    dpt_features: int = 256  # width inside the depth and point heads
    # widths inside them; they also hold for the tracker's
    dpt_out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    track_features: int = 128  # of the tracker, as the next three
    track_hidden_size: int = 384  # width of its transformer
    track_corr_levels: int = 7  # levels of its correlation pyramid
    track_corr_radius: int = 4  # cells around a point at each level
    # whether the tracker's feature extractor adds position embeddings: the published VGGT-1B was trained without,
    # the published "fixed" tracker with; the keys are the same, so nothing else tells
    track_position_embedding: bool = False

    def __post_init__(self) -> None:
        for name in ('intermediate_layers', 'dpt_out_channels'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        problems = list(self._wrong_types()) or list(self._contradictions())
        if problems:
            raise ConfigError('VGGTConfig: ' + '; '.join(problems))

    def _wrong_types(self) -> Iterator[str]:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in ('str', 'bool'):
                if type(value).__name__ != field.type:
                    yield f'{field.name} must be a {field.type}, got {value!r}'
                continue
            numbers = value if isinstance(value, tuple) else (value,)
            smallest = 0 if field.name in ('intermediate_layers', 'track_corr_radius') else 1
            if not all(type(number) is int and number >= smallest for number in numbers):
                yield f'{field.name} must hold integers of at least {smallest}, got {value!r}'
            elif len(numbers) != (4 if field.type != 'int' else 1):
                yield f'{field.name} needs 4 entries, got {value!r}'

    def _contradictions(self) -> Iterator[str]:
        if self.patch_embed not in ('conv', 'stem', *DINOV2_DEPTHS):
            yield f'patch_embed must be conv, stem or one of {", ".join(DINOV2_DEPTHS)}, got {self.patch_embed!r}'
        elif self.patch_embed in DINOV2_DEPTHS and self.embed_dim != DINOV2_DEPTHS[self.patch_embed][0]:
            yield f'{self.patch_embed} is {DINOV2_DEPTHS[self.patch_embed][0]} wide, but embed_dim is {self.embed_dim}'
        if self.img_size % self.patch_size:
            yield f'img_size {self.img_size} is not a multiple of patch_size {self.patch_size}'
        if self.patch_embed == 'stem' and self.patch_size % 2:
            yield f'patch_embed stem needs an even patch_size, got {self.patch_size}'
        # Rotary positions split a head into (y, x) x (two halves).
        if self.embed_dim % (4 * self.num_heads):
            yield f'embed_dim {self.embed_dim} is not a multiple of 4 * num_heads = {4 * self.num_heads}'
        if 2 * self.embed_dim % self.camera_num_heads:
            yield f'2 * embed_dim = {2 * self.embed_dim} is not a multiple of camera_num_heads {self.camera_num_heads}'
        layers = self.intermediate_layers
        if sorted(set(layers)) != list(layers) or layers[-1] >= self.depth:
            yield f'intermediate_layers {layers} must increase and stay below depth {self.depth}'
        # Position embeddings of the dense heads: (x, y) x (sin, cos); the last one has half of dpt_features channels.
        if any(channels % 4 for channels in self.dpt_out_channels) or self.dpt_features % 8:
            yield 'dpt_out_channels must be multiples of 4 and dpt_features of 8'
        if self.track_features % 4 or self.track_hidden_size % 8:
            yield 'track_features must be a multiple of 4 and track_hidden_size of 8'

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VGGTConfig:
        """The configuration with these fields, defaults elsewhere; ConfigError names every unknown field."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ConfigError(f'unknown network fields {", ".join(unknown)}; known are {", ".join(known)}')
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> VGGTConfig:
        """The inverse of :meth:`to_json`; ConfigError when the text is not a JSON object of known fields.

        The ``enable_*`` fields of the published package are passed over: a checkpoint's keys tell which heads it has.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f'the network configuration is not JSON: {error}') from error
        if not isinstance(values, dict):
            raise ConfigError('the network configuration is not a JSON object')
        return cls.from_dict({key: value for key, value in values.items() if not key.startswith('enable_')})

    def to_json(self) -> str:
        """All fields as a JSON object."""
        return json.dumps(asdict(self))
