"""Turns a Hugging Face folder into an ONNX Runtime GenAI folder, once: in a child process, atomically, sealed with a
manifest. Knows nothing of engines that will run it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gateway import manifest
from gateway.backend import BackendContext, Report
from gateway.errors import SourceError
from gateway_onnx.options import Plan, plan

log = logging.getLogger("gateway.onnx")

_PARTIAL = ".onnx-partial-"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
_LAYER = re.compile(r"Reading layer (\d+)")


def prepare(context: BackendContext, report: Report) -> None:
    """Make sure the converted folder is there and whole, every byte hashed. Raises SourceError or ConfigError."""
    _ensure(context, plan(context), report, thorough=True)


def converted(context: BackendContext, made: Plan, report: Report) -> Path:
    """The converted folder, checked by its files' sizes; made now where this machine has none. Blocks."""
    return _ensure(context, made, report, thorough=False)


def _ensure(context: BackendContext, made: Plan, report: Report, *, thorough: bool) -> Path:
    source = context.model_path
    if source is None:
        raise SourceError(f"models.{context.name}: the onnx backend needs a `source:`")
    if not any(source.glob("*.safetensors")):
        raise SourceError(f"{source}: holds no *.safetensors; the onnx backend converts no other weights")
    digest = context.digest or _digest(source)
    paged = "-paged" if made.provider == "cuda" and made.batching == "genai" else ""
    name = f"{digest}-onnx-{made.provider}{paged}-{made.precision}-genai{_builder_version()}"
    folder = context.cache / name
    context.cache.mkdir(parents=True, exist_ok=True)
    with _alone(context.cache / f".{name}.lock"):
        if folder.exists():
            try:
                if thorough:
                    manifest.verify(folder, lambda share: report("checking the ONNX folder", share))
                else:
                    _check_sizes(folder)
                return folder
            except SourceError as error:
                log.warning("%s; converting again", error.message.partition(": delete")[0])
                shutil.rmtree(folder)
        for stale in context.cache.glob(f"{_PARTIAL}{name}-*"):
            shutil.rmtree(stale)
        _convert(source, folder, made, digest, report)
    return folder


def _convert(source: Path, folder: Path, made: Plan, digest: str, report: Report) -> None:
    _require_space(source, folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{folder.name}-", dir=folder.parent))
    try:
        _build(source, partial, made, report)
        shutil.rmtree(partial / "scratch", ignore_errors=True)
        report("sealing the ONNX folder", 0.95)
        manifest.write(partial, digest)
        partial.rename(folder)
        report("converted to ONNX", 1.0)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _build(source: Path, target: Path, made: Plan, report: Report) -> None:
    """Run the library's model builder; it prints much and keeps its memory, so it gets a process of its own."""
    command = [sys.executable, "-P", "-m", "gateway_onnx.builder", "--input", str(source)]
    command += ["--output", str(target), "--cache_dir", str(target / "scratch")]
    command += ["--precision", made.precision, "--execution_provider", made.provider]
    extra = ["hf_token=false", "hf_remote=false"]
    if made.provider == "cuda" and made.batching == "genai":
        extra += ["use_paged_attention=true", f"max_batch_size={made.options.max_batch_size}"]
    command += ["--extra_options", *extra]
    layers = _layers(source)
    report("converting to ONNX", 0.0)
    child = subprocess.Popen(  # noqa: S603 (our own interpreter and arguments, no shell)
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **_OFFLINE, "OMP_NUM_THREADS": str(made.threads), "PYTHONUNBUFFERED": "1"},
    )
    said: deque[str] = deque(maxlen=5)
    try:
        for line in child.stdout or ():
            said.append(line.strip())
            if layer := _LAYER.search(line):
                report("converting to ONNX", 0.1 + 0.7 * min(1.0, int(layer[1]) / layers))
        code = child.wait()
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if code != 0 or not (target / "genai_config.json").is_file():
        raise SourceError(f"{source}: cannot be converted to ONNX (exit code {code}): {' | '.join(said)[-800:]}")


def _check_sizes(folder: Path) -> None:
    """What can be checked in a millisecond: that the folder was sealed and every file has its size."""
    try:
        note: Any = json.loads((folder / manifest.NAME).read_text(encoding="utf-8"))
        damaged = [name for name, entry in note["files"].items() if (folder / name).stat().st_size != entry["size"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{folder} is damaged ({error})") from error
    if damaged:
        raise SourceError(f"{folder / damaged[0]} is damaged (its size has changed)")


def _digest(source: Path) -> str:
    """For a folder nobody has hashed: sha256 over the hashes of its configuration, tokenizer and weights."""
    total = hashlib.sha256()
    for path in sorted([*source.glob("*.safetensors"), *source.glob("*.json"), *source.glob("*.jinja")]):
        total.update(f"{path.name} {manifest.sha256_of(path)}\n".encode())
    return total.hexdigest()


def _layers(source: Path) -> int:
    try:
        config: Any = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{source / 'config.json'}: cannot be read: {error}") from error
    return max(1, int(config.get("num_hidden_layers") or 1))


def _require_space(source: Path, cache: Path) -> None:
    """The builder writes the weights as float32 at most, from scratch files as large again."""
    needed = 3 * sum(path.stat().st_size for path in source.glob("*.safetensors"))
    free = shutil.disk_usage(cache).free
    if free < needed:
        raise SourceError(
            f"{cache}: {free / 2**30:.1f} GiB free, converting {source.name} to ONNX needs {needed / 2**30:.1f} GiB"
        )


def _builder_version() -> str:
    for distribution in ("onnxruntime-genai", "onnxruntime-genai-cuda"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    raise SourceError("onnxruntime-genai is not installed: install the `cpu` or the `gpu` extra")


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Two processes that want the same folder convert it once; the kernel frees the lock of one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
