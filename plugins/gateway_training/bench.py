"""The folder a training works in: nobody else's meanwhile, kept when it is cut short, moved whole when it is done."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from gateway.errors import ConfigError
from gateway_training.work import FILES

CHECKPOINT = "checkpoint.safetensors"


@contextmanager
def occupied(folder: Path, *, resume: bool, restart: bool) -> Generator[Path]:
    """Raises ConfigError where another process trains there, where an unfinished training stands there and nobody said
    what to do with it, or where there is none to go on with."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f"{folder.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it may have taken the file away meanwhile, and somebody else made a new one.
            held = os.fstat(lock.fileno()).st_ino == (folder.parent / f"{folder.name}.lock").stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise ConfigError(f"{folder}: another process trains here: name another --out, or wait for it")
        begun = (folder / CHECKPOINT).exists()
        if begun and not resume and not restart:
            raise ConfigError(f"{folder} holds an unfinished training: --resume goes on, --restart begins again")
        if resume and not begun:
            raise ConfigError(f"{folder} holds no unfinished training: leave out --resume")
        if restart:
            shutil.rmtree(folder)
            folder.mkdir()
        try:
            yield folder
        finally:
            # The lock's file goes while it is held: who comes next makes a new one.
            (folder.parent / f"{folder.name}.lock").unlink(missing_ok=True)
            if folder.is_dir() and not (folder / CHECKPOINT).exists():
                shutil.rmtree(folder)


def move(folder: Path, target: Path) -> None:
    """Give what a training left its own place, whole or not at all. The same adapter again replaces itself."""
    for path in folder.iterdir():
        if path.name not in FILES and path.name != CHECKPOINT:
            path.unlink() if path.is_file() else shutil.rmtree(path)
    if target.is_dir():
        shutil.rmtree(target)
    try:
        folder.rename(target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}; the adapter stands in {folder}") from error
    (target / CHECKPOINT).unlink(missing_ok=True)
