"""The responses that are kept, each with the items it was asked with: one table of the gateway's store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import sqlalchemy as sql

from gateway.errors import InvalidRequest
from gateway.responses.answer import fail
from gateway.store import METADATA, Store

LEASE_S = 15.0
"""A response in the background that nobody has touched for so long belongs to a gateway that is gone."""
MAX_TURNS = 1000
"""Responses in one conversation."""

_TABLE = sql.Table(
    "responses",
    METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("key_id", sql.String(64), nullable=False),
    sql.Column("previous", sql.String(64)),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("touched_at", sql.Float, nullable=False),
    sql.Column("items", sql.LargeBinary, nullable=False),
    sql.Column("body", sql.LargeBinary, nullable=False),
)
_encode = msgspec.json.Encoder().encode
RUNNING = ("queued", "in_progress")


class Archive:
    """Whoever made a response, and nobody else, reads, continues, cancels and deletes it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(self, key_id: str, items: list[dict[str, Any]], response: Mapping[str, Any]) -> None:
        """Keep a new response."""
        row = {
            "id": response["id"], "key_id": key_id, "previous": response["previous_response_id"],
            "status": response["status"], "touched_at": time.time(), "items": _encode(items),
            "body": _encode(response),
        }  # fmt: skip
        await self._store.run(lambda connection: connection.execute(sql.insert(_TABLE).values(row)))

    async def finish(self, response: Mapping[str, Any]) -> None:
        """Keep what became of one that was running; one that was cancelled or deleted meanwhile stays so."""
        change = (
            sql.update(_TABLE)
            .where(_TABLE.c.id == response["id"], _TABLE.c.status.in_(RUNNING))
            .values(status=response["status"], body=_encode(response), touched_at=time.time())
        )
        await self._store.run(lambda connection: connection.execute(change))

    async def touch(self, response_id: str) -> bool:
        """Say that it is still being worked on. Whether it is still wanted."""
        change = (
            sql.update(_TABLE)
            .where(_TABLE.c.id == response_id, _TABLE.c.status.in_(RUNNING))
            .values(touched_at=time.time())
        )
        return await self._store.run(lambda connection: connection.execute(change).rowcount) == 1

    async def get(self, key_id: str, response_id: str) -> dict[str, Any] | None:
        """A response; None where this key has none of that id."""
        row = await self._row(key_id, response_id)
        if row is None:
            return None
        response: dict[str, Any] = msgspec.json.decode(row.body)
        if row.status in RUNNING and time.time() - row.touched_at > LEASE_S:
            fail(response, "the gateway that worked on it has ended")
            await self.finish(response)
        return response

    async def items(self, key_id: str, response_id: str) -> list[dict[str, Any]] | None:
        """What it was asked with."""
        row = await self._row(key_id, response_id)
        return None if row is None else msgspec.json.decode(row.items)

    async def cancel(self, key_id: str, response: dict[str, Any]) -> bool:
        """Whether it was running and is not any more; `response` says so then."""
        cancelled = {**response, "status": "cancelled"}
        change = (
            sql.update(_TABLE)
            .where(_TABLE.c.id == response["id"], _TABLE.c.key_id == key_id, _TABLE.c.status.in_(RUNNING))
            .values(status="cancelled", body=_encode(cancelled), touched_at=time.time())
        )
        if await self._store.run(lambda connection: connection.execute(change).rowcount) == 1:
            response["status"] = "cancelled"
            return True
        return False

    async def delete(self, key_id: str, response_id: str) -> bool:
        """Whether there was one."""
        change = sql.delete(_TABLE).where(_TABLE.c.id == response_id, _TABLE.c.key_id == key_id)
        return await self._store.run(lambda connection: connection.execute(change).rowcount) == 1

    async def conversation(self, key_id: str, response_id: str) -> list[dict[str, Any]]:
        """All items up to the end of a response, the oldest first. Raises InvalidRequest where one is missing, still
        being worked on, or where there are too many."""
        param = "previous_response_id"

        def follow(connection: sql.Connection) -> list[dict[str, Any]]:
            turns: list[list[dict[str, Any]]] = []
            following: str | None = response_id
            while following is not None:
                row = connection.execute(_select(key_id, following)).one_or_none()
                if row is None:
                    raise InvalidRequest(f"there is no response {following[:64]!r} (any more)", param=param)
                if row.status in RUNNING:
                    raise InvalidRequest(f"response {following!r} is not complete yet", param=param)
                if len(turns) == MAX_TURNS:
                    raise InvalidRequest(f"a conversation may have at most {MAX_TURNS} responses", param=param)
                turns.append([*msgspec.json.decode(row.items), *msgspec.json.decode(row.body)["output"]])
                following = row.previous
            return [item for turn in reversed(turns) for item in turn]

        return await self._store.run(follow)

    async def _row(self, key_id: str, response_id: str) -> Any:
        query = _select(key_id, response_id)
        return await self._store.run(lambda connection: connection.execute(query).one_or_none())


def _select(key_id: str, response_id: str) -> Any:
    return sql.select(_TABLE).where(_TABLE.c.id == response_id, _TABLE.c.key_id == key_id)
