"""The batches that are kept, with each of their requests and its answer: two tables of the gateway's store.

Several gateways may work on one store: whoever works on a batch holds a lease on it, and one that is not renewed is
anybody's. Every transaction that writes begins with its write, so that SQLite has it wait its turn.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sql

from gateway.batches.files import FILES, OUTPUT, listed, new_file, next_number
from gateway.batches.lines import Line
from gateway.errors import NotFound
from gateway.store import METADATA, Store

LEASE_S = 15.0
"""A batch that nobody has touched for so long belongs to a gateway that is gone."""
WINDOW_S = 24 * 3600
RUNNING = ("in_progress", "cancelling")
MAX_PAGE = 100

_TIMES = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at",
)  # fmt: skip

BATCHES = sql.Table(
    "batches",
    METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("key_id", sql.String(64), nullable=False),
    sql.Column("number", sql.BigInteger, nullable=False, index=True),
    sql.Column("status", sql.String(16), nullable=False, index=True),
    sql.Column("endpoint", sql.String(64), nullable=False),
    sql.Column("input_file_id", sql.String(64), nullable=False),
    sql.Column("output_file_id", sql.String(64)),
    sql.Column("error_file_id", sql.String(64)),
    sql.Column("created_at", sql.Integer, nullable=False),
    sql.Column("expires_at", sql.Integer, nullable=False),
    *(sql.Column(name, sql.Integer) for name in _TIMES),
    sql.Column("total", sql.Integer, nullable=False),
    sql.Column("errors", sql.LargeBinary, nullable=False),
    sql.Column("metadata", sql.LargeBinary, nullable=False),
    sql.Column("owner", sql.String(64)),
    sql.Column("lease_until", sql.Float, nullable=False),
)
LINES = sql.Table(
    "batch_lines",
    METADATA,
    sql.Column("batch_id", sql.String(64), primary_key=True),
    sql.Column("line", sql.Integer, primary_key=True),
    sql.Column("custom_id", sql.String(512), nullable=False),
    sql.Column("body", sql.LargeBinary(2**31 - 1), nullable=False),
    sql.Column("request_id", sql.String(64)),
    sql.Column("status", sql.Integer),
    sql.Column("answer", sql.LargeBinary(2**31 - 1)),
)
_encode = msgspec.json.Encoder().encode


class Job(NamedTuple):
    """A batch to work on."""

    id: str
    key_id: str
    endpoint: str
    expires_at: int


class Desk:
    """Whoever handed in a batch, and nobody else, sees and cancels it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(
        self, key_id: str, endpoint: str, file_id: str, metadata: Mapping[str, str], lines: list[Line],
        errors: list[dict[str, Any]],
    ) -> dict[str, Any]:  # fmt: skip
        """Keep a new batch, which has failed already where its input has errors."""
        now = int(time.time())
        empty: dict[str, Any] = {column.name: None for column in BATCHES.c}
        row = empty | {
            "id": f"batch_{secrets.token_hex(12)}", "key_id": key_id, "number": next_number(), "endpoint": endpoint,
            "input_file_id": file_id, "created_at": now, "expires_at": now + WINDOW_S, "total": 0, "lease_until": 0.0,
            "errors": _encode(errors), "metadata": _encode(metadata),
        }  # fmt: skip
        if errors:
            row |= {"status": "failed", "failed_at": now}
        else:
            row |= {"status": "in_progress", "in_progress_at": now, "total": len(lines)}
        asked = [
            {"batch_id": row["id"], "line": number, "custom_id": line.custom_id, "body": line.body}
            for number, line in enumerate(lines)
        ]

        def write(connection: sql.Connection) -> None:
            connection.execute(sql.insert(BATCHES).values(row))
            if not errors:
                connection.execute(sql.insert(LINES), asked)

        await self._store.run(write)
        return _told(row, {})

    async def get(self, key_id: str, batch_id: str) -> dict[str, Any]:
        """A batch as OpenAI tells it. Raises NotFound."""

        def read(connection: sql.Connection) -> dict[str, Any]:
            query = sql.select(BATCHES).where(BATCHES.c.id == batch_id, BATCHES.c.key_id == key_id)
            row = connection.execute(query).mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no batch {batch_id[:64]!r}", param="batch_id")
            return _told(dict(row), _counts(connection, [batch_id])[batch_id])

        return await self._store.run(read)

    async def page(self, key_id: str, *, limit: int, after: str | None) -> Any:
        """A page of the list, the newest first."""
        query = sql.select(BATCHES).where(BATCHES.c.key_id == key_id)
        page = await listed(self._store, BATCHES, query, limit, after, dict)
        ids = [row["id"] for row in page["data"]]
        counts = await self._store.run(lambda connection: _counts(connection, ids))
        return {**page, "data": [_told(row, counts[row["id"]]) for row in page["data"]]}

    async def cancel(self, key_id: str, batch_id: str) -> dict[str, Any]:
        """Ask for a batch's end; one that has ended stays as it is. Raises NotFound."""
        change = (
            sql.update(BATCHES)
            .where(BATCHES.c.id == batch_id, BATCHES.c.key_id == key_id, BATCHES.c.status == "in_progress")
            .values(status="cancelling", cancelling_at=int(time.time()))
        )
        await self._store.run(lambda connection: connection.execute(change))
        return await self.get(key_id, batch_id)

    async def claim(self, owner: str) -> Job | None:
        """The oldest batch that is to be worked on and that nobody works on, from here on this owner's."""
        now = time.time()
        columns = [BATCHES.c[name] for name in (*Job._fields, "lease_until")]
        query = (
            sql.select(*columns)
            .where(BATCHES.c.status.in_(RUNNING), BATCHES.c.lease_until < now)
            .order_by(BATCHES.c.number)
            .limit(1)
        )
        found = await self._store.run(lambda connection: connection.execute(query).one_or_none())
        if found is None:
            return None
        change = (
            sql.update(BATCHES)
            .where(BATCHES.c.id == found.id, BATCHES.c.lease_until == found.lease_until)
            .values(owner=owner, lease_until=now + LEASE_S)
        )
        if await self._store.run(lambda connection: connection.execute(change).rowcount) != 1:
            return None
        return Job(found.id, found.key_id, found.endpoint, found.expires_at)

    async def renew(self, batch_id: str, owner: str) -> str | None:
        """Go on holding a batch. Its status; None where it is another's by now."""
        change = _held(batch_id, owner).values(lease_until=time.time() + LEASE_S)
        status = sql.select(BATCHES.c.status).where(BATCHES.c.id == batch_id)

        def write(connection: sql.Connection) -> str | None:
            return connection.execute(status).scalar_one() if connection.execute(change).rowcount == 1 else None

        return await self._store.run(write)

    async def give_back(self, batch_id: str, owner: str) -> None:
        """Leave a batch to whoever claims it next."""
        change = _held(batch_id, owner).values(lease_until=0.0)
        await self._store.run(lambda connection: connection.execute(change))

    async def unanswered(self, batch_id: str) -> list[int]:
        """Numbers of the lines that have no answer yet, in order."""
        query = sql.select(LINES.c.line).where(LINES.c.batch_id == batch_id, LINES.c.status.is_(None))
        return await self._store.run(
            lambda connection: list(connection.execute(query.order_by(LINES.c.line)).scalars())
        )

    async def body(self, batch_id: str, line: int) -> bytes:
        """What one line asks."""
        query = sql.select(LINES.c.body).where(LINES.c.batch_id == batch_id, LINES.c.line == line)
        return await self._store.run(lambda connection: connection.execute(query).scalar_one())

    async def answer(self, batch_id: str, line: int, request_id: str, status: int, answer: bytes) -> None:
        """Keep one line's answer."""
        change = (
            sql.update(LINES)
            .where(LINES.c.batch_id == batch_id, LINES.c.line == line)
            .values(request_id=request_id, status=status, answer=answer)
        )
        await self._store.run(lambda connection: connection.execute(change))

    async def finish(self, batch_id: str, owner: str) -> None:
        """End a batch, unless it is another's by now: write its files, and say how it ended."""

        def write(connection: sql.Connection) -> None:
            if connection.execute(_held(batch_id, owner).values(lease_until=time.time() + LEASE_S)).rowcount != 1:
                return
            row = connection.execute(sql.select(BATCHES).where(BATCHES.c.id == batch_id)).mappings().one()
            cancelled = row["status"] == "cancelling"
            lines = sql.select(LINES).where(LINES.c.batch_id == batch_id).order_by(LINES.c.line)
            good, bad, late = bytearray(), bytearray(), False
            for line in connection.execute(lines).mappings():
                late = late or line["status"] is None
                (good if line["status"] is not None and line["status"] < 400 else bad).extend(
                    _line(line, "batch_cancelled" if cancelled else "batch_expired")
                )
            now = int(time.time())
            status = "cancelled" if cancelled else "expired" if late else "completed"
            end: dict[str, Any] = {"status": status, f"{status}_at": now, "finalizing_at": now, "lease_until": 0.0}
            for name, content in (("output", good), ("error", bad)):
                if content:
                    file = new_file(row["key_id"], f"{batch_id}_{name}.jsonl", OUTPUT, bytes(content))
                    connection.execute(sql.insert(FILES).values(file))
                    end[f"{name}_file_id"] = file["id"]
            connection.execute(sql.update(BATCHES).where(BATCHES.c.id == batch_id).values(end))

        await self._store.run(write)


def _held(batch_id: str, owner: str) -> sql.Update:
    return sql.update(BATCHES).where(BATCHES.c.id == batch_id, BATCHES.c.owner == owner, BATCHES.c.status.in_(RUNNING))


def _counts(connection: sql.Connection, batch_ids: list[str]) -> dict[str, dict[str, int]]:
    failed = sql.case((LINES.c.status >= 400, 1), else_=0)
    query = (
        sql.select(LINES.c.batch_id, sql.func.count(LINES.c.status), sql.func.sum(failed))
        .where(LINES.c.batch_id.in_(batch_ids))
        .group_by(LINES.c.batch_id)
    )
    counts: dict[str, dict[str, int]] = {batch_id: {} for batch_id in batch_ids}
    for batch_id, answered, failures in connection.execute(query):
        counts[batch_id] = {"completed": answered - int(failures), "failed": int(failures)}
    return counts


def _line(line: sql.RowMapping, ended: str) -> bytes:
    """One line of an output file."""
    answered = line["status"] is not None
    response = {
        "status_code": line["status"],
        "request_id": line["request_id"],
        "body": msgspec.Raw(line["answer"] or b""),
    }
    error = {"code": ended, "message": "This request was not answered before its batch ended"}
    told = {
        "id": line["request_id"] or f"batch_req_{line['batch_id'].removeprefix('batch_')}_{line['line']}",
        "custom_id": line["custom_id"],
        "response": response if answered else None,
        "error": None if answered else error,
    }
    return _encode(told) + b"\n"


def _told(row: Mapping[str, Any], counts: Mapping[str, int]) -> dict[str, Any]:
    """A batch as OpenAI tells it."""
    errors: Any = msgspec.json.decode(row["errors"])
    times = {name: row[name] for name in _TIMES}
    return {
        "id": row["id"],
        "object": "batch",
        "endpoint": row["endpoint"],
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": row["input_file_id"],
        "completion_window": "24h",
        "status": row["status"],
        "output_file_id": row["output_file_id"],
        "error_file_id": row["error_file_id"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        **times,
        "request_counts": {"total": row["total"], "completed": 0, "failed": 0, **counts},
        "metadata": msgspec.json.decode(row["metadata"]),
    }
