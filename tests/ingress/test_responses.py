"""/v1/responses at both doors: made, streamed, kept, continued, cancelled and deleted, each for its own key alone."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from gateway.ingress.auth import hash_keys
from gateway.ingress.doors import DoorPolicy
from gateway.testing import AppClient
from gateway.testing.client import parse_events

PATH = "/v1/responses"


@pytest.fixture
def policy(tmp_path: Path) -> DoorPolicy:
    return DoorPolicy(store=f"sqlite:///{tmp_path / 'gateway.db'}")


def text_of(response: Any) -> str:
    return "".join([part["text"] for item in response["output"] for part in item.get("content", ())])


@pytest.mark.parametrize("lane", [False, True])
async def test_a_response_is_a_chat_told_otherwise(doors: Any, policy: DoorPolicy, lane: bool) -> None:
    gateway = doors(policy=policy)
    door, root = (gateway.lanes["echo"], "/m/echo") if lane else (gateway.wide, "")
    answer = await door.post(root + PATH, {"model": "echo", "input": "hello", "metadata": {"a": "b"}})
    body = answer.json()
    assert answer.status == 200
    assert (body["object"], body["status"], body["model"], body["metadata"]) == (
        "response",
        "completed",
        "echo",
        {"a": "b"},
    )
    assert text_of(body) == "hello"
    assert body["usage"]["total_tokens"] == body["usage"]["input_tokens"] + body["usage"]["output_tokens"]
    kept = await door.get(f"{root}{PATH}/{body['id']}")
    assert kept.json() == body
    items = (await door.get(f"{root}{PATH}/{body['id']}/input_items")).json()
    assert items["data"][0]["content"][0]["text"] == "hello"
    await gateway.door.close()
    if not lane:
        assert gateway.records[0].path == PATH


async def test_a_stream_has_typed_events_and_is_kept(doors: Any, policy: DoorPolicy) -> None:
    gateway = doors({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 1}}}}, policy=policy)
    answer = await gateway.wide.post(PATH, {"model": "echo", "input": "hello", "stream": True})
    events = parse_events(answer.body)
    kinds = [event["type"] for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
    ]  # fmt: skip
    assert kinds[-4:] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert "".join([event["delta"] for event in events if event["type"] == "response.output_text.delta"]) == "hello"
    final = events[-1]["response"]
    assert (await gateway.wide.get(f"{PATH}/{final['id']}")).json() == final


async def test_a_conversation_goes_on_from_what_is_kept(doors: Any, policy: DoorPolicy) -> None:
    wide = doors(policy=policy).wide
    first = (await wide.post(PATH, {"model": "echo", "input": "one", "instructions": "be brief"})).json()
    second = (await wide.post(PATH, {"model": "echo", "input": "two", "previous_response_id": first["id"]})).json()
    third = (await wide.post(PATH, {"model": "echo", "input": "six", "previous_response_id": second["id"]})).json()
    alone = (await wide.post(PATH, {"model": "echo", "input": "six"})).json()
    assert third["usage"]["input_tokens"] > alone["usage"]["input_tokens"] + 12
    gone = await wide.request("DELETE", f"{PATH}/{first['id']}")
    assert gone.json() == {"id": first["id"], "object": "response", "deleted": True}
    lost = await wide.post(PATH, {"model": "echo", "input": "x", "previous_response_id": third["id"]})
    assert (lost.status, lost.json()["error"]["param"]) == (400, "previous_response_id")


async def test_what_is_not_to_be_stored_is_not(doors: Any, policy: DoorPolicy) -> None:
    wide = doors(policy=policy).wide
    body = (await wide.post(PATH, {"model": "echo", "input": "one", "store": False})).json()
    assert (await wide.get(f"{PATH}/{body['id']}")).status == 404


async def test_only_whoever_made_one_sees_it(doors: Any, policy: DoorPolicy) -> None:
    keys = tuple(hash_keys(["first-key", "second-key"]))
    door = doors(policy=DoorPolicy(key_hashes=keys, store=policy.store)).door
    mine, theirs = [AppClient(door, [("authorization", f"Bearer {key}")]) for key in ("first-key", "second-key")]
    body = (await mine.post(PATH, {"model": "echo", "input": "one"})).json()
    where = f"{PATH}/{body['id']}"
    assert (await theirs.get(where)).status == 404
    assert (await theirs.request("DELETE", where)).status == 404
    assert (await mine.get(where)).status == 200


async def test_one_in_the_background_ends_by_itself_or_is_cancelled(doors: Any, policy: DoorPolicy) -> None:
    wide = doors({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}}}}, policy=policy).wide
    for text, cancelled in (("hi", False), ("word " * 50, True)):
        made = (await wide.post(PATH, {"model": "echo", "input": text, "background": True})).json()
        assert made["status"] == "queued"
        where = f"{PATH}/{made['id']}"
        if cancelled:
            assert (await wide.request("POST", f"{where}/cancel")).json()["status"] == "cancelled"
        async with asyncio.timeout(10):
            while (kept := (await wide.get(where)).json())["status"] == "queued":
                await asyncio.sleep(0.05)
        assert (kept["status"], text_of(kept)) == (("cancelled", "") if cancelled else ("completed", text))
    again = await wide.request("POST", f"{where}/cancel")
    assert (again.status, again.json()["status"]) == (200, "cancelled")


async def test_one_whose_gateway_ended_has_failed(doors: Any, policy: DoorPolicy) -> None:
    gateway = doors({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}}}}, policy=policy)
    made = (await gateway.wide.post(PATH, {"model": "echo", "input": "word " * 400, "background": True})).json()
    engine = sql.create_engine(policy.store or "")
    with engine.begin() as connection:
        connection.execute(sql.text("UPDATE responses SET touched_at = :then"), {"then": time.time() - 60})
    kept = (await gateway.wide.get(f"{PATH}/{made['id']}")).json()
    assert (kept["status"], kept["error"]["code"]) == ("failed", "server_error")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "input"),
        ({"input": 17}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "truncation": "auto"}, "truncation"),
        ({"input": "x", "conversation": "c"}, "conversation"),
        ({"input": "x", "background": True, "stream": True}, "stream"),
        ({"input": "x", "background": True, "store": False}, "store"),
        ({"input": "x", "previous_response_id": "resp_of_nobody"}, "previous_response_id"),
        ({"input": "x", "temperature": "hot"}, "temperature"),
    ],
)
async def test_what_is_wrong_is_named(doors: Any, policy: DoorPolicy, fields: dict[str, Any], param: str) -> None:
    answer = await doors(policy=policy).wide.post(PATH, {"model": "echo", **fields})
    assert (answer.status, answer.json()["error"]["param"]) == (400, param), answer.body


async def test_pages_that_there_are_none_of(doors: Any, policy: DoorPolicy) -> None:
    wide = doors(policy=policy).wide
    for method, path, status in (
        ("GET", f"{PATH}/resp_x", 404),
        ("DELETE", f"{PATH}/resp_x", 404),
        ("POST", f"{PATH}/resp_x/cancel", 404),
        ("GET", f"{PATH}/resp_x/input_items", 404),
        ("GET", f"{PATH}/resp_x/more", 404),
        ("GET", PATH, 405),
        ("PUT", f"{PATH}/resp_x", 405),
    ):
        answer = await wide.request(method, path)
        assert answer.status == status, (method, path)
        assert answer.json()["error"]["message"]
    made = (await wide.post(PATH, {"model": "echo", "input": "one"})).json()
    assert (await wide.request("POST", f"{PATH}/{made['id']}/cancel")).status == 400


async def test_a_model_that_fails_is_told_as_everywhere(doors: Any, policy: DoorPolicy) -> None:
    gateway = doors(
        {"models": {"echo": {"backend": "echo", "options": {"fail_after": 2, "delay_ms": 1}}}}, policy=policy
    )
    answer = await gateway.wide.post(PATH, {"model": "echo", "input": "hello", "stream": True})
    events = parse_events(answer.body)
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    nobody = await gateway.wide.post(PATH, {"model": "nobody", "input": "hello"})
    assert (nobody.status, nobody.json()["error"]["code"]) == (404, "model_not_found")
