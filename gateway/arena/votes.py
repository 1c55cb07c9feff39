"""Votes that are kept: one table of the gateway's store. A vote names two models and who won; no prompt, no answer."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from typing import Any

import sqlalchemy as sql

from gateway.arena.strength import Battle
from gateway.errors import InvalidRequest
from gateway.store import METADATA, Store

WINNERS: dict[str, float] = {"model_a": 1, "model_b": 0, "tie": 0.5, "both_bad": 0.5}
"""What a vote may say, and model_a's score."""
MAX_NAME = 200
MAX_MODELS = 256
"""Models that one leaderboard holds: names are the voters' word."""

VOTES = sql.Table(
    "arena_votes",
    METADATA,
    sql.Column("id", sql.String(64), primary_key=True),
    sql.Column("key_id", sql.String(64), nullable=False),
    sql.Column("created_at", sql.Integer, nullable=False),
    sql.Column("model_a", sql.String(MAX_NAME), nullable=False),
    sql.Column("model_b", sql.String(MAX_NAME), nullable=False),
    sql.Column("winner", sql.String(16), nullable=False),
)


class Votes:
    """All keys vote in one arena; whose vote each is, is kept beside it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, key_id: str, model_a: str, model_b: str, winner: str) -> dict[str, Any]:
        """Keep a vote. Raises InvalidRequest where the arena has too many models already."""
        row = {
            "id": f"vote_{secrets.token_hex(12)}",
            "key_id": key_id,
            "created_at": int(time.time()),
            "model_a": model_a,
            "model_b": model_b,
            "winner": winner,
        }

        def insert(connection: sql.Connection) -> None:
            names = sql.union(sql.select(VOTES.c.model_a), sql.select(VOTES.c.model_b))
            known = {name for (name,) in connection.execute(names)}
            if len(known | {model_a, model_b}) > MAX_MODELS:
                raise InvalidRequest(f"the arena holds at most {MAX_MODELS} models", param="model_a")
            connection.execute(sql.insert(VOTES).values(row))

        await self._store.run(insert)
        return {name: value for name, value in row.items() if name != "key_id"} | {"object": "arena.vote"}

    async def battles(self) -> dict[Battle, int]:
        """How often each outcome was voted for."""
        columns = (VOTES.c.model_a, VOTES.c.model_b, VOTES.c.winner)
        query = sql.select(*columns, sql.func.count()).group_by(*columns)
        rows = await self._store.run(lambda connection: list(connection.execute(query)))
        found: Counter[Battle] = Counter()
        for model_a, model_b, winner, count in rows:
            found[(model_a, model_b, WINNERS[winner])] += count
        return found
