"""Checkpoints on the Hugging Face hub -> files on this machine."""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

# Tried in this order when no file is named.
FILES = ('model.safetensors', 'model.pt')
SUFFIXES = ('.safetensors', '.pt', '.pth')
# huggingface_hub changed its HTTP library, and with it the base of that library's errors.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


class HubError(RuntimeError):
    """A file that could not be had from the hub; the message says why and what to do."""


def parse(source: str) -> tuple[str, str | None] | None:
    """``owner/name`` or ``owner/name:filename`` -> (repository, filename or None); None for what can only be a path."""
    match = re.fullmatch(r'([\w.-]+/[\w.-]+?)(?::(.+))?', source)
    if match is None or source.startswith('.') or match[1].endswith(SUFFIXES):
        return None
    return match[1], match[2]


def fetch(repository: str, filename: str | None = None) -> Path:
    """Download a checkpoint, and its ``config.json`` where there is one, once; returns the file in the hub's cache.

    A broken download goes on where it stopped. huggingface_hub shows the progress. Raises HubError.
    """
    problems = []
    for name in (filename,) if filename else FILES:
        try:
            path = _download(repository, name)
        except EntryNotFoundError as error:
            problems.append(error)
            continue
        with suppress(EntryNotFoundError):  # most are VGGT-1B and need none
            _download(repository, 'config.json')
        return path
    if any(isinstance(problem, LocalEntryNotFoundError) for problem in problems):
        raise HubError(
            f'{repository} is not in the cache {constants.HF_HUB_CACHE} and the hub cannot be reached: connect to '
            'the network (and unset HF_HUB_OFFLINE), or download the file elsewhere and give its path'
        ) from problems[0]
    names = filename or ' and no '.join(FILES)
    raise HubError(f'{repository} has no {names}; name one of its files as {repository}:FILE') from problems[0]


def _download(repository: str, filename: str) -> Path:
    """One file; EntryNotFoundError passes through, everything else becomes a HubError."""
    try:
        return Path(hf_hub_download(repository, filename))
    except EntryNotFoundError:
        raise
    except GatedRepoError as error:
        raise HubError(
            f'{repository} is gated: accept its terms on https://huggingface.co/{repository}, then log in with '
            '`hf auth login` or set HF_TOKEN'
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HubError(f'{repository} is neither a file here nor a (visible) repository on the hub') from error
    except (OSError, RuntimeError, HTTP_ERROR) as error:
        if getattr(error, 'errno', None) == errno.ENOSPC or 'No space left' in str(error):
            raise HubError(
                f'the disk of {constants.HF_HUB_CACHE} is full while downloading {repository}: free some space, or '
                'set HF_HOME to a folder on another disk; the download goes on where it stopped'
            ) from error
        raise HubError(
            f'downloading {filename} of {repository} failed: {error}. Try again; it goes on where it stopped'
        ) from error
