"""What a cached folder must hold: each file's size and sha256, written when the folder is whole and checked before it
is used. Knows nothing of where the files came from."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway.errors import SourceError

NAME = "gateway-manifest.json"

SETTLED_NS = 1_000_000_000
"""A file that was changed within this could be changed again without another time of change: clocks of files tick in
milliseconds."""


def sha256_of(path: Path) -> str:
    """Hex digest of a file's bytes, which each process reads once until they change. Raises SourceError where it
    cannot."""
    try:
        found = path.stat()
        if time.time_ns() - found.st_ctime_ns < SETTLED_NS:
            return _digest(path)
        return _known_digest(path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error


@lru_cache(maxsize=1024)
def _known_digest(path: Path, *_unchanged: int) -> str:
    """Several models of one gateway stand on the same weights: half a second for each 600 MB."""
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(folder: Path, source: str) -> None:
    """Seal a folder: force its files to the disk and note what they are. `source`: sha256 of what they were made from.

    The forcing matters where the folder is renamed into place afterwards: a power cut must not leave a whole-looking
    folder with empty files.
    """
    files: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _force(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    note = folder / NAME
    note.write_text(json.dumps({"source": source, "files": files}, indent=1), encoding="utf-8")
    _force(note)
    _force(folder)


def verify(folder: Path, progress: Callable[[float], None] | None = None) -> None:
    """Check every file against the note, sizes first. `progress` gets the share of bytes done.

    Raises SourceError, one line that names the first damaged file and what to do.
    """
    cure = f"delete the folder {folder} and start again"
    try:
        note: Any = json.loads((folder / NAME).read_text(encoding="utf-8"))
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in note["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder / NAME} is damaged: {cure}") from error
    for name, (size, _) in files.items():
        path = folder / name
        if not path.is_file():
            raise SourceError(f"{path} is missing: {cure}")
        if (found := path.stat().st_size) != size:
            raise SourceError(f"{path} is damaged ({found} bytes, expected {size}): {cure}")
    total, done = sum(size for size, _ in files.values()) or 1, 0
    for name, (size, expected) in files.items():
        path = folder / name
        if (digest := sha256_of(path)) != expected:
            raise SourceError(f"{path} is damaged (sha256 {digest}, expected {expected}): {cure}")
        done += size
        if progress is not None:
            progress(done / total)


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
