"""The onnx backend on the real model: the contract, and what only an engine of our own must prove."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from gateway.backend import Backend, BackendContext, silent
from gateway.cache import cache_root
from gateway.config import ModelSpec
from gateway.engine import Delta, Generation, Sampling
from gateway.errors import ContextOverflow, InvalidRequest, Unavailable, Unsupported
from gateway.testing import AppClient, BackendContract
from gateway_onnx.backend import OnnxBackend
from gateway_onnx.conversion import converted
from gateway_onnx.engine import OnnxEngine
from gateway_onnx.options import plan
from gateway_onnx.reference import static_batch_rate
from tests.rows import SHARE

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="class")]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


def context_of(folder: Path, **options: Any) -> BackendContext:
    # The folder's name begins with the source's digest: tests and `gateway serve` share one conversion.
    digest = folder.name.split("-")[0]
    return BackendContext(
        "smollm2",
        ModelSpec(backend="onnx", options=options, resources=SHARE),
        folder,
        digest,
        cache_root(),
    )


async def collect(engine: OnnxEngine, prompt: list[int], **sampling: Any) -> list[Delta]:
    asked = Generation("same", prompt, Sampling(**{"max_tokens": 16, "temperature": 0.0, **sampling}))
    return [delta async for delta in engine.generate(asked)]


async def tokens_of(engine: OnnxEngine, prompt: list[int], **sampling: Any) -> list[int]:
    return [token for delta in await collect(engine, prompt, **sampling) for token in delta.token_ids]


def question(engine: OnnxEngine) -> list[int]:
    return engine.tokenizer.encode(engine.tokenizer.render_chat(QUESTION), add_special_tokens=False)


class TestOnnx(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, smollm2_folder: Path) -> BackendContext:
        return context_of(smollm2_folder)

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, backend: Backend) -> OnnxEngine:
        assert isinstance(backend, OnnxBackend)
        return backend.engine

    async def test_knows_its_model(self, backend: Backend) -> None:
        card = backend.card()
        assert (card.dtype, card.max_model_len) == ("float32", 8192)
        assert len(card.template_digest) == 64
        assert {"chat", "completions", "echo", "logprobs", "prompt_logprobs", "tokenize"} <= set(card.capabilities)

    async def test_knows_the_capital_of_france(self, client: AppClient) -> None:
        asked = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 20}
        answer = (await client.post("/v1/chat/completions", asked)).json()
        assert answer["choices"][0]["message"]["content"] == ANSWER
        assert answer["choices"][0]["finish_reason"] == "stop"

    async def test_scores_as_transformers_does(self, engine: OnnxEngine, smollm2_folder: Path) -> None:
        prompt = engine.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 30)
        assert len(prompt) > 2 * 128, "the prompt must take several chunks"
        expected = await asyncio.to_thread(transformers_logprobs, smollm2_folder, prompt)
        scores = await engine.score(prompt, 5)
        assert scores[0] is None
        assert len(scores) == len(prompt)
        for place, score in enumerate(scores[1:]):
            assert score is not None
            row = expected[place]
            assert score.logprob == pytest.approx(float(row[prompt[place + 1]]), abs=1e-3)
            assert len(score.top) == 5
            assert [logprob for _, logprob in score.top] == pytest.approx(np.sort(row)[::-1][:5].tolist(), abs=1e-3)
            assert all(logprob == score.logprob for token, logprob in score.top if token == prompt[place + 1])

    async def test_gives_the_same_numbers_scored_or_generated(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        deltas = await collect(engine, prompt, logprobs=2)
        tokens = [token for delta in deltas for token in delta.token_ids]
        made = [entry for delta in deltas for entry in delta.logprobs or ()]
        scored = (await engine.score(prompt + tokens, 2))[len(prompt) :]
        assert len(made) == len(tokens) > 4
        for one, other in zip(made, scored, strict=True):
            assert other is not None
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in one.top] == [token for token, _ in other.top]

    async def test_seeds_do_not_depend_on_neighbours(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        hot: dict[str, Any] = {"temperature": 1.5, "top_p": 0.98, "max_tokens": 16, "ignore_eos": True}
        alone = await tokens_of(engine, prompt, seed=11, **hot)
        others = [tokens_of(engine, [*prompt[:-1], number], seed=number, **hot) for number in range(20, 39)]
        together, *rest = await asyncio.gather(tokens_of(engine, prompt, seed=11, **hot), *others)
        assert together == alone
        assert len({tuple(each) for each in rest}) == len(rest), "seeds must make a difference"
        assert await tokens_of(engine, prompt, seed=12, **hot) != alone

    async def test_newcomers_do_not_wait_for_the_running(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        long = Generation("long", prompt, Sampling(max_tokens=2000, temperature=0, ignore_eos=True))
        async with aclosing(engine.generate(long)) as running:
            await anext(running)
            assert len(await tokens_of(engine, prompt, max_tokens=4)) == 4
            produced = len((await anext(running)).token_ids)
            assert produced < 200, "the long one must still be under way"

    async def test_a_long_prompt_does_not_stop_the_running(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        long = Generation("long", prompt, Sampling(max_tokens=2000, temperature=0, ignore_eos=True))
        async with aclosing(engine.generate(long)) as running:
            await anext(running)
            newcomer = asyncio.create_task(tokens_of(engine, list(range(50, 1250)), max_tokens=1))
            deltas = 0
            while not newcomer.done():
                await anext(running)
                deltas += 1
            assert len(await newcomer) == 1
        assert deltas >= 5, "the prompt's chunks must leave room for steps between them"

    async def test_finishes_more_than_it_has_rows(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        answers = await asyncio.gather(*[tokens_of(engine, prompt, max_tokens=20) for _ in range(24)])
        assert {engine.tokenizer.decode(answer) for answer in answers} == {ANSWER}
        assert engine.running() == 0

    async def test_cancelling_frees_the_place(self, engine: OnnxEngine) -> None:
        prompt = question(engine)
        tasks = [
            asyncio.create_task(tokens_of(engine, prompt, max_tokens=4000, ignore_eos=True, temperature=1.0))
            for _ in range(20)
        ]
        await asyncio.sleep(1)
        assert engine.running() == 20
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        begin = time.monotonic()
        assert engine.running() == 0
        # The engine itself, not only its books, must be free: an answer of eight tokens comes at its usual pace.
        assert engine.tokenizer.decode(await tokens_of(engine, prompt)) == ANSWER
        assert time.monotonic() - begin < 2

    async def test_remembers_what_prompts_share(self, engine: OnnxEngine) -> None:
        prompt = engine.tokenizer.encode("Once upon a time there was a cache that forgot nothing. " * 6)
        first = await collect(engine, prompt, max_tokens=24, ignore_eos=True)
        again = await collect(engine, prompt, max_tokens=24, ignore_eos=True)
        assert sum(delta.cached_tokens for delta in again) == len(prompt) - 1
        assert [t for d in again for t in d.token_ids] == [t for d in first for t in d.token_ids]

    async def test_answers_a_prompt_of_one_token_beside_others(self, engine: OnnxEngine) -> None:
        alone = await tokens_of(engine, [504], max_tokens=6, ignore_eos=True)
        beside, _ = await asyncio.gather(
            tokens_of(engine, [504], max_tokens=6, ignore_eos=True), tokens_of(engine, question(engine))
        )
        assert beside == alone
        assert await engine.score([504], 1) == [None]

    async def test_refuses_what_would_break_the_batch(self, engine: OnnxEngine) -> None:
        for prompt in ([], [-1], [49152]):
            with pytest.raises(InvalidRequest):
                await collect(engine, prompt)
            with pytest.raises(InvalidRequest):
                await engine.score(prompt, 1)
        with pytest.raises(ContextOverflow):
            await collect(engine, [1] * 8190, max_tokens=3)
        assert engine.tokenizer.decode(await tokens_of(engine, question(engine))) == ANSWER


class TestGenaiEngine:
    """The library's own Engine, chosen by an option."""

    @pytest_asyncio.fixture(scope="class", loop_scope="class")
    @classmethod
    async def backend(cls, smollm2_folder: Path) -> AsyncGenerator[OnnxBackend]:
        backend = OnnxBackend(context_of(smollm2_folder, batching="genai"))
        try:
            await backend.start()
            yield backend
        finally:
            await backend.stop()

    async def test_gives_the_same_greedy_text(self, backend: OnnxBackend) -> None:
        answers = await asyncio.gather(*[collect(backend.engine, question(backend.engine)) for _ in range(6)])
        for deltas in answers:
            tokens = [token for delta in deltas for token in delta.token_ids]
            assert backend.engine.tokenizer.decode(tokens) == ANSWER
            assert deltas[-1].finish_reason == "stop"
            assert tokens[-1] in backend.engine.tokenizer.eos_token_ids

    async def test_scores_answers_by_the_graph(self, backend: OnnxBackend) -> None:
        prompt = question(backend.engine)
        deltas = await collect(backend.engine, prompt, logprobs=1)
        tokens = [token for delta in deltas for token in delta.token_ids]
        made = [entry for delta in deltas for entry in delta.logprobs or ()]
        assert [entry.top[0][0] for entry in made] == tokens
        assert made == (await backend.engine.score(prompt + tokens, 1))[len(prompt) :]

    async def test_stops_and_refuses(self, backend: OnnxBackend) -> None:
        engine = backend.engine
        asked = Generation("long", question(engine), Sampling(max_tokens=2000, temperature=0, ignore_eos=True))
        async with aclosing(engine.generate(asked)) as running:
            await anext(running)
        assert backend.running() == 0
        with pytest.raises(Unsupported, match="seed"):
            await collect(engine, question(engine), temperature=1.0, seed=1)
        assert len(await tokens_of(engine, question(engine), temperature=1.0, max_tokens=5, ignore_eos=True)) == 5


class TestLifecycle:
    async def test_is_bounded_and_ends_what_is_under_way(self, smollm2_folder: Path) -> None:
        backend = OnnxBackend(context_of(smollm2_folder, max_batch_size=2, max_waiting=1))
        await backend.start()
        engine = backend.engine
        prompt = question(engine)
        tasks = [asyncio.create_task(tokens_of(engine, prompt, max_tokens=4000, ignore_eos=True)) for _ in range(3)]
        await asyncio.sleep(0.5)
        with pytest.raises(Unavailable):
            await tokens_of(engine, prompt)
        await backend.stop()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, Unavailable)
        with pytest.raises(Unavailable):
            await backend.check_health()
        with pytest.raises(Unavailable):
            await tokens_of(engine, prompt)

    async def test_stops_after_a_failed_start(self, smollm2_folder: Path, tmp_path: Path) -> None:
        backend = OnnxBackend(BackendContext("broken", ModelSpec(backend="onnx"), tmp_path, "d", tmp_path))
        with pytest.raises(Exception, match="safetensors"):
            await backend.start()
        await backend.stop()


async def test_is_faster_together_than_the_library(smollm2_folder: Path) -> None:
    """A quick look that batching batches; the bench measures it properly."""
    context = context_of(smollm2_folder)
    made = plan(context)
    folder = await asyncio.to_thread(converted, context, made, silent)
    assert await asyncio.to_thread(static_batch_rate, folder, 4, 8, threads=made.threads) > 0
    backend = OnnxBackend(context)
    try:
        await backend.start()
        prompt = question(backend.engine)
        rates: list[float] = []
        for count in (1, 16):
            begin = time.monotonic()
            work = [tokens_of(backend.engine, prompt, max_tokens=32, ignore_eos=True) for _ in range(count)]
            made_tokens = sum(len(tokens) for tokens in await asyncio.gather(*work))
            rates.append(made_tokens / (time.monotonic() - begin))
        assert rates[1] > 3 * rates[0]
    finally:
        await backend.stop()


def transformers_logprobs(folder: Path, prompt: list[int]) -> np.ndarray:
    """[len(prompt), vocabulary] log-probabilities by Transformers in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return torch.log_softmax(model(torch.tensor([prompt])).logits[0], -1).numpy()
