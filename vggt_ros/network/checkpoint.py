"""Weights from a file or the Hugging Face hub into a network, and back into a file."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from vggt_ros.network import hub
from vggt_ros.network.config import HEADS, ConfigError, VGGTConfig
from vggt_ros.network.vggt import VGGT

# Of each kind of difference between file and network, a log shows so many.
LISTED = 20

Progress = Callable[[int, int], None]


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be had, read, or fitted to the network; the message says what to do."""


def load(
    source: str | os.PathLike[str],
    device: str | torch.device = 'cpu',
    heads: Sequence[str] | None = None,
    config: VGGTConfig | None = None,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
) -> VGGT:
    """A network with the weights of ``source``, in eval mode.

    source: path of a ``.safetensors`` file or of a PyTorch one (a state dict, or a dict that has one as ``model`` or
        ``state_dict``), or a hub id ``owner/name`` or ``owner/name:filename``, downloaded once (huggingface_hub shows
        its own progress).
    heads: which heads to build, None for all that the checkpoint has. Weights of other heads are not read.
    config: sizes of the network; None reads them from the file's own metadata or from ``config.json`` beside it, and
        falls back to VGGT-1B.
    progress: called with the numbers of read and of all bytes.
    dtype: of the aggregator's matrices, see :meth:`VGGT.prepare`; everything else is float32.

    Files are memory-mapped; tensors go one by one to their type and then to the device, which never holds more than the
    finished network. On a CPU, tensors that have the wanted type already stay mapped: they take no memory until they
    are used, and the file must not be overwritten in place.
    Raises CheckpointError, ConfigError for a ``heads`` that does not exist, and torch's own errors of the device.
    """
    path, device = _find(os.fspath(source)), torch.device(device)
    with _opened(path) as file:
        config = config or _config(path, file.metadata)
        present = [head for head in HEADS if any(key.startswith(f'{head}_head.') for key in file.shapes)]
        heads = present if heads is None else heads
        with torch.device('meta'):
            network = VGGT(config, heads).prepare('meta', dtype)
        lacking = [head for head in heads if head not in present]
        if lacking and present:
            raise CheckpointError(f'{path} has no {" and no ".join(lacking)} head; it has {", ".join(present)}')
        left_out = tuple(f'{head}_head.' for head in HEADS if head not in heads)
        targets = network.state_dict()
        _compare(
            f'{path} does not fit {config}',
            wanted={key: tuple(target.shape) for key, target in targets.items()},
            found={key: shape for key, shape in file.shapes.items() if not key.startswith(left_out)},
        )
        state: dict[str, Tensor] = {}
        total, done = sum(target.nbytes for target in targets.values()), 0
        for key, target in targets.items():
            with _reading(path):
                tensor = file.read(key)
            state[key] = tensor.to(target.dtype).to(device)
            done += target.nbytes
            if progress is not None:
                progress(done, total)
    network.load_state_dict(state, assign=True)
    return network.eval()


def save(network: VGGT, path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> None:
    """Write the weights as safetensors, all in float32 or float16, with the configuration in the metadata.

    The file appears under its name only when it is complete. Raises CheckpointError when it cannot be written, or when
    a weight is not finite in ``dtype``.
    """
    if dtype not in (torch.float32, torch.float16):
        raise CheckpointError(f'weights are saved as float32 or float16, not {dtype}')
    path = Path(path)
    state = {}
    for key, tensor in network.state_dict().items():
        state[key] = tensor.detach().to('cpu', dtype).contiguous()
        if not state[key].isfinite().all():
            raise CheckpointError(f'{key} is not finite as {dtype}; {path} was not written')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.name}.') as folder:
            part = Path(folder, 'part')
            save_file(state, part, {'format': 'pt', 'config': network.config.to_json()})
            os.replace(part, path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f'cannot write {path}: {error}') from error


def _find(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder; name the file in it')
    name = hub.parse(source)
    if name is None:
        raise CheckpointError(f'there is no file {path}')
    try:
        return hub.fetch(*name)
    except hub.HubError as error:
        raise CheckpointError(str(error)) from error


class _File(NamedTuple):
    """An open checkpoint: shapes of the tensors by key, and a function that reads one."""

    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    if path.suffix == '.safetensors':
        with _reading(path):
            file = safetensors.safe_open(path, framework='pt')
        with file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            yield _File(file.metadata() or {}, shapes, file.get_tensor)
    else:
        with _reading(path):
            loaded = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        state = _state_dict(path, loaded)
        yield _File({}, {key: tuple(tensor.shape) for key, tensor in state.items()}, state.__getitem__)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors of the libraries that read files -> CheckpointError."""
    try:
        yield
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f'cannot read {path} ({path.stat().st_size} bytes): {error}. '
            'A file that is truncated, damaged or no checkpoint at all must be fetched again'
        ) from error


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    for name in ('model', 'state_dict'):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f'{path} holds no state dict, neither at the top nor as "model" or "state_dict"')
    return dict(loaded)


def _compare(headline: str, wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    """CheckpointError with the differences in keys and shapes, if there are any."""
    differences = {
        'missing': [key for key in wanted if key not in found],
        'unexpected': [key for key in found if key not in wanted],
        'of another shape': [
            f'{key} {found[key]} instead of {shape}'
            for key, shape in wanted.items()
            if key in found and found[key] != shape
        ],
    }
    lines = []
    for kind, keys in differences.items():
        if keys:
            lines += [f'{len(keys)} {kind}:', *(f'  {key}' for key in keys[:LISTED])]
        if len(keys) > LISTED:
            lines.append(f'  ... and {len(keys) - LISTED} more')
    if lines:
        raise CheckpointError('\n'.join([headline, *lines]))


def _config(path: Path, metadata: Mapping[str, str]) -> VGGTConfig:
    text, origin, beside = metadata.get('config'), f'the metadata of {path}', path.with_name('config.json')
    if text is None and beside.is_file():
        text, origin = beside.read_text(encoding='utf-8'), str(beside)
    try:
        return VGGTConfig() if text is None else VGGTConfig.from_json(text)
    except ConfigError as error:
        raise CheckpointError(f'{origin}: {error}') from error
