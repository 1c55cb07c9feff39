"""GGUF file → Hugging Face folder, once, in a child process: the command line stays light, and whatever ends the child
leaves nothing that could be taken for a whole folder. The upper half runs in the caller, the lower in the child."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gateway import manifest
from gateway.errors import SourceError
from gateway.importing import import_transformers, importing

if TYPE_CHECKING:
    from gateway.backend import Report

LAYOUT = "hf1"
"""Part of the cached folder's name: raise the number when a conversion writes something else than before."""

PARTIAL = ".partial"


def converted(file: Path, digest: str, cache: Path, report: Report) -> Path:
    """The Hugging Face folder (float32 safetensors, tokenizer, chat template, generation config) of a GGUF file.

    Made once under `cache` by the file's `digest`, verified each time. Processes that want it at the same moment wait
    for the first. Raises SourceError where the cached folder is damaged or the conversion fails.
    """
    folder = cache / f"{digest}-{LAYOUT}"
    if not folder.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _alone(cache, report):
                if not folder.exists():
                    _convert(file, digest, folder, report)
                    return folder
        except OSError as error:
            raise SourceError(f"{cache}: {error.strerror or error}; free some space or set GATEWAY_CACHE") from error
    manifest.verify(folder, lambda share: report(f"verifying {file.name}", share))
    return folder


@contextmanager
def _alone(cache: Path, report: Report) -> Generator[None]:
    """One conversion at a time and cache. The kernel lets go of the lock when its holder dies, however it dies."""
    with (cache / "conversion.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                report("waiting for another process that converts a model", 0.0)
                time.sleep(0.2)
        # Nobody else is at work, so every partial folder belongs to a run that was killed.
        for stale in cache.glob(f"*{PARTIAL}"):
            shutil.rmtree(stale)
        yield


def _convert(file: Path, digest: str, folder: Path, report: Report) -> None:
    partial = folder.with_name(folder.name + PARTIAL)
    partial.mkdir()
    try:
        _run_child(file, partial, report)
        report(f"sealing {file.name}", 0.95)
        manifest.write(partial, digest)
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report(f"converted {file.name}", 1.0)


def _run_child(file: Path, partial: Path, report: Report) -> None:
    root = str(Path(__file__).resolve().parent.parent)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # -P keeps the working directory off the path, where anybody's torch.py could stand.
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
    }
    report(f"converting {file.name}", 0.0)
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-P", "-m", "gateway.gguf", str(file), str(partial)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        reason = ""
        try:
            for line in child.stdout or ():
                said: dict[str, Any] = json.loads(line)
                reason = str(said.get("error", reason))
                if "share" in said:
                    report(f"converting {file.name}", 0.95 * float(said["share"]))
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        if code:
            raise SourceError(f"{file}: cannot be converted: {reason or _last_words(code, errors)}")


def _last_words(code: int, errors: IO[bytes]) -> str:
    if code == -signal.SIGKILL:
        return "the converter was killed, which often means too little memory"
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 4096))
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"the converter ended with code {code}")


# From here on: the child.


class _Bar:
    """Stands in for the progress bar that Transformers draws over the tensors it loads."""

    def __init__(self, items: Iterable[Any], total: int, report: _Pipe) -> None:
        self.items, self.total, self.report = items, total, report

    def __iter__(self) -> Iterator[Any]:
        for index, item in enumerate(self.items):
            yield item
            self.report.tell(share=0.4 + 0.4 * (index + 1) / self.total)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, n: int = 1) -> None:
        return None

    def close(self) -> None:
        return None

    set_description = set_postfix = update


class _Pipe:
    """JSON lines to the parent: `{"share": 0.5}`, or `{"error": "why"}` as the last."""

    def __init__(self) -> None:
        # Libraries print; what they print must not reach the parent as progress.
        self.out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, **said: float | str) -> None:
        self.out.write(json.dumps(said) + "\n")


def _die_with_parent() -> None:
    """The parent holds our standard input open for as long as it lives."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _read_once(file: Path) -> None:
    """Read the file, before anything heavy is imported, and have Transformers take what was read.

    It would read the file three times and make the map of all names anew for each tensor: a third of what a small model
    takes. This process converts one file, and nothing changes what was read.
    """
    # Its vocabularies of another kind, which Transformers does not ask it for.
    with importing(without=("mistral_common",)):
        import gguf

    reader = gguf.GGUFReader(file)

    def already_read(_: object) -> Any:
        return reader

    gguf.GGUFReader = already_read
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)


def _write_folder(file: Path, folder: Path, pipe: _Pipe) -> None:
    _read_once(file)
    import_transformers()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.set_verbosity_error()

    def bar(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        items: Any = arguments[0] if arguments else named.get("iterable", ())
        return _Bar(items, max(1, len(items) if hasattr(items, "__len__") else 1), pipe)

    before = logging.set_tqdm_hook(bar)
    pipe.tell(share=0.3)
    # Transformers keeps GGUF weights packed unless told otherwise, and cannot save them then.
    model: Any = AutoModelForCausalLM.from_pretrained(  # pyright: ignore[reportUnknownMemberType]
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        local_files_only=True,
        trust_remote_code=False,
    )
    needed = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    if (free := shutil.disk_usage(folder).free) < needed * 1.02:
        raise OSError(
            f"{needed / 1e9:.1f} GB needed in {folder.parent}, {free / 1e9:.1f} GB free; free some or set GATEWAY_CACHE"
        )
    logging.set_tqdm_hook(before)
    logging.disable_progress_bar()
    pipe.tell(share=0.8)
    tokenizers: Any = AutoTokenizer
    tokenizers.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True).save_pretrained(folder)
    pipe.tell(share=0.85)
    model.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes for its owner alone
    pipe.tell(share=1.0)


def main(arguments: list[str]) -> int:
    """The child: `python -m gateway.gguf FILE FOLDER`. Exit code 1 where it failed, the reason as its last line."""
    pipe = _Pipe()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.tell(share=0.01)
    try:
        _write_folder(Path(arguments[0]), Path(arguments[1]), pipe)
    except ImportError as error:
        pipe.tell(error=f"{error}; install this project's extra `cpu` or `gpu`")
        return 1
    except Exception as error:
        pipe.tell(error=" ".join(f"{type(error).__name__}: {error}".split())[:500])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
