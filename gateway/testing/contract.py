"""The contract of a text backend, as tests. Subclass it, give it one fixture, and pytest asks your backend everything.

    class TestMine(BackendContract):
        @pytest.fixture(scope="class")
        @classmethod
        def context(cls):
            return BackendContext("mine", ModelSpec(backend="mine"), model_path=…)

The card's capabilities decide what is asked: what a backend claims must work, what it does not claim must be refused
with an error that says so. Nothing is skipped.
"""

from __future__ import annotations

import asyncio

import pytest

from gateway.backend import Backend, BackendContext
from gateway.testing.adapters import AdapterContract
from gateway.testing.asking import CHAT, COMPLETIONS, PROMPTS, QUESTION, ok, refused, until
from gateway.testing.client import AppClient, Leave
from gateway.testing.started import BackendStarted


@pytest.mark.asyncio(loop_scope="class")
class BackendContract(AdapterContract, BackendStarted):
    """Everything the gateway, its clients and its evaluations rely on. One backend is started for the whole class."""

    long_answer: int = 512
    """Tokens asked of a generation that is to be interrupted: enough to last some seconds."""

    async def test_says_what_it_is(self, backend: Backend, context: BackendContext) -> None:
        card = backend.card()
        assert card.name == context.name
        assert card.backend == context.spec.backend
        assert card.max_model_len is not None
        assert card.max_model_len > 0
        assert "chat" in card.capabilities or "completions" in card.capabilities
        await backend.check_health()
        assert backend.running() == 0

    async def test_answers_health(self, client: AppClient) -> None:
        assert (await client.get("/health")).status == 200

    async def test_names_its_model(self, backend: Backend, client: AppClient) -> None:
        rows = ok(await client.get("/v1/models"))["data"]
        assert backend.card().name in [row["id"] for row in rows]

    async def test_completes(self, backend: Backend, client: AppClient) -> None:
        body = ok(await client.post(COMPLETIONS, self.completion(backend, max_tokens=4)))
        assert body["object"] == "text_completion"
        assert body["model"] == backend.card().name
        assert body["choices"][0]["finish_reason"] in {"stop", "length"}
        usage = body["usage"]
        assert usage["prompt_tokens"] > 0
        assert 0 < usage["completion_tokens"] <= 4
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    async def test_chats(self, backend: Backend, client: AppClient) -> None:
        answer = await client.post(CHAT, self.chat(backend, max_tokens=8))
        if "chat" not in backend.card().capabilities:
            refused(answer, 400, 404)
            return
        body = ok(answer)
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["choices"][0]["message"]["content"]
        parts = [{"role": "user", "name": None, "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
        same = ok(await client.post(CHAT, self.chat(backend, messages=parts, max_completion_tokens=8)))
        assert same["choices"][0]["message"]["content"] == body["choices"][0]["message"]["content"]

    async def test_streams_chat(self, backend: Backend, client: AppClient) -> None:
        asked = self.chat(backend, max_tokens=12)
        answer = await client.post(CHAT, {**asked, "stream": True})
        if "chat" not in backend.card().capabilities:
            refused(answer, 400, 404)
            return
        events = answer.events()
        deltas = [event["choices"][0]["delta"] for event in events]
        assert deltas[0]["role"] == "assistant"
        whole = ok(await client.post(CHAT, asked))["choices"][0]
        assert "".join(delta.get("content") or "" for delta in deltas) == whole["message"]["content"]
        assert [event["choices"][0]["finish_reason"] for event in events][-1] == whole["finish_reason"]

    async def test_streams_completions(self, backend: Backend, client: AppClient) -> None:
        asked = self.completion(backend, max_tokens=12)
        whole = ok(await client.post(COMPLETIONS, asked))
        options = {"stream": True, "stream_options": {"include_usage": True}}
        events = (await client.post(COMPLETIONS, {**asked, **options})).events()
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
        assert "".join(event["choices"][0]["text"] for event in events[:-1]) == whole["choices"][0]["text"]
        assert events[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]

    async def test_is_greedy_at_temperature_0(self, backend: Backend, client: AppClient) -> None:
        first, second = [await self.text(backend, client, max_tokens=12) for _ in range(2)]
        assert first == second

    async def test_makes_max_tokens(self, backend: Backend, client: AppClient) -> None:
        body = ok(await client.post(COMPLETIONS, self.completion(backend, max_tokens=7, ignore_eos=True)))
        assert body["usage"]["completion_tokens"] == 7
        assert body["choices"][0]["finish_reason"] == "length"

    async def test_stops_at_stop_strings(self, backend: Backend, client: AppClient) -> None:
        whole = await self.text(backend, client, max_tokens=16)
        assert len(whole) > 4
        stop = whole[len(whole) // 2 :][:3]
        asked = self.completion(backend, max_tokens=16, stop=["\u2603", "\u2604", "\u2605", "\u2606", stop])
        choice = ok(await client.post(COMPLETIONS, asked))["choices"][0]
        assert choice["text"] == whole[: whole.index(stop)]
        assert choice["finish_reason"] == "stop"
        events = (await client.post(COMPLETIONS, {**asked, "stream": True})).events()
        assert "".join(event["choices"][0]["text"] for event in events) == choice["text"]

    async def test_gives_n_choices(self, backend: Backend, client: AppClient) -> None:
        asked = self.completion(backend, prompt=PROMPTS[:2], n=2, max_tokens=6)
        choices = ok(await client.post(COMPLETIONS, asked))["choices"]
        assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
        assert choices[0]["text"] == choices[1]["text"]
        assert choices[2]["text"] == choices[3]["text"]
        texts = ["", "", "", ""]
        for event in (await client.post(COMPLETIONS, {**asked, "stream": True})).events():
            for choice in event["choices"]:
                texts[choice["index"]] += choice["text"]
        assert texts == [choice["text"] for choice in choices]

    async def test_repeats_with_a_seed(self, backend: Backend, client: AppClient) -> None:
        hot = {"temperature": 1.2, "top_p": 0.95, "top_k": 50, "seed": 7, "max_tokens": 12}
        first, second = [await self.text(backend, client, **hot) for _ in range(2)]
        assert first == second

    async def test_computes_together_what_it_computes_alone(self, backend: Backend, client: AppClient) -> None:
        alone = [await self.text(backend, client, prompt=prompt, max_tokens=8) for prompt in PROMPTS]
        asked = [self.text(backend, client, prompt=prompt, max_tokens=8) for prompt in PROMPTS]
        assert await asyncio.gather(*asked) == alone

    async def test_gives_logprobs(self, backend: Backend, client: AppClient) -> None:
        answer = await client.post(COMPLETIONS, self.completion(backend, max_tokens=5, logprobs=3))
        if "logprobs" not in backend.card().capabilities:
            assert "logprobs" in refused(answer, 400)["message"]
            return
        logprobs = ok(answer)["choices"][0]["logprobs"]
        count = ok(answer)["usage"]["completion_tokens"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert len(logprobs[name]) == count, name
        for token, logprob, top in zip(
            logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
        ):
            assert logprob <= 0
            assert top[token] == logprob == max(top.values())
            assert 1 <= len(top) <= 4

    async def test_gives_chat_logprobs(self, backend: Backend, client: AppClient) -> None:
        answer = await client.post(CHAT, self.chat(backend, max_tokens=5, logprobs=True, top_logprobs=2))
        if not {"chat", "logprobs"} <= set(backend.card().capabilities):
            refused(answer, 400, 404)
            return
        for entry in ok(answer)["choices"][0]["logprobs"]["content"]:
            assert entry["logprob"] <= 0
            assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
            assert len(entry["top_logprobs"]) == 2
            # Equals may stand in any order: what is greedy is among the best.
            assert entry["logprob"] == entry["top_logprobs"][0]["logprob"]

    async def test_scores_prompts(self, backend: Backend, client: AppClient) -> None:
        plain = self.completion(backend, max_tokens=6, logprobs=1, ignore_eos=True)
        asked = {**plain, "max_tokens": 1, "echo": True, "seed": 1234}
        if "echo" not in backend.card().capabilities:
            assert refused(await client.post(COMPLETIONS, asked), 400)["message"]
            return
        ids = await self.ids(client, plain["prompt"])
        made = ok(await client.post(COMPLETIONS, {**plain, "prompt": [ids]}))["choices"][0]
        # Tokenizing generated text again may give other tokens: then there is nothing to compare but the shape.
        continued = ids + await self.ids(client, made["text"])
        answer = ok(await client.post(COMPLETIONS, {**asked, "prompt": [continued, ids]}))
        assert [choice["index"] for choice in answer["choices"]] == [0, 1]
        logprobs = answer["choices"][0]["logprobs"]
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            assert len(logprobs[name]) == len(continued) + 1, name
        assert logprobs["token_logprobs"][0] is None
        assert logprobs["top_logprobs"][0] is None
        for token, logprob, top in zip(
            logprobs["tokens"][1:], logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True
        ):
            assert top[token] == logprob
        if logprobs["tokens"][len(ids) : -1] == made["logprobs"]["tokens"]:
            scored = logprobs["token_logprobs"][len(ids) : -1]
            assert scored == pytest.approx(made["logprobs"]["token_logprobs"], abs=0.01)

    async def test_scores_without_generating(self, backend: Backend, client: AppClient) -> None:
        asked = self.completion(backend, max_tokens=0, logprobs=1, echo=True)
        answer = await client.post(COMPLETIONS, asked)
        if "echo" not in backend.card().capabilities:
            refused(answer, 400)
            return
        choice = ok(answer)["choices"][0]
        assert choice["text"] == asked["prompt"]
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert None not in choice["logprobs"]["token_logprobs"][1:]

    async def test_tokenizes(self, backend: Backend, client: AppClient) -> None:
        answer = await client.post("/tokenize", {"prompt": "test one two", "add_special_tokens": False})
        if "tokenize" not in backend.card().capabilities:
            refused(answer, 400, 404)
            return
        body = ok(answer)
        assert body["count"] == len(body["tokens"]) > 0
        back = ok(await client.post("/detokenize", {"tokens": body["tokens"]}))
        assert back["prompt"] == "test one two"
        end = ok(await client.get("/tokenizer_info"))["eos_token"]
        one = ok(await client.post("/tokenize", {"prompt": end, "add_special_tokens": False}))
        assert one["count"] == 1

    async def test_tolerates_what_it_does_not_know(self, backend: Backend, client: AppClient) -> None:
        strange = {"user": "u-1", "metadata": {"a": "b"}, "x_unknown": [1, {"y": None}], "stop": [], "seed": None}
        ok(await client.post(COMPLETIONS, self.completion(backend, max_tokens=2, **strange)))

    async def test_refuses_in_the_shape_of_openai(self, backend: Backend, client: AppClient) -> None:
        refused(await client.post(COMPLETIONS, b'{"prompt": '), 400)
        refused(await client.post(COMPLETIONS, b"[" * 100_000), 400)
        refused(await client.post(COMPLETIONS, self.completion(backend, temperature="hot")), 400)
        refused(await client.post(COMPLETIONS, self.completion(backend, temperature=-1)), 400)
        refused(await client.post(COMPLETIONS, self.completion(backend, max_tokens=-1)), 400)
        refused(await client.post(COMPLETIONS, self.completion(backend, n=0)), 400)
        refused(await client.post("/v1/no/such/page", {}), 404)
        too_long = self.completion(backend, max_tokens=(backend.card().max_model_len or 0) + 1)
        refused(await client.post(COMPLETIONS, too_long), 400)
        assert backend.running() == 0
        ok(await client.post(COMPLETIONS, self.completion(backend, max_tokens=1)))

    async def test_refuses_a_model_that_it_is_not(self, backend: Backend, client: AppClient) -> None:
        for path, asked in ((COMPLETIONS, self.completion(backend)), (CHAT, self.chat(backend))):
            error = refused(await client.post(path, {**asked, "model": "no-such-model"}), 404)
            assert "no-such-model" in error["message"]

    @pytest.mark.parametrize("how", ["disconnect", "cancel"])
    @pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
    async def test_stops_when_its_client_leaves(
        self, backend: Backend, client: AppClient, how: Leave, stream: bool
    ) -> None:
        length = min(self.long_answer, (backend.card().max_model_len or self.long_answer) - 64)
        asked = self.completion(backend, max_tokens=length, ignore_eos=True, stream=stream)
        async with client.open("POST", COMPLETIONS, asked) as exchange:
            if stream:
                await exchange.next_body()
            else:
                await until(lambda: backend.running() > 0, 30)
            assert backend.running() > 0, "the answer was over before it could be interrupted: raise `long_answer`"
            await exchange.leave(how)
            await until(lambda: backend.running() == 0, 1)
