"""Runs as child processes, each with a folder that outlives both it and this app. Knows no HTTP and no metric.

A run's folder: `request.json` (what was asked; never a key), `progress.json`, `output.json` and `errors.txt` (what the
process said), `results/`, `outcome.json` once it is over, and `lock`, held by the process as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from gateway.errors import Conflict, NotFound, TooManyRequests

State = Literal["running", "done", "failed", "cancelled", "interrupted"]
"""interrupted: the app or the machine went away before the run was over; its journal has what was finished."""

_POLL_S = 0.2
_KILL_AFTER_S = 10.0
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What is asked of a run."""

    suite: str
    models: tuple[str, ...]
    limit: float | None = None
    created: float = 0.0
    """Seconds since 1970."""


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    watch: asyncio.Task[None] | None = None
    cancelled: bool = False

    def end(self) -> None:
        """Closes what the process waits for the end of."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


class Runs:
    """All runs of a folder, and those of them that this object started. For one event loop."""

    def __init__(self, folder: Path, base_url: str, *, most: int, concurrency: int) -> None:
        self._folder = folder
        self._base_url = base_url
        self._most = most
        self._concurrency = concurrency
        self._children: dict[str, _Child] = {}

    def start(self, suite: Path, request: RunRequest, key: str | None) -> str:
        """Start a run of the suite's file; its id. Raises TooManyRequests where enough are under way."""
        if len(self._children) >= self._most:
            running = ", ".join(sorted(self._children))
            raise TooManyRequests(
                f"{len(self._children)} evaluations are under way ({running}): wait for one to end, or cancel it",
                retry_after_s=10,
            )
        now = datetime.now(UTC)
        run_id = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
        folder = self._folder / run_id
        folder.mkdir(parents=True)
        _write(folder / "request.json", {**asdict(request), "created": now.timestamp()})
        child = self._children[run_id] = _Child(self._spawn(folder, suite, request, key))
        child.watch = asyncio.create_task(self._watch(run_id, child))
        return run_id

    def _spawn(self, folder: Path, suite: Path, request: RunRequest, key: str | None) -> subprocess.Popen[bytes]:
        command = [
            *(sys.executable, "-m", "gateway_evals.server.child", "run", str(suite)),
            *(f"--model={model}" for model in request.models),
            f"--base-url={self._base_url}",
            f"--output={folder / 'results'}",
            f"--concurrency={self._concurrency}",
            f"--progress-file={folder / 'progress.json'}",
            "--json",
            *([] if request.limit is None else [f"--limit={request.limit:g}"]),
        ]
        environment = {
            name: value for name, value in os.environ.items() if name not in ("GATEWAY_API_KEYS", "GATEWAY_URL")
        }
        # In the environment, which its owner alone can read: a command line is everybody's.
        environment["GATEWAY_API_KEY"] = key or ""
        with (
            (folder / "lock").open("w") as lock,
            (folder / "output.json").open("wb") as output,
            (folder / "errors.txt").open("wb") as errors,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            return subprocess.Popen(  # noqa: S603 (no shell)
                command, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment, pass_fds=[lock.fileno()]
            )

    async def _watch(self, run_id: str, child: _Child) -> None:
        try:
            # Looked at, not waited for: a thread that waits would keep an app that goes away from going.
            while (code := child.process.poll()) is None:  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)
            state: State = "cancelled" if child.cancelled else "done" if code in (0, 1) else "failed"
            outcome = {"state": state, "exit_code": code, "ended": datetime.now(UTC).timestamp()}
            _write(self._folder / run_id / "outcome.json", outcome)
        finally:
            child.end()
            del self._children[run_id]

    async def cancel(self, run_id: str) -> None:
        """End a run and wait until it has ended. Raises NotFound; Conflict for one that is over or is another's."""
        child = self._children.get(run_id)
        if child is None or child.watch is None:
            state = self.view(run_id)["state"]
            if state == "cancelled":
                return
            raise Conflict(
                f"the run {run_id} was started by another gateway: cancel it there"
                if state == "running"
                else f"the run {run_id} is over ({state}): there is nothing to cancel"
            )
        child.cancelled = True
        await self._end([child])

    async def close(self) -> None:
        """End what is under way, without an outcome: it was interrupted."""
        children = list(self._children.values())
        for child in children:
            if child.watch is not None:
                child.watch.cancel()
        await self._end(children)

    async def _end(self, children: list[_Child]) -> None:
        for child in children:
            child.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_AFTER_S):
                while any(child.process.poll() is None for child in children):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S / 4)
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()
        await asyncio.gather(*(child.watch for child in children if child.watch is not None), return_exceptions=True)

    def folder(self, run_id: str) -> Path:
        """Raises NotFound. Nothing but an id of ours becomes part of a path."""
        folder = self._folder / run_id
        if not _ID.fullmatch(run_id) or not (folder / "request.json").is_file():
            raise NotFound(f"no run {run_id[:100]!r}")
        return folder

    def views(self, most: int) -> list[dict[str, Any]]:
        """The newest first, without their results. Blocks."""
        if not self._folder.is_dir():
            return []
        names = sorted((path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name)), reverse=True)
        found = [name for name in names if (self._folder / name / "request.json").is_file()]
        return [self.view(name) for name in found[:most]]

    def view(self, run_id: str, *, results: bool = False) -> dict[str, Any]:
        """What is known of a run: `results` adds the figures of one that is done. Blocks."""
        folder = self.folder(run_id)
        asked, progress = _read(folder / "request.json"), _read(folder / "progress.json")
        outcome = _read(folder / "outcome.json")
        state: State = outcome.get("state") or ("running" if self._lives(run_id) else "interrupted")
        if state == "interrupted" and (told := _read(folder / "outcome.json")):
            outcome, state = told, told["state"]  # it ended between the two looks
        said = _read(folder / "output.json") if state in ("done", "failed") else {}
        view: dict[str, Any] = {
            "id": run_id,
            "state": state,
            "suite": asked.get("suite"),
            "models": asked.get("models"),
            "limit": asked.get("limit"),
            "created": asked.get("created"),
            "ended": outcome.get("ended"),
            "done": progress.get("done", 0),
            "failed": progress.get("failed", 0),
            "total": progress.get("total"),
            "eta_s": progress.get("eta_s") if state == "running" else None,
            "errors": (said.get("errors") or _last_lines(folder / "errors.txt")) if state == "failed" else [],
        }
        if results:
            view["progress"] = progress.get("models", {})
            view["results"] = said.get("models") if state == "done" else None
        return view

    def _lives(self, run_id: str) -> bool:
        if run_id in self._children:
            return True
        try:
            with (self._folder / run_id / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False


def _write(path: Path, value: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(value), encoding="utf-8")
    part.replace(path)


def _read(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none yet, or no whole one."""
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _last_lines(path: Path, most: int = 5) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line[:500] for line in text.splitlines() if line.strip()][-most:]
