"""Votes and the leaderboard at the wide door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.ingress.auth import hash_keys
from gateway.ingress.doors import DoorPolicy
from tests.ingress.conftest import Doors

VOTES, BOARD = "/v1/arena/votes", "/v1/arena/leaderboard"


@pytest.fixture
def policy(tmp_path: Path) -> DoorPolicy:
    return DoorPolicy(store=f"sqlite:///{tmp_path / 'arena.db'}")


async def test_votes_make_a_leaderboard(doors: Callable[..., Doors], policy: DoorPolicy):
    wide = doors(policy=policy).wide
    assert (await wide.get(BOARD)).json() == {"object": "list", "data": [], "votes": 0, "confidence": 0.95}
    for winner in ("model_a", "model_a", "tie", "both_bad", "model_a"):
        vote = await wide.post(VOTES, {"model_a": "good", "model_b": "bad", "winner": winner})
        assert vote.status == 200 and vote.json()["winner"] == winner and "key_id" not in vote.json()
    await wide.post(VOTES, {"model_a": "bad", "model_b": "good", "winner": "model_a"})
    board = (await wide.get(BOARD)).json()
    first, second = board["data"]
    assert board["votes"] == 6
    assert (first["rank"], first["model"], first["wins"], first["losses"], first["ties"]) == (1, "good", 3, 1, 2)
    assert first["low"] <= first["rating"] <= first["high"] and first["rating"] > second["rating"]
    # Another door on the same store sees the same.
    assert (await doors(policy=policy).wide.get(BOARD)).json() == board


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "`model_a` is missing"),
        ({"model_a": "x", "winner": "tie"}, "`model_b` is missing"),
        ({"model_a": "x", "model_b": "x", "winner": "tie"}, "the same model"),
        (
            {"model_a": "x", "model_b": "y", "winner": "both"},
            "`winner` must be one of: model_a, model_b, tie, both_bad",
        ),
        ({"model_a": "x", "model_b": "y", "winner": 1}, "`winner` is not understood"),
        ({"model_a": "x" * 201, "model_b": "y", "winner": "tie"}, "`model_a` is no model's name"),
        ({"model_a": "x\n", "model_b": "x\ny", "winner": "tie"}, "`model_b` is no model's name"),
        ({"model_a": "x", "model_b": "y", "winner": "tie", "prompt": "?"}, "`prompt` is not supported"),
    ],
)
async def test_what_is_no_vote_is_refused_and_not_counted(
    doors: Callable[..., Doors], policy: DoorPolicy, body: dict[str, Any], words: str
):
    wide = doors(policy=policy).wide
    answer = await wide.post(VOTES, body)
    assert answer.status == 400 and words in answer.json()["error"]["message"]
    assert (await wide.get(BOARD)).json()["votes"] == 0


async def test_pages_take_their_methods_and_keys_are_asked_for(doors: Callable[..., Doors], policy: DoorPolicy):
    wide = doors(policy=policy).wide
    assert (await wide.get(VOTES)).status == 405
    assert (await wide.post(BOARD, {})).status == 405
    assert (await wide.get("/v1/arena/nothing")).status == 404
    locked = doors(policy=DoorPolicy(key_hashes=tuple(hash_keys(["k"])), store=policy.store)).wide
    assert (await locked.get(BOARD)).status == 401


async def test_the_document_names_both_pages(doors: Callable[..., Doors], policy: DoorPolicy):
    document = json.loads((await doors(policy=policy).wide.get("/openapi.json")).body)
    assert "post" in document["paths"][VOTES] and "get" in document["paths"][BOARD]
