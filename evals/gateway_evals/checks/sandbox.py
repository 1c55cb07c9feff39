"""Runs a program that nobody trusts: a process of its own, with limits, an empty environment and no network.

It is a fence against accidents and clumsy attacks, not against somebody who knows a hole in the kernel: run suites of
code in a container or a machine that you can throw away.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

LONGEST_MESSAGE = 500
FILE_BYTES = 1 << 20


class Sandbox:
    """Limits for one program: seconds (of work, and twice as many on the clock) and memory."""

    def __init__(self, seconds: float = 5.0, memory_mb: int = 512) -> None:
        self._seconds = seconds
        self._memory = memory_mb << 20

    async def run(self, code: str) -> str:
        """ "" where the program ended well, else why not, in one line."""
        with tempfile.TemporaryDirectory(prefix="gateway-code-") as folder:
            path = Path(folder) / "program.py"
            path.write_text(code, encoding="utf-8")
            process = await asyncio.create_subprocess_exec(
                *isolation(),
                sys.executable, "-I", "-S", "-B", str(path),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"},
                preexec_fn=self._limit, start_new_session=True,
            )  # fmt: skip
            try:
                error = await asyncio.wait_for(_tail(process), 2 * self._seconds + 1)
            except TimeoutError:
                return f"took longer than {2 * self._seconds + 1:g} s"
            finally:
                # The whole session: what the program started must not outlive it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            if process.returncode == 0:
                return ""
            # `unshare` complains where it cannot end by the signal that ended its child.
            if process.returncode in {-signal.SIGXCPU, -signal.SIGKILL} or b"unshare: " in error[-200:]:
                return f"used more than {self._seconds:g} s of work"
            lines = error.decode(errors="replace").strip().splitlines()
            return (lines[-1] if lines else f"ended with {process.returncode}")[:LONGEST_MESSAGE] or "failed"

    def _limit(self) -> None:
        """In the child, before the program."""
        seconds = max(1, round(self._seconds))
        for what, most in (
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_AS, self._memory),
            (resource.RLIMIT_FSIZE, FILE_BYTES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NOFILE, 64),
        ):
            resource.setrlimit(what, (most, most))


@functools.cache
def isolation() -> tuple[str, ...]:
    """The command that takes network and other processes away, or nothing where this machine does not let us."""
    tool = shutil.which("unshare")
    if tool is None:
        return ()
    own = ("--user", "--map-root-user", "--net")
    for flags in ((*own, "--pid", "--fork", "--kill-child"), own, ("--net",)):
        command = (tool, *flags)
        done = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False)  # noqa: S603
        if done.returncode == 0:
            return command
    return ()


async def _tail(process: asyncio.subprocess.Process) -> bytes:
    """The end of what it complained; all of it is read, so that it cannot hang on a full pipe."""
    kept = b""
    if process.stderr is not None:
        while part := await process.stderr.read(4096):
            kept = (kept + part)[-4096:]
    await process.wait()
    return kept
