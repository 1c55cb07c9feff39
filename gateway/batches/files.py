"""The files that are kept: one table of the gateway's store, whole contents included."""

from __future__ import annotations

import secrets
import time
from typing import Any

import sqlalchemy as sql

from gateway.errors import InvalidRequest, NotFound, Unsupported
from gateway.store import METADATA, Store

PURPOSES = ("batch",)
"""What people may hand in files for."""
OUTPUT = "batch_output"
MAX_PAGE = 10_000

FILES = sql.Table(
    "files",
    METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("key_id", sql.String(64), nullable=False),
    sql.Column("filename", sql.String(256), nullable=False),
    sql.Column("purpose", sql.String(32), nullable=False),
    sql.Column("bytes", sql.Integer, nullable=False),
    sql.Column("created_at", sql.Integer, nullable=False),
    sql.Column("number", sql.BigInteger, nullable=False, index=True),
    sql.Column("content", sql.LargeBinary(2**31 - 1), nullable=False),
)
_DESCRIBED = [column for column in FILES.c if column.name != "content"]


class Files:
    """Whoever handed in a file, or the batch that made one, and nobody else, reads and deletes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, key_id: str, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        """Keep a new file. Raises InvalidRequest for one that nothing can be done with."""
        if purpose not in PURPOSES:
            raise Unsupported(f"`purpose` must be one of: {', '.join(PURPOSES)}", param="purpose")
        if not content.strip():
            raise InvalidRequest("the file is empty", param="file")
        row = new_file(key_id, filename[:256] or "file.jsonl", purpose, content)
        await self._store.run(lambda connection: connection.execute(sql.insert(FILES).values(row)))
        return told({name: value for name, value in row.items() if name != "content"})

    async def get(self, key_id: str, file_id: str) -> dict[str, Any]:
        """What is known of a file. Raises NotFound."""
        return told(await self._row(key_id, file_id, _DESCRIBED))

    async def content(self, key_id: str, file_id: str, *, param: str = "file_id") -> bytes:
        """A file's bytes. Raises NotFound."""
        return (await self._row(key_id, file_id, [FILES.c.content], param))["content"]

    async def page(self, key_id: str, *, purpose: str | None, limit: int, after: str | None, oldest: bool) -> Any:
        """A page of the list; the newest first unless `oldest`."""
        query = sql.select(*_DESCRIBED).where(FILES.c.key_id == key_id)
        if purpose is not None:
            query = query.where(FILES.c.purpose == purpose)
        return await listed(self._store, FILES, query, limit, after, told, oldest=oldest)

    async def delete(self, key_id: str, file_id: str) -> None:
        """Raises NotFound."""
        change = sql.delete(FILES).where(FILES.c.id == file_id, FILES.c.key_id == key_id)
        if await self._store.run(lambda connection: connection.execute(change).rowcount) != 1:
            raise _unknown(file_id, "file_id")

    async def _row(self, key_id: str, file_id: str, columns: list[Any], param: str = "file_id") -> dict[str, Any]:
        query = sql.select(*columns).where(FILES.c.id == file_id, FILES.c.key_id == key_id)
        row = await self._store.run(lambda connection: connection.execute(query).mappings().one_or_none())
        if row is None:
            raise _unknown(file_id, param)
        return dict(row)


def new_file(key_id: str, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
    """A row for `FILES`."""
    return {
        "id": f"file-{secrets.token_hex(12)}",
        "key_id": key_id,
        "filename": filename,
        "purpose": purpose,
        "bytes": len(content),
        "created_at": int(time.time()),
        "number": next_number(),
        "content": content,
    }


def next_number() -> int:
    """Orders what is made, also within a second: microseconds, as far as an SQL integer of 8 bytes goes."""
    return time.time_ns() // 1000


def told(row: dict[str, Any]) -> dict[str, Any]:
    """A file as OpenAI tells it."""
    return {
        "id": row["id"],
        "object": "file",
        "bytes": row["bytes"],
        "created_at": row["created_at"],
        "filename": row["filename"],
        "purpose": row["purpose"],
        "status": "processed",
        "expires_at": None,
    }


async def listed(
    store: Store, table: sql.Table, query: Any, limit: int, after: str | None, tell: Any, *, oldest: bool = False
) -> dict[str, Any]:
    """A page of rows as OpenAI lists them. Raises InvalidRequest where `after` is not on the list."""

    def read(connection: sql.Connection) -> list[dict[str, Any]]:
        wanted = query
        if after is not None:
            place = query.with_only_columns(table.c.number).where(table.c.id == after)
            number = connection.execute(place).scalar_one_or_none()
            if number is None:
                raise InvalidRequest("`after` is the id of nothing that is on this list", param="after")
            wanted = wanted.where(table.c.number > number if oldest else table.c.number < number)
        order = table.c.number.asc() if oldest else table.c.number.desc()
        return [dict(row) for row in connection.execute(wanted.order_by(order).limit(limit + 1)).mappings()]

    rows = await store.run(read)
    data = [tell(row) for row in rows[:limit]]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(rows) > limit,
    }


def _unknown(file_id: str, param: str) -> NotFound:
    return NotFound(f"there is no file {file_id[:64]!r}", param=param)
