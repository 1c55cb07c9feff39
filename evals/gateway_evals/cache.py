"""Answers that were given before, in one SQLite file: looked up by what was asked of which weights, never by a name.

The key is a digest over the model's weights, its adapter's, engine, data type and chat template, the endpoint, the
whole request (its seed too) and our version. A model whose gateway tells no digest is never answered from here.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway_evals.errors import EvaluationError

IDENTITY = ("digest", "adapter", "backend", "dtype", "template_digest")
"""What of a model's facts decides its answers."""


def default_path() -> Path:
    from gateway.cache import cache_root

    return cache_root() / "evals" / "answers.sqlite"


class AnswerCache:
    """Small reads and writes to a local file: quick enough for the event loop. To be closed."""

    def __init__(self, path: Path) -> None:
        """Raises EvaluationError where the file cannot be used."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = sqlite3.connect(path, timeout=10, isolation_level=None)
            # Answers may hold what prompts held: for their owner alone.
            path.chmod(0o600)
            for statement in (
                "PRAGMA journal_mode=WAL",
                "PRAGMA synchronous=NORMAL",
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID",
            ):
                self._connection.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise EvaluationError(f"the cache {path} cannot be used ({error}): name another, or --no-cache") from error

    def close(self) -> None:
        self._connection.close()

    def get(self, key: str) -> dict[str, Any] | None:
        row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, answer: Mapping[str, Any]) -> None:
        text = json.dumps(answer, ensure_ascii=False, default=str)
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, text))
        except sqlite3.OperationalError as error:
            raise EvaluationError(
                f"the cache {self.path} cannot be written ({error}): --no-cache does without"
            ) from error


def cache_key(identity: Mapping[str, Any] | None, path: str, payload: Mapping[str, Any]) -> str | None:
    """None where nothing may be kept: weights that are not known by digest, or sampling without a seed."""
    if not identity or not identity.get("digest"):
        return None
    if payload.get("temperature") and payload.get("seed") is None:
        return None
    asked = {name: value for name, value in payload.items() if name not in ("model", "stream", "stream_options")}
    told = [__version__, {name: identity.get(name) for name in (*IDENTITY, "base")}, path, asked]
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
