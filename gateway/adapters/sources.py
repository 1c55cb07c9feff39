"""Where adapters come from: a reference → a local, content-addressed copy of exactly two files, whole or not at all.

Only files of these two names are ever fetched, so no listing of anybody's can name another place; no pickle is read.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway import manifest
from gateway.errors import AdapterError, GatewayError, SourceError
from gateway.hookspecs import hookimpl
from gateway.manifest import sha256_of
from gateway.sources import in_package, split

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")
ADDRESS = "fsspec"
"""The offer that any address (`s3://…`, `gs://…`, `memory://…`) goes to that no plugin has a scheme for."""
_LARGEST_CONFIG = 1 << 20


@dataclass(frozen=True, slots=True)
class AdapterSourceOffer:
    """What a plugin registers: a scheme, and how its references become files."""

    scheme: str
    """What stands before the colon: `package` in `package:DISTRIBUTION/FOLDER`."""
    fetch: Callable[[str, Path], None]
    """(reference without its scheme, an empty folder): put `adapter_config.json` and `adapter_model.safetensors` there.
    May take long; runs in a thread. Raises AdapterError with what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The local copy of an adapter."""

    path: Path
    digest: str
    """sha256 over the names and hashes of both files."""


def bring(source: str, *, find: Callable[[str], AdapterSourceOffer], cache: Path) -> Kept:
    """Fetch an adapter into the cache. Blocks. `find`: an offer by its scheme (`Plugins.adapter_source`).

    Raises AdapterError, one line that says what to do, and PluginError for an unknown scheme.
    """
    scheme, reference = split(source)
    if reference.startswith("//"):
        scheme, reference = _address(source, scheme, find), source
    shelf = cache / "adapters"
    shelf.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".half-", dir=shelf))
    try:
        _fetch(find(scheme), reference, source, half)
        digest = digest_of(half)
        if (kept := find_kept(digest, cache)) is not None:
            return kept
        manifest.write(half, digest)
        path = shelf / digest
        try:
            half.rename(path)
        except OSError:
            # Somebody else was quicker: the same content.
            if find_kept(digest, cache) is None:
                raise
        return Kept(path, digest)
    except SourceError as error:
        raise AdapterError(f"{source}: {error.message}") from error
    except OSError as error:
        raise AdapterError(f"{source}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def find_kept(digest: str, cache: Path) -> Kept | None:
    """The copy with this digest, checked byte by byte; None where there is none. A damaged one is taken away."""
    path = cache / "adapters" / digest
    if not path.is_dir():
        return None
    try:
        manifest.verify(path)
        if digest_of(path) == digest:
            return Kept(path, digest)
    except SourceError:
        # It says what is damaged and to delete it: that is done here, and it is fetched again.
        pass
    shutil.rmtree(path, ignore_errors=True)
    return None


def digest_of(folder: Path) -> str:
    """sha256 over both files. Raises SourceError where one cannot be read."""
    total = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        total.update(f"{name} {sha256_of(folder / name)}\n".encode())
    return total.hexdigest()


def absolute(source: str) -> str:
    """The source as any process of this machine understands it: a path from the root on."""
    scheme, reference = split(source)
    return str(Path(reference).expanduser().absolute()) if scheme == "path" else source


def _fetch(offer: AdapterSourceOffer, reference: str, source: str, folder: Path) -> None:
    try:
        offer.fetch(reference, folder)
    except (GatewayError, OSError):
        raise
    except Exception as error:
        # Drivers of every kind of storage, each with errors of its own.
        raise AdapterError(f"{source}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    for name in (CONFIG, WEIGHTS):
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise AdapterError(f"{source}: brought no {name}")
    for path in folder.iterdir():
        if path.name not in (CONFIG, WEIGHTS):
            raise AdapterError(f"{source}: brought {path.name}, which is no part of an adapter")
    if (folder / CONFIG).stat().st_size > _LARGEST_CONFIG:
        raise AdapterError(f"{source}: {CONFIG} is larger than {_LARGEST_CONFIG} bytes: that is no PEFT config")


def _address(source: str, scheme: str, find: Callable[[str], AdapterSourceOffer]) -> str:
    if (parts := urlsplit(source)).password is not None or parts.username is not None:
        raise AdapterError(f"{scheme}://…: no user or password in an address: set them in the driver's environment")
    try:
        return find(scheme).scheme
    except GatewayError:
        return ADDRESS


def refuse_incomplete(where: str, has: Callable[[str], bool]) -> None:
    """Raise AdapterError that says what `where` lacks. `has`: whether it holds a file of this name."""
    if has(CONFIG) and has(WEIGHTS):
        return
    for name in PICKLES:
        if has(name):
            raise AdapterError(
                f"{where}: its weights are a pickle ({name}), which runs code when it is read: save the adapter as "
                "safetensors (`model.save_pretrained(folder)` in PEFT 0.6 or newer)"
            )
    missing = " and ".join(name for name in (CONFIG, WEIGHTS) if not has(name))
    raise AdapterError(f"{where}: is no adapter in PEFT's layout: it has no {missing}")


def _from_path(reference: str, folder: Path) -> None:
    path = Path(reference).expanduser().absolute()
    if path.suffix in {".bin", ".pt", ".pth", ".pkl"}:
        raise AdapterError(f"{path}: is a pickle, which runs code when it is read: name a folder with {WEIGHTS}")
    if path.name in (CONFIG, WEIGHTS):
        path = path.parent
    if not path.is_dir():
        raise AdapterError(f"{path}: there is no such folder")
    refuse_incomplete(str(path), lambda name: (path / name).is_file())
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(path / name, folder / name)


def _from_package(reference: str, folder: Path) -> None:
    """`DISTRIBUTION/FOLDER`, or one of the two files in it. Imports nothing."""
    parts = reference.split("/")
    if ".." in parts:
        raise AdapterError(f"package:{reference}: `..` leads out of the package")
    if parts[-1] in (CONFIG, WEIGHTS):
        parts.pop()
    config = in_package("/".join([*parts, CONFIG]))
    _from_path(str(config.parent), folder)


def _from_hub(reference: str, folder: Path) -> None:
    """`ORG/NAME` or `ORG/NAME@REVISION` of the Hugging Face hub."""
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    try:
        found = snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS])
    except LocalEntryNotFoundError as error:
        raise AdapterError(
            f"hf:{reference}: the hub cannot be reached and there is no local copy: connect, or name a folder instead"
        ) from error
    except HfHubHTTPError as error:
        raise AdapterError(f"hf:{reference}: {' '.join(str(error).split())[:300]}") from error
    except HFValidationError as error:
        raise AdapterError(f"hf:{reference}: is not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION") from error
    if not (Path(found) / WEIGHTS).is_file():
        raise AdapterError(
            f"hf:{reference}: has no {CONFIG} with {WEIGHTS} (pickles are never fetched): it is no adapter as "
            "safetensors"
        )
    _from_path(found, folder)


def _from_address(address: str, folder: Path) -> None:
    """Any address that fsspec knows."""
    import fsspec  # pyright: ignore[reportMissingTypeStubs]

    scheme = address.partition(":")[0]
    try:
        found: Any = fsspec.core.url_to_fs(address)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    except ImportError as error:
        # fsspec's own text names the package: "Install s3fs to access S3".
        raise AdapterError(f"{address}: needs a driver that is not installed: {error}") from error
    except ValueError as error:
        raise AdapterError(f"{address}: fsspec knows no scheme {scheme!r}") from error
    files, root = found[0], str(found[1]).rstrip("/")
    refuse_incomplete(address, lambda name: bool(files.isfile(f"{root}/{name}")))
    for name in (CONFIG, WEIGHTS):
        files.get_file(f"{root}/{name}", str(folder / name))


@hookimpl
def register_adapter_sources(register: Callable[[AdapterSourceOffer], None]) -> None:
    sources = {"path": _from_path, "package": _from_package, "hf": _from_hub, ADDRESS: _from_address}
    for scheme, fetch in sources.items():
        register(AdapterSourceOffer(scheme, fetch))
