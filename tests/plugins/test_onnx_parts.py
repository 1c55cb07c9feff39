"""The rooms of the onnx plugin one by one: options, sampling, cache memory, rows, and conversion with its damage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway import manifest
from gateway.backend import BackendContext, silent
from gateway.config import ModelSpec, ResourceSpec
from gateway.engine import Generation, Sampling
from gateway.errors import ConfigError, SourceError
from gateway_onnx import conversion
from gateway_onnx.batch import Emission
from gateway_onnx.cache import RowCache
from gateway_onnx.continuous import BatchLimits, ContinuousBatch
from gateway_onnx.graph import DecoderGraph
from gateway_onnx.options import parse_options, plan
from gateway_onnx.rows import Rows, Running, common_prefix
from gateway_onnx.sampling import Sampler, logprobs_of


def context_of(folder: Path | None = None, cache: Path = Path(), **spec: Any) -> BackendContext:
    return BackendContext("m", ModelSpec(backend="onnx", **spec), folder, "", cache)


class TestOptions:
    def test_names_what_it_does_not_know(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_options(context_of(options={"max_batch": 4, "provider": "tpu"}))
        lines = caught.value.message.splitlines()
        assert any(line.startswith("models.m.options.max_batch: unknown setting") for line in lines)
        assert any(line.startswith("models.m.options.provider: ") for line in lines)

    def test_decides_for_this_machine(self) -> None:
        made = plan(context_of(options={"provider": "cpu"}, resources=ResourceSpec(threads=3)))
        assert (made.provider, made.batching, made.precision, made.dtype) == ("cpu", "rows", "fp32", "float32")
        assert made.threads == 3
        assert plan(context_of(dtype="int4", options={"provider": "cpu"})).precision == "int4"

    def test_refuses_precisions_that_a_cpu_has_not(self) -> None:
        with pytest.raises(ConfigError, match=r"models\.m\.dtype"):
            plan(context_of(dtype="bfloat16", options={"provider": "cpu"}))


class TestSampling:
    def draws(self, logits: list[float], count: int = 4000, **sampling: Any) -> np.ndarray:
        sampler = Sampler(Sampling(1, **{"seed": 5, **sampling}))
        row = np.array(logits, np.float32)
        return np.bincount([sampler.choose(row) for _ in range(count)], minlength=len(logits)) / count

    def test_is_greedy_at_zero(self) -> None:
        assert self.draws([1, 3, 3, 0], 10, temperature=0).tolist() == [0, 1, 0, 0]

    def test_follows_the_distribution(self) -> None:
        logits = np.log([0.5, 0.3, 0.15, 0.05])
        assert self.draws(logits.tolist()) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
        flatter = np.exp(logits / 2) / np.exp(logits / 2).sum()
        assert self.draws(logits.tolist(), temperature=2) == pytest.approx(flatter, abs=0.03)

    def test_follows_a_distribution_of_many_blocks(self) -> None:
        logits = np.full(1000, -20.0)
        logits[[3, 255, 256, 999]] = np.log([0.4, 0.3, 0.2, 0.1])
        found = self.draws(logits.tolist())
        assert found[[3, 255, 256, 999]] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.03)

    def test_cuts_at_top_k_and_top_p(self) -> None:
        logits = np.log([0.05, 0.5, 0.15, 0.3]).tolist()
        assert np.flatnonzero(self.draws(logits, top_k=2)).tolist() == [1, 3]
        assert np.flatnonzero(self.draws(logits, top_p=0.79)).tolist() == [1, 3]
        assert np.flatnonzero(self.draws(logits, top_p=0.81)).tolist() == [1, 2, 3]
        assert np.flatnonzero(self.draws(logits, top_p=1e-9)).tolist() == [1]
        assert np.flatnonzero(self.draws(logits, top_k=3, top_p=0.5)).tolist() == [1]
        assert self.draws(logits, top_k=2) == pytest.approx([0, 0.625, 0, 0.375], abs=0.03)

    def test_top_k_of_equals_is_exactly_k(self) -> None:
        assert np.flatnonzero(self.draws([1.0] * 8, top_k=3)).tolist() == [0, 1, 2]

    def test_survives_a_temperature_near_zero(self) -> None:
        assert self.draws([5, 9, 1], 20, temperature=1e-9).tolist() == [0, 1, 0]

    def test_takes_any_seed(self) -> None:
        for seed in (0, -1, 2**63, 2**70):
            sampler = [Sampler(Sampling(1, seed=seed)) for _ in range(2)]
            row = np.zeros(1000, np.float32)
            assert sampler[0].choose(row) == sampler[1].choose(row)

    def test_the_last_bits_of_the_logits_do_not_decide(self) -> None:
        random = np.random.default_rng(0)
        for seed in range(300):
            logits = random.normal(0, 2, 49_152).astype(np.float32)
            nearly = logits + random.normal(0, 1e-4, logits.size).astype(np.float32)
            sampling = Sampling(1, temperature=1.5, seed=seed)
            assert Sampler(sampling).choose(logits) == Sampler(sampling).choose(nearly)

    def test_a_token_left_in_has_its_noise_whatever_is_cut(self) -> None:
        logits = np.random.default_rng(0).normal(0, 2, 1000).astype(np.float32)
        free = [Sampler(Sampling(1, seed=seed)).choose(logits) for seed in range(100)]
        cut = [Sampler(Sampling(1, seed=seed, top_k=900)).choose(logits) for seed in range(100)]
        assert sum(a == b for a, b in zip(free, cut, strict=True)) > 95

    def test_scores(self) -> None:
        logits = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
        exact = logits.astype(np.float64)
        exact -= np.log(np.exp(exact).sum(-1, keepdims=True))
        for top in (0, 1, 4):
            for row, (token, found) in enumerate(zip([7, 8, 9], logprobs_of(logits, [7, 8, 9], top), strict=True)):
                assert found.logprob == pytest.approx(exact[row, token], abs=1e-5)
                assert [each for each, _ in found.top] == np.argsort(-exact[row])[:top].tolist()


class TestCache:
    def resident(self) -> int:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    def test_takes_memory_as_it_is_used_and_gives_it_back(self) -> None:
        before = self.resident()
        cache = RowCache(planes=8, rows=16, heads=4, length=16384, head_size=64)
        assert self.resident() - before < 2**24
        values = cache._values  # pyright: ignore[reportPrivateUsage] (the memory itself is what is tested)
        values[:, 3, :, :8192] = 1
        used = self.resident() - before
        assert used == pytest.approx(8192 * cache.token_bytes, rel=0.2)
        cache.trim(3, 64, 8192)
        assert self.resident() - before < 0.2 * used
        assert (values[:, 3, :, :64] == 1).all()
        assert (values[:, 3, :, 64:8192] == 0).all()

    def test_moves_and_swaps_rows(self) -> None:
        cache = RowCache(planes=2, rows=3, heads=2, length=64, head_size=16)
        values = cache._values  # pyright: ignore[reportPrivateUsage]
        values[:, 0, :, :40], values[:, 1, :, :10] = 1, 2
        cache.swap(0, 1, 40, 10)
        assert (values[:, 1, :, :40] == 1).all()
        assert (values[:, 0, :, :10] == 2).all()
        cache.move(1, 2, 5)
        assert (values[:, 2, :, :5] == 1).all()


class TestRows:
    def running(self, turn: int, tokens: list[int]) -> Running:
        generation = Generation(str(turn), tokens, Sampling(1))
        return Running(generation, turn, Sampler(generation.sampling), list(tokens))

    def run(self, rows: Rows, turn: int, tokens: list[int]) -> Running:
        """A sequence that has computed its whole prompt and runs."""
        sequence = self.running(turn, tokens)
        rows.fill(sequence)
        sequence.computed = len(tokens)
        rows.join()
        return sequence

    def test_running_rows_stay_together(self) -> None:
        rows = Rows(RowCache(2, 4, 1, 64, 16))
        a, b, c = (self.run(rows, turn, [turn] * 5) for turn in (1, 2, 3))
        rows.leave(a)
        assert rows.sequences == [c, b]
        rows.leave(b)
        assert rows.sequences == [c]
        assert rows.used() == 5
        assert rows.kept() == 10

    def test_others_may_leave_while_one_is_filling(self) -> None:
        rows = Rows(RowCache(2, 4, 1, 64, 16))
        a, b = self.run(rows, 1, [1, 2]), self.run(rows, 2, [3, 4])
        filling = self.running(3, [5, 6, 7])
        rows.fill(filling)
        rows.leave(a)
        rows.join()
        assert rows.sequences == [b, filling]

    def test_finds_beginnings(self) -> None:
        rows = Rows(RowCache(2, 4, 1, 64, 16))
        first = self.run(rows, 1, list(range(20)))
        sharing = self.running(2, [*range(12), 99, 98])
        rows.fill(sharing)
        assert (sharing.computed, sharing.reused) == (12, 12)
        rows.leave(sharing)
        rows.leave(first)
        again = self.running(3, list(range(20)))
        rows.fill(again)
        assert again.computed == 19, "the last token is always computed"

    def test_overwrites_the_oldest(self) -> None:
        rows = Rows(RowCache(2, 2, 1, 64, 16))
        old, new = self.run(rows, 1, [1] * 9), self.run(rows, 2, [2] * 9)
        rows.leave(old)
        rows.leave(new)
        self.run(rows, 3, [3] * 9)
        assert new in rows.places
        assert old not in rows.places
        assert rows.forget()
        assert not rows.forget()
        assert rows.kept() == 0

    def test_common_prefix(self) -> None:
        for length in range(9):
            assert common_prefix(list(range(8)), [*range(length), -1], 8) == min(length, 8)
        assert common_prefix([1, 2, 3], [1, 2, 3], 2) == 2


@pytest.fixture(scope="session")
def tiny_graph(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, converted."""
    context = context_of(tiny_folder, tmp_path_factory.mktemp("converted"), options={"provider": "cpu"})
    return conversion.converted(context, plan(context), silent)


@pytest.mark.slow
class TestConversion:
    def prepared(self, folder: Path, cache: Path, seen: list[tuple[str, float]] | None = None) -> Path:
        conversion.prepare(
            context_of(folder, cache, options={"provider": "cpu"}),
            lambda what, share: seen.append((what, share)) if seen is not None else None,
        )
        return next(path for path in cache.iterdir() if path.is_dir())

    def whole(self, tiny_graph: Path, cache: Path) -> Path:
        """A cache that holds the tiny model, converted before."""
        return Path(shutil.copytree(tiny_graph, cache / tiny_graph.name))

    def test_reuses_what_is_whole_and_repairs_damage(self, tiny_folder: Path, tiny_graph: Path, tmp_path: Path) -> None:
        made = self.whole(tiny_graph, tmp_path)
        data = made / "model.onnx.data"
        whole, stamp = manifest.sha256_of(data), data.stat().st_mtime_ns
        assert self.prepared(tiny_folder, tmp_path) == made
        assert data.stat().st_mtime_ns == stamp, "a whole folder must be reused"

        raw = bytearray(data.read_bytes())
        raw[len(raw) // 2] ^= 1
        data.write_bytes(raw)
        seen: list[tuple[str, float]] = []
        self.prepared(tiny_folder, tmp_path, seen)
        assert manifest.sha256_of(data) == whole
        assert any(what == "converting to ONNX" and share > 0.3 for what, share in seen)
        assert seen[-1][1] == 1.0
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == [made], "nothing half-made may stay"

    def test_a_start_repairs_what_it_sees_at_a_glance(
        self, tiny_folder: Path, tiny_graph: Path, tmp_path: Path
    ) -> None:
        made = self.whole(tiny_graph, tmp_path)
        (made / "model.onnx.data").write_bytes(b"cut short")
        left = tmp_path / f".onnx-partial-{made.name}-abc"
        left.mkdir()
        context = context_of(tiny_folder, tmp_path, options={"provider": "cpu"})
        assert conversion.converted(context, plan(context), silent) == made
        assert manifest.sha256_of(made / "model.onnx.data") == manifest.sha256_of(tiny_graph / "model.onnx.data")
        assert not left.exists(), "what a killed conversion left must go"

    def test_says_what_it_cannot_convert(self, tiny_folder: Path, tmp_path: Path) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(tiny_folder, broken)
        (broken / "model.safetensors").write_bytes(b"no weights")
        cache = tmp_path / "cache"
        with pytest.raises(SourceError, match="cannot be converted to ONNX"):
            self.prepared(broken, cache)
        assert [path for path in cache.iterdir() if path.is_dir()] == []
        (broken / "model.safetensors").unlink()
        with pytest.raises(SourceError, match="holds no"):
            self.prepared(broken, cache)


@pytest.mark.slow
class TestContinuousBatch:
    """Many sequences through a tiny graph, with and without room."""

    def batch(self, folder: Path, rows: int, tokens_of_room: int | None = None) -> ContinuousBatch:
        graph = DecoderGraph(folder, threads=1, spinning=False)
        token_bytes = graph.cache(1, 16).token_bytes
        room = 2.0**30 if tokens_of_room is None else tokens_of_room * token_bytes
        return ContinuousBatch(graph, BatchLimits(rows, 16, room, 256, frozenset({2})))

    def generations(self) -> list[Generation]:
        random = np.random.default_rng(3)
        prompts = [random.integers(3, 49000, int(length)).tolist() for length in random.integers(1, 90, 12)]
        return [
            Generation(str(n), prompt, Sampling(100, 1.3 if n % 2 else 0.0, seed=n, ignore_eos=True, logprobs=1))
            for n, prompt in enumerate(prompts)
        ]

    def finish(self, batch: ContinuousBatch) -> dict[str, list[Emission]]:
        found: dict[str, list[Emission]] = {}
        while batch.busy():
            for emission in batch.step():
                found.setdefault(emission.id, []).append(emission)
        return found

    def tokens(self, found: dict[str, list[Emission]]) -> dict[str, list[int]]:
        return {work: [token for each in emissions for token in each.tokens] for work, emissions in found.items()}

    def test_little_room_changes_nothing_but_time(self, tiny_graph: Path) -> None:
        alone: dict[str, list[int]] = {}
        batch = self.batch(tiny_graph, 1)
        for generation in self.generations():
            batch.generate(generation)
            alone |= self.tokens(self.finish(batch))
        # 12 sequences of up to 190 tokens in rows for 256: most of them are sent back to wait, some of them twice.
        for rows, room in ((8, None), (8, 256), (3, 300)):
            batch = self.batch(tiny_graph, rows, room)
            for generation in self.generations():
                batch.generate(generation)
            found = self.finish(batch)
            assert self.tokens(found) == alone
            assert all(emissions[-1].finish_reason == "length" for emissions in found.values())
            batch.close()

    def test_removing_disturbs_nobody(self, tiny_graph: Path) -> None:
        batch = self.batch(tiny_graph, 4)
        for generation in self.generations():
            batch.generate(generation)
        whole = self.tokens(self.finish(batch))
        for generation in self.generations():
            batch.generate(generation)
        found: dict[str, list[Emission]] = {}
        steps = 0
        while batch.busy():
            # Running, filling and waiting ones leave at different moments.
            steps += 1
            if steps % 10 == 0:
                batch.remove(str(steps // 10))
            for emission in batch.step():
                found.setdefault(emission.id, []).append(emission)
        ended = {work for work, emissions in found.items() if emissions[-1].finish_reason is not None}
        assert 0 < len(ended) < 12
        for work, tokens in self.tokens(found).items():
            assert tokens == whole[work][: len(tokens)]

    def test_scores_beside_generations(self, tiny_graph: Path) -> None:
        batch = self.batch(tiny_graph, 4)
        generations = self.generations()
        batch.score("alone", generations[5].prompt, 2)
        alone = self.finish(batch)["alone"][0].scores
        for generation in generations:
            batch.generate(generation)
        for name in ("a", "b", "gone"):
            batch.score(name, generations[5].prompt, 2)
        batch.remove("gone")
        found = self.finish(batch)
        assert "gone" not in found
        for name in ("a", "b"):
            scores = found[name][0].scores
            assert scores is not None
            assert alone is not None
            assert len(scores) == len(generations[5].prompt)
            assert [each and each.logprob for each in scores] == pytest.approx(
                [each and each.logprob for each in alone]
            )
