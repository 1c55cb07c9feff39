"""Real servers for the harness: the echo backend under uvicorn, and suites that are written on the spot."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway_echo.backend import EchoBackend


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The app under uvicorn on a free port of this machine; its address."""
    # It listens from the start: whoever asks before the server runs waits, and is not refused.
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Starts apps; ends them with the test."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


def echo_app(name: str = "echo", **options: Any) -> Any:
    return EchoBackend(BackendContext(name, ModelSpec(backend="echo", options=options), None)).app


@pytest.fixture(scope="session")
def echo_url() -> Iterator[str]:
    """One echo backend for all tests that change nothing in it. Its only model is `echo`."""
    with serving(echo_app()) as url:
        yield url


@pytest.fixture
def suite_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a suite (as YAML, which JSON is) and its data files; returns the suite's path."""

    def write(*tasks: dict[str, Any], rows: dict[str, list[dict[str, Any]]]) -> Path:
        for name, lines in rows.items():
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        path = tmp_path / "suite.yaml"
        path.write_text(json.dumps({"suite": "tried", "tasks": list(tasks)}), encoding="utf-8")
        return path

    return write


def generation(name: str = "repeat", **changes: Any) -> dict[str, Any]:
    """A task that the echo backend solves: its answer to a chat message is the message."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": f"{name}.jsonl"},
        "doc_to_text": "text",
        "doc_to_target": "target",
        "apply_chat_template": True,
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32},
        **changes,
    }
