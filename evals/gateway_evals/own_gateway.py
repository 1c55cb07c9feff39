"""A gateway of one's own for a while: some models of a config, in a process that ends with the block."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway import config as configs
from gateway.errors import ConfigError
from gateway_evals.errors import EvaluationError

ENDS_WITHIN_S = 60.0


def part_of(path: Path, models: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The config with these models alone (all where none is named), for this machine: no routes, apps or keys. And
    their names. Raises ConfigError."""
    whole = configs.load(path)
    names = list(dict.fromkeys(models)) or list(whole.models)
    unknown = [name for name in names if name not in whole.models]
    if unknown:
        raise ConfigError(f"{path}: no model {', '.join(unknown)}; models: {', '.join(whole.models)}")
    # As it was read, not as it was checked: what pydantic fills in need not be what the file's next reader takes.
    written = {name: configs.read(path)["models"][name] for name in names}
    return {"server": {"host": "127.0.0.1"}, "models": written}, names


@asynccontextmanager
async def own_gateway(config: dict[str, Any]) -> AsyncGenerator[str]:
    """Serve it on a free port until the block ends; its address. Raises EvaluationError with what the gateway said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gateway-advise-") as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(config | {"server": config["server"] | {"port": port}}), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", str(file),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            # It listens on this machine alone and needs no key; one would shut its own evaluation out.
            env={name: value for name, value in os.environ.items() if name != "GATEWAY_API_KEYS"},
            preexec_fn=end_with_parent,
        )  # fmt: skip
        drained: asyncio.Task[None] | None = None
        try:
            drained = await _ready(process)
            yield f"http://127.0.0.1:{port}"
        finally:
            await _end(process)
            if drained is not None:
                await drained


def end_with_parent() -> None:
    """In a child, before its program: whatever ends the parent, also SIGKILL, sends it SIGTERM (Linux: prctl(2))."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


async def _ready(process: asyncio.subprocess.Process) -> asyncio.Task[None]:
    """Wait until it says so; gives what reads the rest, so that it never waits for a reader."""
    said: deque[str] = deque(maxlen=20)
    stream = process.stdout
    while stream is not None and (line := await stream.readline()):
        text = line.decode(errors="replace").strip()
        if "Ready after" in text:
            return asyncio.create_task(_drain(stream))
        if text:
            said.append(text)
    errors = [line for line in said if line.startswith("error:")] or list(said)
    raise EvaluationError("the gateway did not start:\n" + "\n".join(errors))


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65536):
        pass


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(ENDS_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
