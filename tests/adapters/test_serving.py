"""Adapters behind both doors, on a backend that says which one answered: names, loading, giving way, failing, reaching
every replica."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import AdapterError, Unavailable
from tests.adapters.house import House
from tests.adapters.making import write_adapter

LOAD, UNLOAD, CHAT = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/chat/completions"
TWO = {"echo": {"adapters": {}}, "plain": {}, "twin": {"adapters": {}}}


def chat(model: str, text: str = "hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def said(client: Any, model: str, path: str = CHAT, **more: Any) -> str:
    answer = await client.post(path, chat(model, **more))
    assert answer.status == 200, answer.body
    assert answer.json()["model"] == model, "answers carry the name that was asked for"
    return answer.json()["choices"][0]["message"]["content"]


async def load(house: House, folder: Path, name: str = "support", says: str = "A", **more: Any) -> Any:
    write_adapter(folder, layers=1, says=says, seed=sum(map(ord, says)))
    return await house.wide.post(LOAD, {"lora_name": name, "lora_path": str(folder), **more})


async def until(met: Any) -> None:
    deadline = time.monotonic() + 10
    while not met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_every_name_of_an_adapter_answers_and_the_base_is_as_before(house: Any, tmp_path: Path) -> None:
    gateway: House = house(TWO)
    assert (await load(gateway, tmp_path / "a", "echo:support", "A")).status == 200
    assert (await load(gateway, tmp_path / "b", "echo:support", "B", load_inplace=True)).status == 200
    for name in ("echo:support", "support", "support@2", "echo:support@2"):
        assert await said(gateway.wide, name) == "B: hello"
    assert await said(gateway.wide, "echo:support@1") == "A: hello"
    assert await said(gateway.lanes["echo"], "echo:support", f"/m/echo{CHAT}") == "B: hello"
    assert await said(gateway.lanes["echo"], "support@1", f"/m/echo{CHAT}") == "A: hello"
    assert await said(gateway.wide, "twin:support") == "B: hello", "another model with the same weights serves it too"
    assert await said(gateway.wide, "echo") == "hello"
    await gateway.registry.promote((await gateway.registry.catalog()).versions[0])
    await until(lambda: gateway.directory and gateway.directory.catalog.aliases)
    assert await said(gateway.wide, "support@prod") == await said(gateway.wide, "support") == "A: hello"


async def test_streams_and_other_dialects_carry_the_name_too(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    await load(gateway, tmp_path / "a")
    stream = await gateway.wide.post(CHAT, chat("support", stream=True))
    assert {event["model"] for event in stream.events()} == {"support"}
    assert stream.headers["x-gateway-target"] == "echo"
    assert stream.headers["x-gateway-adapter"].startswith("support@1-")
    message = await gateway.wide.post("/v1/messages", {**chat("echo:support"), "max_tokens": 50})
    assert (message.json()["model"], message.json()["content"][0]["text"]) == ("echo:support", "A: hello")
    response = await gateway.wide.post("/v1/responses", {"model": "support", "input": "hello", "store": False})
    assert response.json()["model"] == "support"
    assert response.json()["output"][0]["content"][0]["text"] == "A: hello"


async def test_names_that_mean_nothing_say_what_there_is(house: Any, tmp_path: Path) -> None:
    gateway: House = house(TWO)
    await load(gateway, tmp_path / "a", "echo:support")
    for model, told in (
        ("nobody", "no model 'nobody' here; there are: echo, plain, twin; adapters: echo:support"),
        ("echo:nobody", "echo has no adapter 'nobody'; it has: echo:support"),
        ("support@beta", "has no alias 'beta'"),
        ("support@7", "has no version 7; it has: 1"),
        ("plain:support", "`adapters: {}` under models.plain in the config turns them on"),
        ("other:support", "no model 'other:support' here"),
        ("support@1-abc", "has no alias"),
    ):
        answer = await gateway.wide.post(CHAT, chat(model))
        assert answer.status == 404
        assert told in answer.json()["error"]["message"], answer.body
    lane = await gateway.lanes["plain"].post(f"/m/plain{CHAT}", chat("plain:support"))
    assert "turns them on" in lane.json()["error"]["message"]


async def test_a_client_cannot_choose_by_a_header(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    await load(gateway, tmp_path / "a")
    gateway.wide = type(gateway.wide)(gateway.door, [("x-gateway-adapter", gateway.residence("echo").resident()[0])])
    assert await said(gateway.wide, "echo") == "hello"


async def test_one_that_does_not_fit_never_answers_and_says_why(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {"max_rank": 4}}, "plain": {}})
    answer = await load(gateway, tmp_path / "a", "echo:support")
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "adapter_error"
    assert "8 is more than 4, the room of echo" in answer.json()["error"]["message"]
    assert (await gateway.wide.post(CHAT, chat("echo:support"))).status == 404
    assert (await gateway.registry.catalog()).versions == ()


async def test_one_that_the_engine_refuses_stays_refused_with_its_reason(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {}, "options": {"fail": "load"}}, "twin": {"adapters": {}}})
    answer = await load(gateway, tmp_path / "a", "echo:support")
    assert answer.status == 400
    for name in ("echo:support", "echo:support@1"):
        again = await gateway.wide.post(CHAT, chat(name))
        assert again.status == 400
        assert "was told to take no adapter" in again.json()["error"]["message"]
    (version,) = (await gateway.registry.catalog()).versions
    assert [(place.model, place.state) for place in version.places] == [("echo", "failed")]
    assert await said(gateway.wide, "twin:support") == "A: hello", "another engine may take it"


async def test_one_that_changes_nothing_in_the_engine_is_found_out(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    backend = gateway.replicas["echo"][0].backend

    class Deaf(type(backend)):  # type: ignore[misc]
        async def load_adapter(self, adapter: Any) -> None:
            """A backend that takes an adapter and goes on as the base."""
            await super().load_adapter(adapter)
            self._engine.adapters[adapter.id] = b""

    backend.__class__ = Deaf
    answer = await load(gateway, tmp_path / "a")
    assert answer.status == 400
    assert "as if it were not there" in answer.json()["error"]["message"]
    assert gateway.residence("echo").resident() == []
    assert gateway.loaded == []


async def test_it_is_loaded_by_the_first_request_once_for_all(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {}, "options": {"load_ms": 200}}})
    await _registered(gateway, tmp_path / "a")
    answers = await asyncio.gather(*(said(gateway.wide, "support", stream=False) for _ in range(8)))
    assert set(answers) == {"A: hello"}
    assert [name for name, _ in gateway.loaded] == ["echo"]


async def test_waiting_for_a_load_is_bounded_and_the_load_goes_on(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {"load_within_s": 0.1}, "options": {"load_ms": 600}}})
    await _registered(gateway, tmp_path / "a")
    answer = await gateway.wide.post(CHAT, chat("support"))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "adapters.load_within_s" in answer.json()["error"]["message"]
    await until(lambda: gateway.residence("echo").resident())
    assert await said(gateway.wide, "support") == "A: hello"


async def test_the_one_asked_longest_ago_gives_way_and_pinned_ones_stay(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {"max_resident": 2, "pinned": ["a"]}}})
    for name in "abc":
        await _registered(gateway, tmp_path / name, name, name)
    await until(lambda: len(gateway.residence("echo").resident()) == 1)
    for name in "bacab":
        assert await said(gateway.wide, name) == f"{name}: hello"
    assert {held[0] for held in gateway.residence("echo").resident()} == {"a", "b"}
    assert [gone[0] for _, gone in gateway.evicted] == ["b", "c"]
    with pytest.raises(Unavailable, match="are pinned"):
        residence = house({"echo": {"adapters": {"max_resident": 1, "pinned": ["a"]}}}).residence("echo")
        await until(residence.resident)
        await residence.load((await gateway.registry.catalog()).versions[1].id)


async def test_unloading_lets_requests_end_and_takes_no_new_ones(house: Any, tmp_path: Path) -> None:
    gateway: House = house({"echo": {"adapters": {}, "options": {"delay_ms": 30}}})
    await load(gateway, tmp_path / "a")
    slow = asyncio.ensure_future(said(gateway.wide, "support", text="twenty letters long."))
    await until(lambda: gateway.replicas["echo"][0].backend.running())
    gone = asyncio.ensure_future(gateway.wide.post(UNLOAD, {"lora_name": "support"}))
    await asyncio.sleep(0.1)
    assert not gone.done(), "it waits for the request that is under way"
    assert await slow == "A: twenty letters long."
    assert (await gone).status == 200
    assert gateway.residence("echo").resident() == []
    assert (await gateway.wide.post(CHAT, chat("support"))).status == 404
    assert (await gateway.wide.post(UNLOAD, {"lora_name": "support"})).status == 404
    assert [name for name, _ in gateway.evicted] == ["echo"]


async def test_a_load_reaches_every_replica_and_hooks_fire_in_each(house: Any, tmp_path: Path) -> None:
    gateway: House = house(replicas=3)
    await load(gateway, tmp_path / "a")
    held = [gateway.residence("echo", index).resident() for index in range(3)]
    assert held[0] == held[1] == held[2] != []
    assert gateway.loaded == [("echo", held[0][0])] * 3
    listed = (await gateway.wide.get("/v1/adapters")).json()
    assert [row["replica"] for row in listed["data"][0]["resident"]] == ["echo-0", "echo-1", "echo-2"]
    await gateway.wide.post(UNLOAD, {"lora_name": "support"})
    assert [gateway.residence("echo", index).resident() for index in range(3)] == [[], [], []]


async def test_after_a_restart_it_is_there_and_what_was_missed_is_seen(house: Any, tmp_path: Path) -> None:
    first: House = house()
    await load(first, tmp_path / "a", "support", "A")
    await _registered(first, tmp_path / "b", "lazy", "B")
    await first.close()
    again: House = house({"echo": {"adapters": {"preload": ["lazy"]}}})
    await until(lambda: len(again.residence("echo").resident()) == 2)
    # Another process changes the registry; nobody tells this one.
    await again.registry.remove("echo", "support")
    await until(lambda: len(again.residence("echo").resident()) == 1)
    assert (await again.wide.post(CHAT, chat("support"))).status == 404


async def test_the_same_name_with_other_weights_is_another_id(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    await load(gateway, tmp_path / "a", says="A")
    refused = await load(gateway, tmp_path / "a", says="B")
    assert refused.status == 400
    assert "load_inplace" in refused.json()["error"]["message"]
    assert await said(gateway.wide, "support") == "A: hello"
    await load(gateway, tmp_path / "a", says="B", load_inplace=True)
    assert await said(gateway.wide, "support") == "B: hello"
    assert len(set(gateway.residence("echo").resident())) == 2


async def test_a_source_that_changed_is_not_what_was_registered(house: Any, tmp_path: Path) -> None:
    gateway: House = house()
    await _registered(gateway, tmp_path / "a")
    shutil.rmtree(gateway.cache)
    write_adapter(tmp_path / "a", layers=1, says="other")
    answer = await gateway.wide.post(CHAT, chat("support"))
    assert answer.status == 400
    assert "is no longer what was registered" in answer.json()["error"]["message"]
    write_adapter(tmp_path / "a", layers=1, says="A", seed=ord("A"))
    assert await said(gateway.wide, "support") == "A: hello", "once it is back it answers again"


async def test_models_lists_adapters_with_their_parent(house: Any, tmp_path: Path) -> None:
    gateway: House = house(TWO)
    await load(gateway, tmp_path / "a", "echo:support")
    await load(gateway, tmp_path / "b", "twin:other", "B")
    rows = {row["id"]: row for row in (await gateway.wide.get("/v1/models")).json()["data"]}
    assert set(rows) == {
        "echo", "plain", "twin", "echo:support", "twin:support", "support", "echo:other", "twin:other", "other",
    }  # fmt: skip
    assert rows["support"]["parent"] == rows["echo:support"]["parent"] == "echo"
    assert rows["other"]["parent"] == "twin"
    assert rows["echo"]["parent"] is None
    assert rows["support"]["gateway"]["adapter"] == "support@1"
    assert (await gateway.wide.get("/v1/models/echo:support")).json()["root"] == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        (LOAD, {"lora_path": "x"}, 400, "`lora_name` is missing"),
        (LOAD, {"lora_name": "echo:a"}, 400, "`lora_path` is missing"),
        (LOAD, {"lora_name": "a", "lora_path": "x", "model": "plain"}, 400, "models.plain in the config turns them on"),
        (LOAD, {"lora_name": "nobody:a", "lora_path": "x"}, 404, "no model 'nobody' here"),
        (LOAD, {"lora_name": "echo:../a", "lora_path": "x"}, 400, "cannot be an adapter's name"),
        (LOAD, {"lora_name": "echo:a", "lora_path": "/no/such"}, 400, "there is no such folder"),
        (LOAD, {"lora_name": "echo:a", "lora_path": 7}, 400, "not understood"),
        (UNLOAD, {"lora_name": "echo:a"}, 404, "cannot be found"),
    ],
)
async def test_loadings_that_cannot_be(house: Any, path: str, body: Any, status: int, told: str) -> None:
    answer = await house(TWO).wide.post(path, body)
    assert (answer.status, told in answer.json()["error"]["message"]) == (status, True), answer.body


async def test_a_gateway_without_adapters_says_how_to_have_them(house: Any) -> None:
    gateway: House = house({"plain": {}})
    answer = await gateway.wide.post(LOAD, {"lora_name": "a", "lora_path": "x"})
    assert "`adapters: {}` under models.plain" in answer.json()["error"]["message"]
    assert (await gateway.wide.get("/v1/adapters")).json()["data"] == []
    assert (await gateway.wide.post("/v1/adapters", {})).status == 405
    assert (await gateway.wide.get(LOAD)).status == 405


async def test_an_adapter_of_other_weights_is_not_loaded(house: Any, add: Any) -> None:
    gateway: House = house()
    await add(base="echo", base_digest="c" * 64)
    with pytest.raises(AdapterError, match="other weights"):
        await gateway.residence("echo").load((await gateway.registry.catalog()).versions[0].id)


async def _registered(house: House, folder: Path, name: str = "support", says: str = "A") -> None:
    """As another process adds it: nobody is told."""
    from gateway.adapters.intake import add
    from gateway.adapters.verify import Base
    from tests.adapters.house import DIGEST

    write_adapter(folder, layers=1, says=says, seed=sum(map(ord, says)))
    base = Base("echo", DIGEST, house.base)
    find = house.plugins.adapter_source
    await add(house.registry, str(folder), name=name, base=base, find=find, cache=house.cache)
