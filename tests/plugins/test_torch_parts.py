"""The torch backend's parts, on tiny models with random weights: choices, draws, changing batches, what fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.engine import Delta, Generation, Sampling
from gateway.errors import BackendFailed, ConfigError, ContextOverflow, InvalidRequest, SourceError, Unavailable
from gateway_torch.backend import TorchBackend
from gateway_torch.options import read_options
from gateway_torch.prefill import pick
from gateway_torch.row import Row

GREEDY = {"temperature": 0.0, "ignore_eos": True}


def test_the_plugin_imports_nothing_heavy() -> None:
    script = "import sys, gateway_torch; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestOptions:
    def test_every_problem_is_named_with_its_path(self) -> None:
        with pytest.raises(ConfigError) as raised:
            read_options("m", {"max_batch": 3, "max_batch_size": 0, "device": "tpu", "prefill_tokens": "64"})
        lines = raised.value.message.splitlines()
        assert len(lines) == 4
        assert any(
            line.startswith("models.m.options.max_batch: unknown setting") and "max_batch_size" in line
            for line in lines
        )
        for name in ("max_batch_size", "device", "prefill_tokens"):
            assert any(line.startswith(f"models.m.options.{name}: ") for line in lines)

    def test_int4_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"models\.m\.dtype: .* no int4"):
            TorchBackend(BackendContext("m", ModelSpec(backend="torch", dtype="int4"), Path()))

    async def test_a_model_needs_a_source(self) -> None:
        backend = TorchBackend(BackendContext("m", ModelSpec(backend="torch"), None))
        with pytest.raises(ConfigError, match=r"models\.m\.source"):
            await backend.start()
        await backend.stop()


class TestPick:
    """Which prompts are computed next."""

    def rows(self, *lengths: int, scored: Sequence[int] = ()) -> list[Row]:
        return [
            Row([1] * length, None if index in scored else Sampling(1), arrival=index)
            for index, length in enumerate(lengths)
        ]

    async def test_the_oldest_and_the_shortest_lead_in_turn(self) -> None:
        rows = self.rows(4000, 30)
        assert pick(rows, 256, oldest=True) == ([rows[0]], 256)
        assert pick(rows, 256, oldest=False) == ([rows[1]], 30)

    async def test_others_come_along_while_they_fit(self) -> None:
        rows = self.rows(40, 30, 36, 50, 64, 300)
        picked, width = pick(rows, 256, oldest=False)
        assert picked == [rows[1], rows[2], rows[0], rows[3]]
        assert width == 50

    async def test_the_area_stays_within_the_budget(self) -> None:
        for lengths in ((7,) * 100, (1, 2, 3, 500), (256, 1), (100, 100, 100), (300,)):
            for oldest in (True, False):
                picked, width = pick(self.rows(*lengths), 256, oldest=oldest)
                assert 0 < len(picked) * width <= 256

    async def test_scores_and_generations_do_not_mix(self) -> None:
        rows = self.rows(20, 20, 20, scored=[1])
        assert pick(rows, 256, oldest=True)[0] == [rows[0], rows[2]]


@pytest.mark.slow
class TestSampling:
    def logits(self, rows: int, vocab: int, seed: int = 0) -> Any:
        import torch

        return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3

    def choose(self, logits: Any, wishes: Sequence[Sampling]) -> tuple[list[int], list[Any]]:
        from gateway_torch.sampling import choose

        return choose(logits, [Row([1], wish) for wish in wishes])

    async def test_greedy_takes_the_lowest_id_among_equals(self) -> None:
        logits = self.logits(2, 50)
        logits[0, [7, 30]] = logits[1, [12, 13]] = 99.0
        assert self.choose(logits, [Sampling(1, temperature=0), Sampling(1, temperature=1e-9)])[0] == [7, 12]

    @pytest.mark.parametrize("vocab", [40, 2000])
    @pytest.mark.parametrize(
        "wish",
        [
            {"temperature": 0.7},
            {"top_k": 5},
            {"top_p": 0.6},
            {"top_p": 0.999, "temperature": 2.0},
            {"top_k": 12, "top_p": 0.8, "temperature": 1.3},
            {"top_k": 1200, "top_p": 0.9, "temperature": 3.0},
            {"top_p": 1e-6},
        ],
    )
    async def test_draws_what_transformers_would(self, vocab: int, wish: dict[str, Any]) -> None:
        """20,000 draws against the probabilities of the library's own warpers, by a chi-square test."""
        import torch
        from scipy.stats import chisquare  # pyright: ignore[reportUnknownVariableType]
        from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        from gateway_torch.sampling import _draw, _weights

        logits = self.logits(1, vocab)
        sampling = Sampling(1, **wish)
        expected: Any = TemperatureLogitsWarper(sampling.temperature)(None, logits)
        if sampling.top_k:
            expected = TopKLogitsWarper(min(sampling.top_k, vocab))(None, expected)
        if sampling.top_p < 1:
            expected = TopPLogitsWarper(sampling.top_p)(None, expected)
        expected = expected.softmax(-1)[0]
        weights = _weights(logits, [sampling])
        assert float((weights[0] / weights.sum() - expected).abs().max()) < 1e-6
        count = 20_000
        generators = [np.random.default_rng(5)] * 500
        parts = [_draw(weights.expand(500, -1), generators) for _ in range(0, count, 500)]
        found = torch.cat(parts).bincount(minlength=vocab)
        assert (found[expected == 0] == 0).all(), "a token was drawn that the warpers take out"
        # What is expected less than ten times is counted together.
        rare = expected * count < 10
        drawn = [*found[~rare].tolist(), int(found[rare].sum())]
        shares = [*expected[~rare].tolist(), float(expected[rare].sum())]
        if not shares[-1]:
            drawn, shares = drawn[:-1], shares[:-1]
        wanted = np.array(shares) / sum(shares) * count
        assert len(drawn) == 1 or chisquare(drawn, wanted).pvalue > 1e-3

    async def test_the_last_bits_of_the_logits_do_not_change_a_seeded_row(self) -> None:
        import torch

        wishes = [Sampling(1, temperature=1.5, seed=seed) for seed in range(300)]
        logits = self.logits(300, 49_152) / 1.5
        noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)) * 1e-4
        assert self.choose(logits, wishes)[0] == self.choose(logits + noise, wishes)[0]

    async def test_neighbours_do_not_change_a_seeded_row(self) -> None:
        logits = self.logits(4, 3000)
        wish = Sampling(1, temperature=0.9, top_p=0.9, seed=5)
        others = [Sampling(1, temperature=0), Sampling(1, top_k=2, seed=1), Sampling(1, temperature=5.0, seed=2)]
        alone, _ = self.choose(logits[:1], [wish])
        together, _ = self.choose(logits, [wish, *others])
        assert together[0] == alone[0]

    async def test_logprobs_are_the_models_own(self) -> None:
        logits = self.logits(3, 100)
        wishes = [
            Sampling(1, temperature=0, logprobs=3),
            Sampling(1, temperature=0.2, top_k=1, logprobs=0),
            Sampling(1, temperature=0),
        ]
        tokens, reports = self.choose(logits, wishes)
        expected = logits.log_softmax(-1)
        assert reports[0].logprob == pytest.approx(float(expected[0, tokens[0]]), abs=1e-5)
        assert reports[0].logprob == reports[0].top[0][1], "harnesses test for greedy by the equality of floats"
        assert [token for token, _ in reports[0].top] == expected[0].topk(3).indices.tolist()
        assert reports[1].top == ()
        assert reports[1].logprob == pytest.approx(float(expected[1, tokens[1]]), abs=1e-5)
        assert reports[2] is None


def save_tiny(folder: Path, config: Any) -> Path:
    """A model of this shape with random weights, and a tokenizer of its words w0, w1, …"""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "w1"}')
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=200,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    return save_tiny(tmp_path_factory.mktemp("tiny"), config)


def make(folder: Path, max_model_len: int | None = None, **options: Any) -> TorchBackend:
    spec = ModelSpec(backend="torch", options=options, max_model_len=max_model_len)
    return TorchBackend(BackendContext("tiny", spec, folder))


async def collect(stream: AsyncIterator[Delta]) -> list[int]:
    return [token async for delta in stream for token in delta.token_ids]


@pytest.mark.slow
class TestScheduler:
    PROMPTS = tuple([(7 * row + index) % 199 + 1 for index in range(3 + 19 * (row * 7 % 12))] for row in range(12))
    """Of 3 to 212 tokens, long before short and short before long."""

    @pytest.fixture
    async def backend(self, tiny: Path) -> AsyncIterator[TorchBackend]:
        backend = make(tiny, max_batch_size=4, prefill_tokens=64)
        await backend.start()
        yield backend
        await backend.stop()

    def check_greedy(self, tiny: Path, answers: Sequence[list[int]], counts: Sequence[int]) -> None:
        """That answers to the first prompts are the library's own, which computes each row alone: every token is the
        likeliest after those before it."""
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        for prompt, answer, count in zip(self.PROMPTS, answers, counts, strict=False):
            with torch.inference_mode():
                likeliest = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].argmax(-1)
            assert len(answer) == count
            assert answer == likeliest.tolist(), prompt
        assert len(answers) == len(counts)

    async def together(self, backend: TorchBackend, count: int) -> list[list[int]]:
        async def one(index: int, prompt: list[int]) -> list[int]:
            # They come one by one, and end one by one: rows join and leave in the midst of others.
            await asyncio.sleep(0.01 * index)
            wish = Sampling(count + index, **GREEDY)
            return await collect(backend.engine.generate(Generation(str(index), prompt, wish)))

        return await asyncio.gather(*[one(index, prompt) for index, prompt in enumerate(self.PROMPTS)])

    async def test_rows_that_come_and_go_get_what_they_would_alone(self, tiny: Path, backend: TorchBackend) -> None:
        self.check_greedy(tiny, await self.together(backend, 40), range(40, 52))
        assert backend.running() == 0

    async def test_rows_that_give_way_get_the_same(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Room for one row of 1024 tokens, or two of 512, or four of 256: rows cross these borders while they run."""
        whole, gave_way = Row.restart, list[int]()

        def restart(row: Row) -> None:
            gave_way.append(row.generated)
            whole(row)

        monkeypatch.setattr(Row, "restart", restart)
        backend = make(tiny, max_batch_size=4, prefill_tokens=64, cache_tokens=1024)
        await backend.start()
        try:
            answers = await self.together(backend, 120)
        finally:
            await backend.stop()
        self.check_greedy(tiny, answers, range(120, 132))
        assert any(gave_way), "nobody had to give way in the midst of an answer"

    async def test_scores_pieces_as_the_whole(self, tiny: Path, backend: TorchBackend) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
        scores = await asyncio.gather(*[backend.engine.score(prompt, 2) for prompt in self.PROMPTS])
        for prompt, score in zip(self.PROMPTS, scores, strict=True):
            with torch.inference_mode():
                expected = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
            assert len(score) == len(prompt)
            assert score[0] is None
            for position, entry in enumerate(score[1:]):
                assert entry is not None
                assert entry.logprob == pytest.approx(float(expected[position, prompt[position + 1]]), abs=1e-4)
                assert [value for _, value in entry.top] == pytest.approx(
                    expected[position].topk(2).values.tolist(), abs=1e-4
                )

    async def test_a_single_token_has_no_score(self, backend: TorchBackend) -> None:
        assert await backend.engine.score([5], 3) == [None]

    async def test_a_seed_gives_the_same_beside_others(self, backend: TorchBackend) -> None:
        wish = Sampling(30, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True)
        generation = Generation("x", self.PROMPTS[2], wish)
        alone = await collect(backend.engine.generate(generation))
        first, *_ = await asyncio.gather(
            collect(backend.engine.generate(generation)),
            *[
                collect(backend.engine.generate(Generation("y", prompt, Sampling(25, seed=1, ignore_eos=True))))
                for prompt in self.PROMPTS[3:6]
            ],
        )
        assert first == alone

    async def test_an_end_token_ends_and_is_counted(self, tiny: Path, backend: TorchBackend) -> None:
        long = await collect(
            backend.engine.generate(Generation("x", [9, 8], Sampling(600, seed=3, ignore_eos=True, temperature=2.0)))
        )
        assert 1 in long, "the draw never met the end token: take another seed"
        deltas = [
            delta
            async for delta in backend.engine.generate(Generation("x", [9, 8], Sampling(600, seed=3, temperature=2.0)))
        ]
        tokens = [token for delta in deltas for token in delta.token_ids]
        assert tokens == long[: long.index(1) + 1]
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]

    async def test_wrong_prompts_hurt_nobody(self, backend: TorchBackend) -> None:
        for prompt, error in (([], InvalidRequest), ([200], InvalidRequest), ([-1], InvalidRequest)):
            with pytest.raises(error):
                await collect(backend.engine.generate(Generation("x", prompt, Sampling(3))))
        with pytest.raises(ContextOverflow, match="1000 prompt tokens and 25 more do not fit the context of 1024"):
            await collect(backend.engine.generate(Generation("x", [5] * 1000, Sampling(25))))
        with pytest.raises(ContextOverflow):
            await backend.engine.score([5] * 1025, 0)
        await backend.check_health()

    async def test_a_failed_step_fails_its_rows_and_no_others(
        self, tiny: Path, backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gateway_torch.model import LanguageModel

        whole, calls = LanguageModel.step, 0

        def step(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 5:
                raise RuntimeError("out of memory")
            return whole(*arguments)

        monkeypatch.setattr(LanguageModel, "step", step)
        failing = [
            collect(backend.engine.generate(Generation("x", prompt, Sampling(20, **GREEDY))))
            for prompt in self.PROMPTS[:2]
        ]
        for answer in await asyncio.gather(*failing, return_exceptions=True):
            assert isinstance(answer, BackendFailed)
            assert "out of memory" not in answer.message, "what went wrong inside is for the log"
        await backend.check_health()
        after = await collect(backend.engine.generate(Generation("x", self.PROMPTS[0], Sampling(9, **GREEDY))))
        self.check_greedy(tiny, [after], [9])
        assert backend.running() == 0

    async def test_steps_that_go_on_failing_make_it_ill(
        self, backend: TorchBackend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from gateway_torch.model import LanguageModel

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the device has gone")

        monkeypatch.setattr(LanguageModel, "chunk", broken)
        for _ in range(3):
            with pytest.raises(BackendFailed):
                await collect(backend.engine.generate(Generation("x", [4, 5, 6], Sampling(3))))
        with pytest.raises(Unavailable):
            await backend.check_health()
        with pytest.raises(Unavailable):
            await collect(backend.engine.generate(Generation("x", [4, 5, 6], Sampling(3))))

    async def test_a_full_queue_says_so(self, tiny: Path) -> None:
        backend = make(tiny, max_batch_size=1, max_waiting=2)
        await backend.start()
        try:
            wish = Sampling(900, **GREEDY)
            streams = [backend.engine.generate(Generation("x", [3, 4], wish)) for _ in range(4)]
            taken = [asyncio.create_task(anext(stream)) for stream in streams[:3]]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="queue is full"):
                await anext(streams[3])
            for task in taken:
                task.cancel()
            await asyncio.wait(taken)
            deadline = asyncio.get_running_loop().time() + 1
            while backend.running():
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)
        finally:
            await backend.stop()

    async def test_stopping_tells_those_that_wait(self, tiny: Path) -> None:
        backend = make(tiny, max_batch_size=1)
        await backend.start()
        engine = backend.engine
        wish = Sampling(1000, **GREEDY)
        tasks = [asyncio.create_task(collect(engine.generate(Generation("x", [3], wish)))) for _ in range(3)]
        await asyncio.sleep(0.05)
        await backend.stop()
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(answer, Unavailable)
        with pytest.raises(Unavailable):
            await backend.check_health()
        with pytest.raises(Unavailable):
            await anext(engine.generate(Generation("x", [3], wish)))


@pytest.mark.slow
class TestRefusals:
    async def refused(self, backend: TorchBackend, error: type[Exception], says: str) -> None:
        with pytest.raises(error, match=says) as raised:
            await backend.start()
        assert "\n" not in str(raised.value)
        await backend.stop()

    async def test_pickled_weights(self, tiny: Path, tmp_path: Path) -> None:
        import torch
        from safetensors.torch import load_file

        folder = copy(tiny, tmp_path)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        await self.refused(make(folder), SourceError, "cannot be loaded: .*model.safetensors")

    async def test_damaged_weights(self, tiny: Path, tmp_path: Path) -> None:
        folder = copy(tiny, tmp_path)
        (folder / "model.safetensors").write_bytes(b"not weights")
        await self.refused(make(folder), SourceError, "cannot be loaded")

    async def test_contexts_that_cannot_be(self, tiny: Path) -> None:
        await self.refused(make(tiny, max_model_len=4096), ConfigError, "max_model_len: 4096 is more than .* 1024")
        await self.refused(make(tiny, cache_tokens=512), ConfigError, "options.cache_tokens: 512 cannot hold")

    async def test_a_shorter_context_can(self, tiny: Path) -> None:
        backend = make(tiny, max_model_len=100, cache_tokens=256)
        await backend.start()
        try:
            assert backend.card().max_model_len == 100
            with pytest.raises(ContextOverflow):
                await collect(backend.engine.generate(Generation("x", [3] * 99, Sampling(2))))
        finally:
            await backend.stop()

    async def test_attention_that_would_be_computed_wrongly(self, tmp_path: Path) -> None:
        from transformers import MistralConfig

        config = MistralConfig(
            vocab_size=50,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
        )
        folder = save_tiny(tmp_path, config)
        await self.refused(make(folder, max_model_len=256), ConfigError, "its attention needs 'sliding_window'")


def copy(folder: Path, target: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, target / "copy"))


@pytest.mark.slow
def test_the_yardstick_measures(tiny: Path) -> None:
    import torch

    from gateway_torch.reference import static_batch_rate

    threads = torch.get_num_threads()
    assert static_batch_rate(tiny, batch=4, tokens=8) > 0
    assert torch.get_num_threads() == threads
