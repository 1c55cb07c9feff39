"""Adapters on the onnx backend: the contract, PEFT's own numbers, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.backend import BackendContext
from gateway.config import AdaptersSpec, ModelSpec
from gateway.engine import Generation, Sampling
from gateway.errors import AdapterError, ConfigError
from gateway.testing.adapters import AdapterContract
from gateway.testing.started import BackendStarted
from gateway.types import AdapterFiles
from gateway_onnx.adapters import Adapters
from gateway_onnx.backend import OnnxBackend
from gateway_onnx.graph import lora_session
from gateway_onnx.lora_files import read_lora
from gateway_onnx.lora_graph import LoraGraph, Site
from gateway_onnx.options import plan
from tests.loras import two_loras, write_lora
from tests.rows import SHARE

SHAPE = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 4, "num_key_value_heads": 2}
SITE = Site("0.qkv_proj", tuple(f"model.layers.0.self_attn.{name}_proj" for name in "qkv"), 8, (8, 4, 4))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**SHAPE, "num_hidden_layers": 1}))
    return folder


class Bound:
    """An IOBinding's inputs."""

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def bind_input(self, name: str, device: str, number: int, kind: Any, shape: tuple[int, ...], address: int) -> None:
        assert address
        self.shapes[name] = tuple(shape)


def test_rows_are_masked_and_matrices_cut_to_what_is_used(base: Path) -> None:
    adapters = Adapters(LoraGraph(b"", (SITE,), (3,)))
    for rank, name in enumerate(("a", "b", "c"), 2):
        adapters.add(name, read_lora(write_lora(base / name, base, rank=rank, modules=["q_proj", "v_proj"]).path))
    bound = Bound()
    adapters.plan([None, None])
    assert adapters.bind(bound, None) == (3, 0, 0)
    assert bound.shapes == {"lora_mask.3": (2, 1, 0), "lora_a.0.qkv_proj": (0, 8), "lora_b.0.qkv_proj": (0, 16)}
    adapters.plan([None, "b"])
    adapters.bind(bound, (3, 0, 0))
    assert bound.shapes == {"lora_mask.3": (2, 1, 9), "lora_a.0.qkv_proj": (9, 8), "lora_b.0.qkv_proj": (9, 16)}
    adapters.remove("a")
    adapters.remove("unknown")
    adapters.plan(["c"])
    adapters.bind(bound, (3, 2, 5))
    assert bound.shapes["lora_a.0.qkv_proj"] == (12, 8)
    with pytest.raises(KeyError):
        adapters.plan(["a"])


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_matrices_are_scaled_as_peft_scales_them(base: Path, tmp_path: Path, kind: str) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    patterns = {"alpha_pattern": {"q_proj": 3}, "use_rslora": True}
    files = write_lora(tmp_path / "lora", base, rank=4, modules=["q_proj", "v_proj"], **patterns)
    weights = files.path / "adapter_model.safetensors"
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {name: tensor.to(kinds[kind]) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights)
    found = read_lora(files.path)
    for module, alpha in (("q_proj", 3), ("v_proj", 8)):
        name = f"model.layers.0.self_attn.{module}"
        a, b = (tensors[f"base_model.model.{name}.lora_{half}.weight"].float().numpy() for half in "AB")
        np.testing.assert_array_equal(found[name][0], a)
        np.testing.assert_allclose(found[name][1], b.T * alpha / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"use_dora": True}, "without use_dora"), ({"peft_type": "IA3"}, "IA3"), ({"lora_alpha": "x"}, "cannot be read")],
)
def test_what_is_no_plain_lora_is_refused(base: Path, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        read_lora(write_lora(tmp_path / "lora", base, **settings).path)


def test_what_does_not_fit_the_graph_is_refused(base: Path, tmp_path: Path) -> None:
    adapters = Adapters(LoraGraph(b"", (SITE,), (3,)))
    with pytest.raises(AdapterError, match=r"no place for model\.layers\.0\.self_attn\.o_proj"):
        adapters.add("a", read_lora(write_lora(tmp_path / "lora", base, modules=["o_proj"]).path))
    (base / "config.json").write_text(json.dumps({**SHAPE, "hidden_size": 16, "num_hidden_layers": 1}))
    with pytest.raises(AdapterError, match="is 8 to 8 in the base, 16 to 16 in the adapter"):
        adapters.add("a", read_lora(write_lora(tmp_path / "wide", base, modules=["q_proj"]).path))
    with pytest.raises(KeyError):
        adapters.plan(["a"])


def test_genai_takes_none_and_says_so() -> None:
    spec = ModelSpec(backend="onnx", adapters=AdaptersSpec(), options={"batching": "genai", "provider": "cpu"})
    with pytest.raises(ConfigError, match=r"models\.m\.adapters: onnx takes adapters with `options.batching: rows`"):
        plan(BackendContext("m", spec, None))


@pytest.mark.slow
class TestOnnxWithAdapters(AdapterContract, BackendStarted):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, smollm2_folder: Path) -> BackendContext:
        spec = ModelSpec(backend="onnx", adapters=AdaptersSpec(max_rank=8), max_model_len=2048, resources=SHARE)
        digest = smollm2_folder.name.removesuffix("-hf1")
        return BackendContext("smollm2", spec, smollm2_folder, digest=digest)

    @pytest.fixture(scope="class")
    @classmethod
    def adapters(cls, smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[AdapterFiles]:
        return two_loras(tmp_path_factory.mktemp("adapters"), smollm2_folder)

    async def test_says_what_peft_says_and_finds_only_its_own_in_the_cache(
        self, backend: OnnxBackend, smollm2_folder: Path, adapters: Sequence[AdapterFiles]
    ) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        tokenizer = backend.engine.tokenizer
        prompt = tokenizer.encode("Rivers that flow to the sea pass through", add_special_tokens=False)
        sampling = Sampling(8, temperature=0, logprobs=0, ignore_eos=True)
        for adapter in adapters:
            await backend.load_adapter(adapter)
        names = [None, *(each.id for each in adapters)]

        async def made(name: str | None) -> tuple[list[int], list[float], int]:
            deltas = [delta async for delta in backend.engine.generate(Generation("g", prompt, sampling, adapter=name))]
            scores = [entry.logprob for delta in deltas for entry in delta.logprobs or ()]
            return [token for each in deltas for token in each.token_ids], scores, max(d.cached_tokens for d in deltas)

        answers = await asyncio.gather(*[made(name) for name in names])
        model: Any = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
        for (tokens, scores, cached), adapter in zip(answers, (None, *adapters), strict=True):
            assert cached == 0, "keys and values of another adapter were taken over"
            peft: Any = model if adapter is None else PeftModel.from_pretrained(model, str(adapter.path))
            with torch.inference_mode():
                line = peft(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert line.argmax(-1).tolist() == tokens
            assert line[range(len(tokens)), tokens].tolist() == pytest.approx(scores, abs=1e-3)
            if adapter is not None:
                model = peft.unload()
        again = [await made(name) for name in names]
        assert [tokens for tokens, _, _ in again] == [tokens for tokens, _, _ in answers]
        assert [cached for _, _, cached in again] == [len(prompt) - 1] * 3
        for adapter in adapters:
            await backend.unload_adapter(adapter.id)

    async def test_refuses_what_it_has_no_room_for(
        self, backend: OnnxBackend, adapters: Sequence[AdapterFiles]
    ) -> None:
        big = AdapterFiles("big", adapters[0].path, "", 9)
        with pytest.raises(AdapterError, match=r"rank 9 is more than 8 \(models.smollm2.adapters.max_rank\)"):
            await backend.load_adapter(big)


@pytest.mark.slow
class TestInt4WithAdapters(AdapterContract, BackendStarted):
    """Adapters stay float32 beside weights of four bits."""

    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> BackendContext:
        options = {"provider": "cpu"}
        spec = ModelSpec(backend="onnx", dtype="int4", adapters=AdaptersSpec(), max_model_len=256, options=options)
        return BackendContext("tiny", spec, tiny_folder, digest="e" * 64, cache=tmp_path_factory.mktemp("int4"))

    @pytest.fixture(scope="class")
    @classmethod
    def adapters(cls, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[AdapterFiles]:
        folder = tmp_path_factory.mktemp("adapters")
        first = write_lora(folder / "one", tiny_folder, id="tiny:one", seed=1, rank=8, scale=0.3)
        return first, write_lora(folder / "two", tiny_folder, id="tiny:two", seed=2, modules=("q_proj", "up_proj"))

    async def test_its_products_are_of_four_bits(self, backend: OnnxBackend, context: BackendContext) -> None:
        assert backend.card().dtype == "int4"
        (graph,) = context.cache.rglob("model.onnx")
        assert b"MatMulNBits" in graph.read_bytes()

    async def test_the_graph_that_takes_adapters_is_made_in_memory_once(
        self, backend: OnnxBackend, context: BackendContext
    ) -> None:
        (graph,) = context.cache.rglob("model.onnx")
        before = {path.name: path.stat().st_mtime_ns for path in graph.parent.iterdir()}
        session = lora_session(graph.parent, threads=1, spinning=False)
        opened = session.open()
        assert session.open() is opened
        names = {each.name for each in opened.get_inputs()}
        assert {"lora_a.0.qkv_proj", "lora_b.1.down_proj", "lora_mask.3", "input_ids"} <= names
        assert {path.name: path.stat().st_mtime_ns for path in graph.parent.iterdir()} == before
