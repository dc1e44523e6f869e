"""What a training is, as one file: frozen dataclasses filled from YAML or JSON, every field named when it is wrong."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from vggt_ros.network import HEADS, ConfigError, VGGTConfig
from vggt_ros.synthetic import places, trajectory

Pair = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """One part of the curriculum."""

    until: int  # step at which the next stage begins; the last one lasts for the rest of the training
    frames: tuple[int, int]  # least and most frames of a window; every step draws one number
    rate: Pair  # least and most pictures per second of the camera paths, drawn log-uniformly: slow is wide motion
    overlap: float  # least share of common surface of each frame of a window with one of the others
    clutter: Pair  # least and most clutter of the worlds, 1 = as in :func:`vggt_ros.synthetic.places.make_world`
    worlds: dict[str, float]  # kind -> weight
    paths: dict[str, float]  # kind -> weight
    longest: int  # longest image side in pixels
    # the ones that learn in this stage, () = all of the training; the tokens have to know something before dense
    # heads and tracker are worth their time
    heads: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataConfig:
    """What the network is shown."""

    frames_per_step: int  # frames of a step's windows together
    worlds: int  # rendered together
    frames: int  # of each world
    slots: int  # so many renderings are kept
    uses: int  # so often each is shown before it is replaced, with other frames, order and colours each time
    aspects: dict[str, float]  # 'WIDTHxHEIGHT' in any unit -> weight
    fov: Pair  # least and most degrees over the longer side
    bare: float  # share of worlds with blank walls
    mirrors: float  # share of worlds with mirrors and glass
    shadows: float  # share of renderings with cast shadows
    jitter: float  # strength of colour changes, 1 = usual
    noise: float  # largest standard deviation of sensor noise, 1 = white
    queries: int  # tracked points per window
    folders: tuple[str, ...] = ()  # recordings to train on instead of worlds (dataset.py), for one's own robot


@dataclass(frozen=True)
class LossConfig:
    """Weights and constants of the losses, in the names of losses.py.

    Shares below 1 save time: frames of one window teach much the same.
    """

    camera: float  # weight of the camera loss
    translation: float  # of its parts
    rotation: float  # likewise
    fov: float  # likewise
    depth: float  # weight
    point: float  # weight
    track: float  # weight (lambda = 0.05 in the paper)
    epsilon: float  # Huber's
    alpha: float  # of log confidence
    pose_discount: float  # of earlier iterations of the camera head
    track_discount: float  # of earlier iterations of the tracker
    visibility: float  # weight of both binary entropies inside the track loss
    matching: float  # weight of finding the tracked points by their features alone, which is not in the paper
    depth_frames: float  # share of a window's frames whose depth is predicted
    track_windows: float  # share of the windows that are tracked
    track_iterations: int  # of the tracker
    hint_attention: float = 0.0  # of the hints (hints.py), which are not in the paper either; 0 = none
    hint_tokens: float = 0.0  # likewise


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a trapezoid: linear warm-up, constant, linear decay to 0.

    The constant part may be made longer after the fact (``--steps``).
    """

    learning_rate: float  # of the constant part
    weight_decay: float  # AdamW's
    betas: Pair  # AdamW's
    warmup: int  # steps
    decay: float  # share of the steps, the last ones
    clip: float  # largest norm of all gradients together
    ema: float  # decay of the exponential mean of the weights, which is what is validated and exported
    # learning rate of each head, as a share of the aggregator's; 1 where nothing is said
    heads: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """How it runs. Cameras, tracker, losses and weights are always float32."""

    steps: int  # of the whole training
    seed: int  # of everything
    precision: str  # 'bfloat16', 'float32' or 'auto', for attention and dense heads
    save_minutes: float  # how often the state is written
    validate_steps: int  # how often the network is validated
    compile: bool = False  # torch.compile
    workers: int = -1  # processes that build worlds, -1 = by the machine
    weights: str = ''  # a checkpoint to start from
    frozen: tuple[str, ...] = ()  # patterns (fnmatch) of parameters that stay as they are


@dataclass(frozen=True)
class TrainConfig:
    """The whole of it."""

    network: VGGTConfig  # sizes of the network
    heads: tuple[str, ...]  # the ones to train
    data: DataConfig  # what it is shown
    stages: tuple[Stage, ...]  # the curriculum
    loss: LossConfig  # what it is told
    optimizer: OptimizerConfig  # how it learns
    run: RunConfig  # how it runs

    def __post_init__(self) -> None:
        problems = [text for text in self._problems() if text]
        if problems:
            raise ConfigError('; '.join(problems))

    def _problems(self) -> list[str]:
        data, run, patch = self.data, self.run, self.network.patch_size
        problems = [f'heads: {head!r} is not one of {", ".join(HEADS)}' for head in self.heads if head not in HEADS]
        problems += ['stages: at least one is needed'] * (not self.stages)
        problems += [f'run.precision: {run.precision!r} is not auto, bfloat16 or float32'] * (
            run.precision not in ('auto', 'bfloat16', 'float32')
        )
        for name in ('frames_per_step', 'worlds', 'frames', 'slots', 'uses', 'queries'):
            problems += [f'data.{name} must be positive'] * (getattr(data, name) < 1)
        problems += [
            f'optimizer.heads: {head!r} is not one of the heads {", ".join(self.heads)}'
            for head in self.optimizer.heads
            if head not in self.heads
        ]
        problems += ['run.steps must be positive'] * (run.steps < 1)
        problems += ['optimizer.decay is a share'] * (not 0 <= self.optimizer.decay <= 1)
        problems += [f'data.fov {data.fov} must lie between 1 and 170 degrees'] * (
            not 1 <= data.fov[0] <= data.fov[1] <= 170
        )
        for aspect in data.aspects:
            sides = aspect.split('x')
            problems += [f'data.aspects: {aspect!r} is not like 4x3'] * (
                len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides)
            )
        for number, stage in enumerate(self.stages):
            name = f'stages[{number}]'
            low, high = stage.frames
            problems += [f'{name}.frames {stage.frames} must lie between 2 and data.frames {data.frames}'] * (
                not 2 <= low <= high <= data.frames
            )
            problems += [f'{name}.rate must be positive and ordered'] * (not 0 < stage.rate[0] <= stage.rate[1])
            problems += [f'{name}.longest {stage.longest} is not a multiple of the patch size {patch}'] * (
                stage.longest < patch or stage.longest % patch != 0
            )
            problems += [
                f'{name}.heads: {head!r} is not one of the heads {", ".join(self.heads)}'
                for head in stage.heads
                if head not in self.heads
            ]
            for kinds, known in ((stage.worlds, places.KINDS), (stage.paths, trajectory.KINDS)):
                problems += [
                    f'{name}: no kind {kind!r}; there are {", ".join(known)}' for kind in kinds if kind not in known
                ]
                problems += [f'{name}: the weights of the kinds must be positive'] * (
                    not kinds or min(kinds.values()) <= 0
                )
        untils = [stage.until for stage in self.stages[:-1]]
        problems += ['stages: until must increase'] * (untils != sorted(set(untils)))
        return problems

    def stage(self, step: int) -> Stage:
        """The stage that a step belongs to."""
        return next((stage for stage in self.stages[:-1] if step < stage.until), self.stages[-1])


def load(path: str | Path) -> TrainConfig:
    """Read a YAML or (``.json``) JSON file. Raises ConfigError naming the file and the field."""
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise ConfigError(f'{path}: {error.strerror}') from error
    try:
        return from_dict(_parse(path, text))
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error


def _parse(path: Path, text: str) -> Any:
    if path.suffix == '.json':
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f'not JSON: {error}') from error
    try:
        import yaml
    except ImportError as error:
        raise ConfigError('PyYAML is missing: install it, or write the same fields as a .json file') from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'not YAML: {error}') from error


def from_dict(values: Any) -> TrainConfig:
    """The configuration of nested mappings. Raises ConfigError naming missing, unknown and mistyped fields."""
    return _build(TrainConfig, values, '')


def to_dict(config: Any) -> Any:
    """The inverse of :func:`from_dict`, of plain types only."""
    if is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in fields(config)}
    if isinstance(config, Mapping):
        return {key: to_dict(value) for key, value in config.items()}
    return [to_dict(value) for value in config] if isinstance(config, (tuple, list)) else config


def _build(kind: Any, value: Any, name: str) -> Any:
    """``value`` as ``kind``, a type as it stands in the dataclasses above; ``name``: where it stands in the file."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is VGGTConfig:
        if not isinstance(value, Mapping):
            raise ConfigError(f'{name} must be a mapping, not {value!r}')
        return VGGTConfig.from_dict(value)
    if is_dataclass(kind):
        return _build_dataclass(kind, value, name)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f'{name} must be a mapping, not {value!r}')
        return {str(key): _build(arguments[1], one, f'{name}.{key}') for key, one in value.items()}
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f'{name} must be a list, not {value!r}')
        inner = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(inner) != len(value):
            raise ConfigError(f'{name} needs {len(inner)} entries, not {len(value)}')
        return tuple(_build(one, part, f'{name}[{i}]') for i, (one, part) in enumerate(zip(inner, value, strict=True)))
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ConfigError(f'{name} must be {kind.__name__}, not {value!r}')
    return value


def _build_dataclass(kind: Any, value: Any, name: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f'{name or "the configuration"} must be a mapping, not {value!r}')
    hints, prefix = typing.get_type_hints(kind), f'{name}.' if name else ''
    unknown = [str(key) for key in value if key not in hints]
    missing = [
        field.name
        for field in fields(kind)
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING
    ]
    if unknown or missing:
        parts = [f'missing {", ".join(prefix + key for key in missing)}'] * bool(missing)
        parts += [f'unknown {", ".join(prefix + key for key in unknown)}'] * bool(unknown)
        raise ConfigError('; '.join(parts))
    return kind(**{key: _build(hints[key], one, prefix + key) for key, one in value.items()})
