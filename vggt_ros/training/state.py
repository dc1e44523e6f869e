"""The state of a training on disk: all or nothing, in files small enough for any transfer.

A state is a dict of tensors, numbers, strings and dicts. On disk it is ``state.json``, which names the parts, and the
parts. The manifest is replaced, in one atomic step, after all parts are safely written, so an interruption at any time
leaves the state before it; parts that no manifest names are removed by the next writing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PART_BYTES = 15 << 20
MANIFEST = 'state.json'


class StateError(RuntimeError):
    """A state that cannot be written or read; the message says what to do."""


def save(folder: Path, state: dict[str, Any], step: int, part_bytes: int = PART_BYTES) -> int:
    """Write a state; the number of bytes. Raises StateError when it cannot be written; the old one is then intact."""
    buffer = io.BytesIO()
    torch.save(_map(state, _to_planes), buffer)
    data = zlib.compress(buffer.getbuffer(), level=1)
    count = -(-len(data) // part_bytes)
    written: list[dict[str, Any]] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            part = data[index * part_bytes : (index + 1) * part_bytes]
            name = f'state-{step:07d}.{index + 1}of{count}'
            write(folder / name, part)
            written.append({'name': name, 'bytes': len(part), 'sha256': hashlib.sha256(part).hexdigest()})
        write(folder / MANIFEST, json.dumps({'step': step, 'parts': written}, indent=1).encode())
    except OSError as error:
        raise StateError(
            f'cannot write the state of step {step} to {folder}: {error.strerror or error}; the state before it is '
            'untouched. Make room and run again with --resume'
        ) from error
    keep = {part['name'] for part in written}
    # Also what a killed process left of parts that it had begun.
    for old in (*folder.glob('state-*'), *folder.glob('.state*.part')):
        if old.name not in keep:
            old.unlink(missing_ok=True)
    return len(data)


def load(folder: Path) -> dict[str, Any]:
    """Read the state of a folder. Raises StateError naming the file that is missing or damaged."""
    manifest = folder / MANIFEST
    try:
        parts = json.loads(manifest.read_text(encoding='utf-8'))['parts']
        chunks = []
        for part in parts:
            chunk = (folder / part['name']).read_bytes()
            if hashlib.sha256(chunk).hexdigest() != part['sha256']:
                raise StateError(
                    f'{folder / part["name"]} is damaged: it is not what {MANIFEST} describes; copy it again'
                )
            chunks.append(chunk)
    except FileNotFoundError as error:
        raise StateError(f'{error.filename} is missing: there is no complete state in {folder}') from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f'cannot read {manifest}: {error}') from error
    loaded = torch.load(io.BytesIO(zlib.decompress(b''.join(chunks))), map_location='cpu', weights_only=True)
    return _map(loaded, _from_planes)


def exists(folder: Path) -> bool:
    """Whether there is a state in this folder."""
    return (folder / MANIFEST).is_file()


def write(path: Path, data: bytes) -> None:
    """Write a file that appears under its name complete, or not at all. Raises OSError."""
    part = path.with_name(f'.{path.name}.part')
    try:
        with part.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    changed = change(value)
    if changed is value and isinstance(value, dict):
        return {key: _map(one, change) for key, one in value.items()}
    return changed


def _to_planes(value: Any) -> Any:
    """A tensor -> its bytes by significance: exponents among exponents compress, mixed with mantissas they do not."""
    if not isinstance(value, Tensor):
        return value
    flat = value.detach().to('cpu').contiguous().reshape(-1).view(torch.uint8).view(-1, value.element_size())
    return {'planes': flat.T.contiguous(), 'dtype': value.dtype, 'shape': tuple(value.shape)}


def _from_planes(value: Any) -> Any:
    if not isinstance(value, dict) or 'planes' not in value:
        return value
    return value['planes'].T.contiguous().view(-1).view(value['dtype']).view(value['shape'])
