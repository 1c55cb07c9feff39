"""What surrounds vLLM while it starts: environment variables, child processes, logs. The only room that touches
`os.environ` and `multiprocessing`, since vLLM takes these settings from there and from nowhere else."""

from __future__ import annotations

import json
import multiprocessing.resource_tracker
import multiprocessing.spawn
import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""No usage data is sent and no hub is asked: read by vLLM and Hugging Face at import and later, so it stays."""

_ERROR_LINE = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt|Exit): ")


def silence() -> None:
    """Set what must be set before vLLM is imported. What somebody has chosen for himself is left as it is."""
    os.environ.update(ALWAYS)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # vLLM refuses a fifth stop string with the default of 4: clients send more.
    os.environ.setdefault("VLLM_MAX_STOP_STRINGS", "64")


def compute_threads(wanted: int | None) -> int:
    """How many threads an engine computes with: what the config says, else every core this process may use."""
    return wanted or len(os.sched_getaffinity(0))


def engine_environment(*, threads: int, cpu: bool, eager: bool, scratch: Path, compiled: Path) -> dict[str, str]:
    """What the engine's processes need in their environment beyond the Reaper's mark.

    `scratch`: a folder that ends with the engine. `compiled`: one that stays, for kernels that torch compiled.
    """
    settings = {
        # A forked engine would carry no mark, and forking a process with threads is unsafe anyway.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_RPC_BASE_PATH": str(scratch),
        "VLLM_LOGGING_CONFIG_PATH": str(_logging_config(scratch)),
        "TORCHINDUCTOR_CACHE_DIR": str(compiled),
    }
    if cpu:
        settings |= {
            # Engines share the machine's cores, so none may be nailed to a core: N threads, wherever there is room.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(threads),
            # Where one worker is enough, it computes inside the engine's process instead of a second one behind
            # shared memory: a third faster on two cores, 0.4 GB less, and 5 s less to start.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }
        if eager:
            # Even then vLLM compiles a few small functions when first used: the first request for logprobs would make
            # all others wait 9 s on two cores.
            settings["TORCH_COMPILE_DISABLE"] = "1"
    return settings


@contextmanager
def environment(settings: Mapping[str, str]) -> Generator[None]:
    """Set these variables for a while. Children started inside inherit them; afterwards all is as it was.

    vLLM adds libraries to LD_PRELOAD for its own children: that is undone as well.
    """
    names = {*settings, "LD_PRELOAD"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def own_children() -> Generator[None]:
    """Let spawned processes import `gateway_vllm.engine_process` instead of this process's main module: in a replica
    that would be all of Ray, in somebody's script the whole script again."""
    # The tracker outlives every engine of this process, so it must be running before anything is marked.
    multiprocessing.resource_tracker.ensure_running()
    whole = multiprocessing.spawn.get_preparation_data

    def own(name: str) -> dict[str, Any]:
        data = {key: value for key, value in whole(name).items() if not key.startswith("init_main_from")}
        return {**data, "init_main_from_name": "gateway_vllm.engine_process"}

    multiprocessing.spawn.get_preparation_data = own
    try:
        yield
    finally:
        multiprocessing.spawn.get_preparation_data = whole


def _logging_config(scratch: Path) -> Path:
    """A logging config for the engine's processes: as quiet as here, and errors also in a file to be read back."""
    level = os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "vllm %(processName)s %(levelname)s %(asctime)s %(message)s"}},
        "handlers": {
            "stream": {"class": "logging.StreamHandler", "formatter": "plain"},
            "file": {
                "class": "logging.FileHandler",
                "filename": str(scratch / "errors.log"),
                "formatter": "plain",
                "level": "ERROR",
                "delay": True,
            },
        },
        "loggers": {"vllm": {"handlers": ["stream", "file"], "level": level, "propagate": False}},
    }
    path = scratch / "logging.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


def root_cause(scratch: Path) -> str | None:
    """The first error that an engine's process wrote down before it died, on one line; None where there is none.

    The processes tell their parent only that they failed. The first is the cause, later ones follow from it.
    """
    try:
        lines = (scratch / "errors.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        if _ERROR_LINE.match(line):
            return line.strip()
    return None
