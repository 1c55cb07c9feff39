"""Adapters on the torch backend: the contract, PEFT's own numbers, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from gateway.backend import BackendContext
from gateway.config import AdaptersSpec, ModelSpec
from gateway.engine import Generation, Sampling
from gateway.errors import AdapterError, ModelNotFound
from gateway.testing.adapters import AdapterContract
from gateway.testing.started import BackendStarted
from gateway.types import AdapterFiles
from gateway_torch.adapters import Adapters
from gateway_torch.backend import TorchBackend
from gateway_torch.lora_files import read_lora
from tests.loras import two_loras, write_lora
from tests.rows import SHARE

pytestmark = pytest.mark.slow

TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some thousand weights, as a folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.3)).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(ids).logits


@pytest.fixture
def beside(tiny: Path) -> tuple[Any, Adapters]:
    model = loaded(tiny)
    return model, Adapters(model, torch.float32, torch.device("cpu"))


KINDS: dict[str, dict[str, Any]] = {
    "all": {"rank": 4},
    "attention": {"rank": 8, "modules": ("q_proj", "v_proj")},
    "rslora": {"rank": 3, "use_rslora": True},
    "patterns": {"rank": 4, "alpha_pattern": {"q_proj": 1, r"layers\.1\.mlp\.up_proj": 40}},
}


def test_every_row_is_what_peft_makes_of_it(tiny: Path, beside: tuple[Any, Adapters], tmp_path: Path) -> None:
    from peft import PeftModel

    model, adapters = beside
    ids = torch.randint(0, 96, (9, 12), generator=torch.Generator().manual_seed(1))
    base = logits(model, ids)
    expected: dict[str | None, torch.Tensor] = {None: base}
    for seed, (name, settings) in enumerate(KINDS.items()):
        files = write_lora(tmp_path / name, tiny, id=name, seed=seed, scale=0.2, **settings)
        expected[name] = logits(PeftModel.from_pretrained(loaded(tiny), str(files.path)), ids)
        assert (expected[name] - base).abs().max() > 0.1
        adapters.add(name, read_lora(files.path, model.config))
    rows = [None, "all", "rslora", "attention", None, "patterns", "all", "attention", None]
    adapters.plan(rows)
    mixed = logits(model, ids)
    for index, row in enumerate(rows):
        torch.testing.assert_close(mixed[index], expected[row][index], atol=1e-4, rtol=0)
    adapters.plan([None] * 9)
    torch.testing.assert_close(logits(model, ids), base, atol=1e-5, rtol=0)
    adapters.remove("rslora")
    adapters.remove("unknown")
    rows = [row if row != "rslora" else "patterns" for row in rows]
    adapters.plan(rows)
    mixed = logits(model, ids)
    for index, row in enumerate(rows):
        torch.testing.assert_close(mixed[index], expected[row][index], atol=1e-4, rtol=0)
    with pytest.raises(KeyError):
        adapters.plan(["rslora"])
    assert model.config._attn_implementation == "sdpa", "reading an adapter changed the running model's config"


def test_a_layer_takes_a_tenth_of_the_calls_of_pefts_own_mixing(
    tiny: Path, beside: tuple[Any, Adapters], tmp_path: Path
) -> None:
    from peft import PeftModel

    model, adapters = beside
    ids = torch.randint(0, 96, (16, 1))
    files = [write_lora(tmp_path / str(seed), tiny, id=str(seed), seed=seed) for seed in range(4)]
    rows = [str(row % 4) for row in range(16)]
    base = calls(lambda: model(ids))
    for each in files:
        adapters.add(each.id, read_lora(each.path, model.config))
    adapters.plan(rows)
    ours = calls(lambda: model(ids)) - base
    peft: Any = PeftModel.from_pretrained(loaded(tiny), str(files[0].path), adapter_name="0")
    for each in files[1:]:
        peft.load_adapter(str(each.path), adapter_name=each.id)
    assert 0 < 10 * ours < calls(lambda: peft(ids, adapter_names=rows)) - base
    adapters.plan([None] * 16)
    assert calls(lambda: model(ids)) == base, "rows of the base pay for nothing"


def calls(run: Callable[[], Any]) -> int:
    """How many functions of PyTorch's core a run takes, those within others included."""
    with torch.inference_mode(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return sum(each.count for each in profile.key_averages() if each.key.startswith("aten::"))


def test_unloading_leaves_the_model_as_it_was(tiny: Path, beside: tuple[Any, Adapters], tmp_path: Path) -> None:
    model, adapters = beside
    for name, modules in (("q", ["q_proj"]), ("up", ["up_proj"])):
        files = write_lora(tmp_path / name, tiny, id=name, modules=modules)
        adapters.add(name, read_lora(files.path, model.config))

    def hooked() -> set[str]:
        return {name.rpartition(".")[2] for name, module in model.named_modules() if module._forward_hooks}

    assert hooked() == {"q_proj", "up_proj"}
    adapters.remove("q")
    assert hooked() == {"up_proj"}
    adapters.remove("up")
    assert hooked() == set()


@pytest.mark.parametrize(
    ("settings", "tensors", "message"),
    [
        ({"use_dora": True}, {}, "more than LoRA|no place"),
        ({"modules_to_save": ["lm_head"]}, {}, "lm_head"),
        ({"target_modules": ["nothing_proj"]}, {}, "nothing_proj|Target modules"),
        ({"target_modules": ["q_proj", "k_proj", "o_proj"]}, {}, "o_proj"),
        ({"r": 9}, {}, "has \\[4, 32\\]"),
        ({"peft_type": "IA3"}, {}, "IA3|PEFT cannot"),
        ({}, {"base_model.model.model.layers.0.self_attn.z_proj.lora_A.weight": (4, 32)}, "z_proj"),
    ],
)
def test_what_does_not_fit_is_refused(
    tiny: Path, tmp_path: Path, settings: dict[str, Any], tensors: dict[str, tuple[int, int]], message: str
) -> None:
    from safetensors.numpy import load_file, save_file
    from transformers import AutoConfig

    files = write_lora(tmp_path, tiny, modules=["q_proj", "k_proj"], **settings)
    weights = tmp_path / "adapter_model.safetensors"
    held = load_file(weights)
    held |= {name: next(iter(held.values())).reshape(shape) for name, shape in tensors.items()}
    save_file(held, weights)
    with pytest.raises(AdapterError, match=message):
        read_lora(files.path, AutoConfig.from_pretrained(tiny))


def test_no_pickle_is_read(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    files = write_lora(tmp_path, tiny)
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterError, match="safetensors"):
        read_lora(files.path, AutoConfig.from_pretrained(tiny))


def test_an_adapter_of_another_shape_leaves_nothing(tiny: Path, beside: tuple[Any, Adapters], tmp_path: Path) -> None:
    model, adapters = beside
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({**TINY, "hidden_size": 64}))
    from transformers import AutoConfig

    wide = read_lora(write_lora(tmp_path / "wide", other).path, AutoConfig.from_pretrained(other))
    with pytest.raises(AdapterError, match="32 to 32 in the base, 64 to 64 in the adapter"):
        adapters.add("wide", wide)
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(KeyError):
        adapters.plan(["wide"])


class TestTorchWithAdapters(AdapterContract, BackendStarted):
    @pytest.fixture(scope="class")
    @classmethod
    def context(cls, smollm2_folder: Path) -> BackendContext:
        spec = ModelSpec(backend="torch", adapters=AdaptersSpec(max_rank=8), max_model_len=2048, resources=SHARE)
        return BackendContext("smollm2", spec, smollm2_folder, digest="d" * 64)

    @pytest.fixture(scope="class")
    @classmethod
    def adapters(cls, smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Sequence[AdapterFiles]:
        return two_loras(tmp_path_factory.mktemp("adapters"), smollm2_folder)

    async def test_says_what_peft_says(
        self, backend: TorchBackend, smollm2_folder: Path, adapters: Sequence[AdapterFiles]
    ) -> None:
        from peft import PeftModel

        tokenizer = backend.engine.tokenizer
        prompt = tokenizer.encode("The capital of France is", add_special_tokens=False)
        sampling = Sampling(8, temperature=0, logprobs=0, ignore_eos=True)
        for adapter in adapters:
            await backend.load_adapter(adapter)

        async def made(name: str | None) -> tuple[list[int], list[float]]:
            deltas = [delta async for delta in backend.engine.generate(Generation("g", prompt, sampling, adapter=name))]
            scores = [entry.logprob for delta in deltas for entry in delta.logprobs or ()]
            return [token for delta in deltas for token in delta.token_ids], scores

        answers = await asyncio.gather(*[made(name) for name in (None, *(each.id for each in adapters))])
        model: Any = loaded(smollm2_folder)
        models = [lambda: model, *[lambda a=a: PeftModel.from_pretrained(model, str(a.path)) for a in adapters]]
        for (tokens, scores), make in zip(answers, models, strict=True):
            peft: Any = make()
            whole = torch.tensor([[*prompt, *tokens]])
            line = logits(peft, whole)[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert line.argmax(-1).tolist() == tokens
            assert line[range(len(tokens)), tokens].tolist() == pytest.approx(scores, abs=1e-3)
            if peft is not model:
                model = peft.unload()
        for adapter in adapters:
            await backend.unload_adapter(adapter.id)

    async def test_refuses_what_it_has_no_room_for(
        self, backend: TorchBackend, adapters: Sequence[AdapterFiles]
    ) -> None:
        big = AdapterFiles("big", adapters[0].path, "", 9)
        with pytest.raises(AdapterError, match=r"rank 9 is more than 8 \(models.smollm2.adapters.max_rank\)"):
            await backend.load_adapter(big)
        with pytest.raises(ModelNotFound):
            await backend.engine.generate(Generation("g", [1], Sampling(1), adapter="big")).__anext__()  # type: ignore[attr-defined]

    async def test_loads_while_it_answers(self, backend: TorchBackend, adapters: Sequence[AdapterFiles]) -> None:
        running = backend.engine.generate(Generation("g", [5], Sampling(400, temperature=0, ignore_eos=True)))
        before = 0
        async for delta in running:
            before += len(delta.token_ids)
            if before >= 3:
                break
        await backend.load_adapter(adapters[0])
        assert backend.running() == 1, "the answer was over before the adapter was loaded"
        tail = backend.engine.generate(Generation("h", [5], Sampling(9, ignore_eos=True), adapter=adapters[0].id))
        await tail.__anext__()  # type: ignore[attr-defined]
        await tail.aclose()  # type: ignore[attr-defined]
        # The row is let go a step later: unloading waits for it.
        await backend.unload_adapter(adapters[0].id)
        assert len((await running.__anext__()).token_ids) > 0  # type: ignore[attr-defined]
        await running.aclose()  # type: ignore[attr-defined]
