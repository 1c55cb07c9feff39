"""A real `gateway serve` in a process of its own, started and ended by tests, with nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from gateway.serve.settings import free_ports

GATEWAY = [sys.executable, "-m", "gateway"]


def free_port() -> int:
    return free_ports(1)[0]


def run(
    *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """A `gateway` command to its end."""
    return subprocess.run(
        [*GATEWAY, *arguments], capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}
    )


@dataclass
class Gateway:
    """One that runs."""

    process: subprocess.Popen[str]
    port: int
    config: Path
    lines: list[str] = field(default_factory=list)
    """Everything it has printed."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "".join(self.lines)

    @property
    def seconds(self) -> float:
        """What it says of how long it took."""
        found = re.search(r"Ready after (\d+) s", self.output)
        if found is None:
            raise AssertionError(f"not ready:\n{self.output}")
        return float(found[1])

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def commands(self) -> dict[psutil.Process, list[str]]:
        """Command lines of what runs below it. Workers that Ray starts in advance come and go meanwhile."""
        found: dict[psutil.Process, list[str]] = {}
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):
                found[process] = process.cmdline()
        return found

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it with a signal. Returns the seconds it took; raises if anything that it started is left."""
        children = self.descendants()
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        took = time.monotonic() - began
        _, alive = psutil.wait_procs(children, timeout=1)
        left: list[str] = []
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(" ".join(process.cmdline()))
                process.kill()
        if left:
            raise AssertionError(f"left behind: {left}")
        return took


@contextmanager
def serving(
    config: Path,
    port: int,
    env: Mapping[str, str] | None = None,
    within_s: float = 240,
    command: Sequence[str] = GATEWAY,
    cwd: Path | None = None,
) -> Iterator[Gateway]:
    """Serve a config until the block ends."""
    process = subprocess.Popen(
        [*command, "serve", str(config), "--port", str(port)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    gateway = Gateway(process, port, config)
    ready = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            gateway.lines.append(line)
            if line.startswith("curl "):
                ready.set()
        ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        if not ready.wait(within_s) or process.poll() is not None:
            raise AssertionError(f"the gateway did not become ready:\n{gateway.output}")
        yield gateway
    finally:
        if process.poll() is None:
            gateway.stop()
