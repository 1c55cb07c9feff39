"""Processes beside the gateway: started, waited for until they say `ready`, ended whole; and what their memory is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager

import psutil


@contextmanager
def running(*arguments: str, within_s: float = 180) -> Generator[psutil.Process]:
    """`python -m <arguments>` until the block ends. Raises RuntimeError with its output where it is not ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={name: value for name, value in os.environ.items() if name != "GATEWAY_API_KEYS"},
    )  # fmt: skip
    lines: list[str] = []
    answered = threading.Event()

    def read() -> None:
        for line in process.stdout or ():
            lines.append(line)
            if line.strip() == "ready":
                answered.set()
        answered.set()

    threading.Thread(target=read, daemon=True).start()
    whole = psutil.Process(process.pid)
    try:
        if not answered.wait(within_s) or process.poll() is not None:
            raise RuntimeError(f"{arguments[0]} did not become ready:\n{''.join(lines)[-3000:]}")
        yield whole
    finally:
        _end(process, whole)


def _end(process: subprocess.Popen[str], whole: psutil.Process) -> None:
    children = whole.children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(25)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=2)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=2)


def pss_mb(process: psutil.Process) -> float:
    """Proportional set size in MB: pages that are shared count by their share (Linux)."""
    return process.memory_full_info().pss / 1e6


def named(processes: list[psutil.Process], *words: str) -> list[psutil.Process]:
    """Those whose command line (Ray puts the deployment's name there) holds all the words."""
    found: list[psutil.Process] = []
    for process in processes:
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        if all(word in line for word in words):
            found.append(process)
    return found
