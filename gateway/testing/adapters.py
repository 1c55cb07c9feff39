"""The part of the contract that speaks of adapters: asked of backends whose card says "adapters"; all others must
refuse them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.backend import Backend
from gateway.errors import AdapterError, Unsupported
from gateway.testing.asking import CHAT, COMPLETIONS, PROMPTS, Asking, ok, refused
from gateway.testing.client import AppClient
from gateway.types import AdapterFiles

CITIES = ("Paris", "Rome")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": list(CITIES)}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.asyncio(loop_scope="class")
class AdapterContract(Asking):
    """Several adapters beside one base, in one batch, and nobody can tell."""

    @pytest.fixture(scope="class")
    @classmethod
    def adapters(cls) -> Sequence[AdapterFiles]:
        """Two different adapters of the context's model, for a backend whose card says "adapters". Override it like
        `context`, whose spec has `adapters` then."""
        return ()

    async def test_keeps_adapters_beside_its_base(
        self, backend: Backend, client: AppClient, adapters: Sequence[AdapterFiles]
    ) -> None:
        if "adapters" not in backend.card().capabilities:
            with pytest.raises(Unsupported, match=backend.context.spec.backend):
                await backend.load_adapter(AdapterFiles("none", Path("nowhere"), "", 1))
            return
        first, second = adapters
        base = backend.card().name
        alone = {base: await self.answers(backend, client, base)}
        for adapter in (first, second):
            await backend.load_adapter(adapter)
            alone[adapter.id] = await self.answers(backend, client, adapter.id)
            self.same(alone[base], await self.answers(backend, client, base))
        texts = [tuple(answer["text"] for answer in answers) for answers in alone.values()]
        assert len(set(texts)) == 3, "an adapter answers as its base or as another"
        rows = {row["id"]: row for row in ok(await client.get("/v1/models"))["data"]}
        assert [rows[adapter.id]["parent"] for adapter in (first, second)] == [base, base]
        # All of them at once: no row may show who stood beside it.
        together = await asyncio.gather(*[self.answers(backend, client, name) for name in alone])
        for before, now in zip(alone.values(), together, strict=True):
            self.same(before, now)
        if "chat" in backend.card().capabilities:
            said = [ok(await client.post(CHAT, self.chat(backend, model=name, max_tokens=12))) for name in alone]
            assert [body["model"] for body in said] == list(alone)
            assert len({body["choices"][0]["message"]["content"] for body in said}) > 1
        await backend.unload_adapter(first.id)
        refused(await client.post(COMPLETIONS, self.completion(backend, model=first.id)), 404)
        assert first.id not in [row["id"] for row in ok(await client.get("/v1/models"))["data"]]
        for name in (base, second.id):
            self.same(alone[name], await self.answers(backend, client, name))
        again = msgspec.structs.replace(second, id="again")
        await backend.load_adapter(again)
        self.same(alone[second.id], await self.answers(backend, client, again.id))
        for each in (second, again):
            await backend.unload_adapter(each.id)
        self.same(alone[base], await self.answers(backend, client, base))

    async def test_scores_prompts_by_an_adapter(
        self, backend: Backend, client: AppClient, adapters: Sequence[AdapterFiles]
    ) -> None:
        if not {"adapters", "echo"} <= set(backend.card().capabilities):
            return
        adapter = adapters[0]
        await backend.load_adapter(adapter)
        try:
            plain = self.completion(backend, max_tokens=6, logprobs=1, model=adapter.id, prompt=PROMPTS[0])
            made = ok(await client.post(COMPLETIONS, plain))["choices"][0]
            ids = ok(await client.post("/tokenize", {"prompt": PROMPTS[0]}))["tokens"]
            continued = ids + await self.ids(client, made["text"])
            asked = {**plain, "prompt": [continued], "max_tokens": 0, "echo": True}
            scored, base = [
                ok(await client.post(COMPLETIONS, {**asked, "model": name}))["choices"][0]["logprobs"]
                for name in (adapter.id, backend.card().name)
            ]
            assert scored["token_logprobs"] != base["token_logprobs"]
            if scored["tokens"][len(ids) :] == made["logprobs"]["tokens"]:
                expected = made["logprobs"]["token_logprobs"]
                assert scored["token_logprobs"][len(ids) :] == pytest.approx(expected, abs=0.01)
        finally:
            await backend.unload_adapter(adapter.id)

    async def test_holds_an_adapter_to_a_grammar_and_to_tools(
        self, backend: Backend, client: AppClient, adapters: Sequence[AdapterFiles]
    ) -> None:
        if "adapters" not in backend.card().capabilities:
            return
        adapter = adapters[0]
        await backend.load_adapter(adapter)
        try:
            choice = {"structured_outputs": {"choice": ["Lyon", "Nice"]}, "max_tokens": 12}
            base = await client.post(COMPLETIONS, self.completion(backend, **choice))
            held = await client.post(COMPLETIONS, self.completion(backend, model=adapter.id, **choice))
            assert held.status == base.status
            if base.status != 200:
                refused(held, 400)
                return
            assert ok(held)["choices"][0]["text"] in ("Lyon", "Nice")
            if "chat" not in backend.card().capabilities:
                return
            form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
            asked = self.chat(backend, model=adapter.id, max_tokens=30, response_format=form, logprobs=True)
            said = ok(await client.post(CHAT, {**asked, "top_logprobs": 2}))["choices"][0]
            assert json.loads(said["message"]["content"])["city"] in CITIES
            assert all(len(entry["top_logprobs"]) == 2 for entry in said["logprobs"]["content"])
            tool = {"type": "function", "function": {"name": "weather", "parameters": CITY}}
            named = {"type": "function", "function": {"name": "weather"}}
            asked = self.chat(backend, model=adapter.id, max_tokens=60, tools=[tool], tool_choice=named)
            (call,) = ok(await client.post(CHAT, asked))["choices"][0]["message"]["tool_calls"]
            assert call["function"]["name"] == "weather"
            assert json.loads(call["function"]["arguments"])["city"] in CITIES
        finally:
            await backend.unload_adapter(adapter.id)

    async def test_an_adapter_that_cannot_be_loaded_leaves_nothing(
        self, backend: Backend, client: AppClient, adapters: Sequence[AdapterFiles], tmp_path: Path
    ) -> None:
        if "adapters" not in backend.card().capabilities:
            return
        before = await self.answers(backend, client, backend.card().name)
        broken = AdapterFiles("broken", tmp_path / "nowhere", "", 4)
        with pytest.raises(AdapterError):
            await backend.load_adapter(broken)
        refused(await client.post(COMPLETIONS, self.completion(backend, model="broken")), 404)
        self.same(before, await self.answers(backend, client, backend.card().name))
        await backend.load_adapter(adapters[0])
        assert ok(await client.post(COMPLETIONS, self.completion(backend, model=adapters[0].id, max_tokens=4)))
        await backend.unload_adapter(adapters[0].id)

    async def answers(self, backend: Backend, client: AppClient, model: str) -> list[dict[str, Any]]:
        """The choices of some completions by one model, asked at the same time."""
        top = {"logprobs": 1} if "logprobs" in backend.card().capabilities else {}
        asked = [self.completion(backend, model=model, prompt=prompt, max_tokens=8, **top) for prompt in PROMPTS[:4]]
        return [
            ok(answer)["choices"][0] for answer in await asyncio.gather(*[client.post(COMPLETIONS, a) for a in asked])
        ]

    @staticmethod
    def same(some: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> None:
        """The same texts, and log-probabilities within 1e-3."""
        for one, other in zip(some, others, strict=True):
            assert one["text"] == other["text"]
            if one["logprobs"] is not None:
                expected = one["logprobs"]["token_logprobs"]
                assert other["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-3)
