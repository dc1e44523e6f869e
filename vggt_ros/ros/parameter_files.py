"""ROS parameter files: which node is told what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml


class ParameterFileError(ValueError):
    """A parameter file that cannot be read; the text names it."""


def values_for(path: Path, node: str) -> dict[str, Any]:
    """What the file tells the node with this full name; where sections differ, the later wins, as in rcl.

    Raises ParameterFileError.
    """
    values: dict[str, Any] = {}
    for pattern, told in _sections(path):
        if re.fullmatch(_regular(pattern), node):
            values |= told
    return values


def shared_names(arguments: Sequence[str]) -> set[str]:
    """The parameters that files on a command line name in sections for more than one node.

    Raises ParameterFileError.
    """
    names: set[str] = set()
    for path in _files(arguments):
        names.update(*(told for pattern, told in _sections(path) if '*' in pattern))
    return names


def silent_files(arguments: Sequence[str], node: str) -> dict[Path, list[str]]:
    """The files on a command line that tell the node with this full name nothing, and whom they tell something.

    Raises ParameterFileError.
    """
    told = {path: [pattern for pattern, _ in _sections(path)] for path in _files(arguments)}
    return {
        path: patterns
        for path, patterns in told.items()
        if not any(re.fullmatch(_regular(pattern), node) for pattern in patterns)
    }


def _files(arguments: Sequence[str]) -> list[Path]:
    return [Path(path) for option, path in pairwise(arguments) if option == '--params-file']


def _sections(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Patterns of full node names, each with its parameters."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParameterFileError(f'{path}: {" ".join(str(error).split())}') from error
    yield from _walk('', content)


def _walk(node: str, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == 'ros__parameters':
            yield node, value if isinstance(value, dict) else {}
        else:
            yield from _walk(f'{node}/{str(key).strip("/")}', value)


def _regular(pattern: str) -> str:
    """``*`` stands for one name, ``**`` for any number of them."""
    parts = re.split(r'(/\*\*|\*)', pattern)
    return ''.join({'/**': '(/[^/]+)*', '*': '[^/]+'}.get(part, re.escape(part)) for part in parts)
