"""The torch backend on the real model: the contract, Transformers' own numbers, and fairness between requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.engine import Delta, Generation, Sampling
from gateway.testing import AppClient, BackendContract
from gateway_torch.backend import TorchBackend
from tests.rows import SHARE

pytestmark = pytest.mark.slow

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0.0, "ignore_eos": True}


async def collect(stream: AsyncIterator[Delta]) -> list[int]:
    return [token async for delta in stream for token in delta.token_ids]


class TestTorch(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, smollm2_folder: Path) -> BackendContext:
        return BackendContext(
            "smollm2",
            ModelSpec(backend="torch", resources=SHARE),
            smollm2_folder,
            digest="d" * 64,
        )

    async def test_knows_its_model(self, backend: TorchBackend, smollm2_folder: Path) -> None:
        card = backend.card()
        assert (card.dtype, card.max_model_len, card.digest) == ("float32", 8192, "d" * 64)
        assert len(card.template_digest) == 64
        assert {"chat", "completions", "echo", "logprobs", "prompt_logprobs", "tokenize"} <= set(card.capabilities)
        assert card.root == str(smollm2_folder)

    async def test_knows_the_capital_of_france(self, client: AppClient) -> None:
        asked = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 20}
        answer = (await client.post("/v1/chat/completions", asked)).json()
        assert answer["choices"][0]["message"]["content"] == "The capital of France is Paris."

    async def test_scores_as_transformers_does(self, backend: TorchBackend, smollm2_folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
        prompts = [
            backend.engine.tokenizer.encode(text, add_special_tokens=False)
            for text in ("The capital of France is Paris.", "2 + 2 = 5, said nobody, and " * 12, "été 中国 \N{SNOWMAN}")
        ]
        scores = await asyncio.gather(*[backend.engine.score(prompt, 3) for prompt in prompts])
        for prompt, score in zip(prompts, scores, strict=True):
            with torch.inference_mode():
                expected = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            assert score[0] is None
            for position, entry in enumerate(score[1:]):
                assert entry is not None
                assert entry.logprob == pytest.approx(float(expected[position, prompt[position + 1]]), abs=1e-4)
                best = expected[position].topk(3).values.tolist()
                assert [value for _, value in entry.top] == pytest.approx(best, abs=1e-4)

    async def test_is_as_greedy_among_neighbours_as_alone(self, backend: TorchBackend) -> None:
        engine = backend.engine
        prompt = engine.tokenizer.encode(engine.tokenizer.render_chat(QUESTION), add_special_tokens=False)
        neighbours = [
            engine.tokenizer.encode(f"{number} bottles of beer on the wall, " * number, add_special_tokens=False)
            for number in range(1, 9)
        ]

        def ask(ids: list[int]) -> Any:
            return collect(engine.generate(Generation("x", ids, Sampling(32, **GREEDY))))

        alone = await ask(prompt)
        together = await asyncio.gather(ask(prompt), *[ask(neighbour) for neighbour in neighbours])
        assert together[0] == alone

    async def test_computes_requests_together(self, backend: TorchBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        """16 answers of 32 tokens: their steps are counted, for a clock would measure the machine."""
        from gateway_torch.model import LanguageModel

        whole, sizes = LanguageModel.step, list[int]()

        def step(model: LanguageModel, cache: Any, tokens: Any, lengths: Any) -> Any:
            sizes.append(len(tokens))
            return whole(model, cache, tokens, lengths)

        monkeypatch.setattr(LanguageModel, "step", step)
        ids = backend.engine.tokenizer.encode("Once upon a time", add_special_tokens=False)
        wish = Sampling(32, **GREEDY)
        answers = await asyncio.gather(
            *[collect(backend.engine.generate(Generation("x", ids, wish))) for _ in range(16)]
        )
        assert all(answer == answers[0] and len(answer) == 32 for answer in answers)
        assert sum(sizes) == 16 * 31, "the first token of each comes with its prompt"
        assert len(sizes) < 40

    async def test_a_long_prompt_does_not_stall_the_others(self, backend: TorchBackend) -> None:
        engine, made, at_first = backend.engine, 0, 0

        async def long() -> None:
            nonlocal at_first
            async for _ in engine.generate(Generation("long", [7] * 1500, Sampling(1, **GREEDY))):
                at_first = made

        stream = engine.generate(Generation("x", [5, 6, 7], Sampling(200, **GREEDY)))
        made += len((await anext(stream)).token_ids)
        before, task = made, asyncio.create_task(long())
        async for delta in stream:
            made += len(delta.token_ids)
            if task.done():
                break
        await stream.aclose()
        await task
        # 1500 tokens are six pieces, and between two pieces everybody else makes a step.
        assert 4 <= at_first - before <= 12
