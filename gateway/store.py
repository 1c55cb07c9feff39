"""What outlives a request: one SQL database by SQLAlchemy. Knows the connection alone: each room that
keeps something declares its own tables on `METADATA`.

Calls are synchronous underneath and run in threads, so that any driver SQLAlchemy knows may be configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)

from gateway.errors import ConfigError

METADATA = sql.MetaData()

T = TypeVar("T")


class Store:
    """A database that several processes may share. Made cheaply; the first `run` connects and creates the tables."""

    def __init__(self, url: str) -> None:
        """`url` as SQLAlchemy writes them. Raises ConfigError, without repeating it (it may hold a password)."""
        try:
            self._url = sql.make_url(url)
            self._engine = sql.create_engine(self._url, pool_pre_ping=True)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            reason = "its driver is not installed" if isinstance(error, ImportError) else "SQLAlchemy knows no such URL"
            raise ConfigError(f"server.store: {reason}") from None
        self._opening = asyncio.Lock()
        self._tables = -1
        """How many tables were known when they were last created: each is declared when it is first needed."""

    async def run(self, work: Callable[[sql.Connection], T]) -> T:
        """Do `work` in one transaction, in a thread. Raises ConfigError where the database cannot be opened.

        Whoever is cancelled meanwhile ends when the transaction has: nothing is written behind anybody's back.
        """
        if self._tables != len(METADATA.tables):
            async with self._opening:
                known = len(METADATA.tables)
                if self._tables != known:
                    await asyncio.to_thread(self._create)
                    self._tables = known
        begun = asyncio.ensure_future(asyncio.to_thread(self._run, work))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            # A thread cannot be cancelled.
            await asyncio.gather(begun, return_exceptions=True)
            raise

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.dispose)

    def _run(self, work: Callable[[sql.Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)

    def _create(self) -> None:
        try:
            if self._url.get_backend_name() == "sqlite" and self._tables < 0:
                event.listen(self._engine, "connect", _share)
                if self._url.database not in (None, "", ":memory:"):
                    folder = Path(self._url.database).absolute().parent
                    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in reversed(range(10)):
                try:
                    METADATA.create_all(self._engine)
                    break
                except (OperationalError, ProgrammingError, IntegrityError):
                    # Another process made a table between our look and our making it: now it is there.
                    if left == 0:
                        raise
        except (OSError, SQLAlchemyError) as error:
            # SQLAlchemy's text may quote the URL.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ConfigError(f"the store {self._url.render_as_string(hide_password=True)}: {reason}") from error


def _share(connection: Any, _: object) -> None:
    """SQLite as several processes can use it at once: readers beside one writer, and patience."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
