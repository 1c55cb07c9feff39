"""Ends an engine's processes with the process that started them, whatever ends that one: stop, error, SIGTERM, SIGKILL.

A tiny process of its own waits for the owner's death, then kills everything that carries the owner's mark in its
environment and removes the scratch folder. Knows nothing of engines; standard library only, since it also runs alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

MARK = "GATEWAY_ENGINE_MARK"
"""Environment variable that an engine's processes inherit from each other; its value is one Reaper's."""

_ROUNDS_WITHOUT = 3
"""Scans that must find nobody before the job is done: a process may be born while one looks."""


class Reaper:
    """Owns a mark and a scratch folder. Whatever is started with `environment()` lives no longer than this process."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        self.scratch = Path()
        """Folder for sockets and files of the engine: gone when the engine is; only after `start`."""
        self._watcher = -1

    def start(self) -> None:
        """Make the scratch folder and start watching. Raises OSError where the system cannot (Linux 5.3 is needed)."""
        self.scratch = Path(tempfile.mkdtemp(prefix="gateway-engine-"))
        try:
            # The watcher leaves this process's session and children: what kills the group or all children must not
            # take it along. It says its pid once it watches.
            command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), self.mark, str(self.scratch)]
            launched = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)  # noqa: S603
            if launched.returncode != 0:
                raise OSError(f"the watcher of engine processes did not start: {launched.stderr.decode().strip()}")
            self._watcher = os.pidfd_open(int(launched.stdout))
        except BaseException:
            shutil.rmtree(self.scratch, ignore_errors=True)
            raise

    def environment(self) -> dict[str, str]:
        """What an engine's processes must find in their environment."""
        return {
            MARK: self.mark,
            "TMPDIR": str(self.scratch),
            # A process that sets its title otherwise overwrites what /proc tells of its environment, the mark included.
            "SPT_NOENV": "1",
        }

    def reap(self) -> None:
        """Kill every process that carries the mark and wait until none is left."""
        reap(self.mark)

    def close(self) -> None:
        """Kill what is left, remove the scratch folder, end the watcher. May be called twice, or before `start`."""
        self.reap()
        if self._watcher >= 0:
            shutil.rmtree(self.scratch, ignore_errors=True)
            # Where somebody ended it before, there is nothing left for it to do.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._watcher, signal.SIGTERM)
            os.close(self._watcher)
            self._watcher = -1


def marked(mark: str) -> list[int]:
    """Pids of the living processes whose environment carries this mark."""
    wanted = f"{MARK}={mark}".encode()
    found: list[int] = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 (this runs while things must end: the cheapest way)
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:  # noqa: PTH123
                environment = file.read()
        except OSError:
            continue  # It has just ended, or belongs to somebody else.
        if wanted in environment.split(b"\0"):
            found.append(int(entry))
    return found


def reap(mark: str, patience_s: float = 30.0) -> None:
    """Kill all that carry this mark. Raises TimeoutError where one survives SIGKILL for so long (a stuck kernel)."""
    deadline = time.monotonic() + patience_s
    rounds_without = 0
    while rounds_without < _ROUNDS_WITHOUT:
        found = marked(mark)
        rounds_without = 0 if found else rounds_without + 1
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {found} do not die")
        time.sleep(0.02)


def _watch(owner: int, mark: str, scratch: str) -> None:
    if os.getppid() != owner:
        return  # It died before we could look; it had nothing started yet.
    death = os.pidfd_open(owner)
    child = os.fork()
    if child:
        sys.stdout.write(str(child))
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    poller = select.poll()
    poller.register(death, select.POLLIN)
    poller.poll()
    reap(mark)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3])
