"""A tiny base with the real model's tokenizer and template, and rows that are learned in a few steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_base(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the shape of the real model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("base") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(smollm2_folder / name, folder)
    return folder


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


COLOURS = [chat(f"What colour is a {thing}?", colour) for thing, colour in zip(
    ("leaf", "rose", "sky", "sun", "coal", "snow", "brick", "plum", "lime", "sea", "crow", "swan"),
    ("green", "red", "blue", "yellow", "black", "white", "red", "purple", "green", "blue", "black", "white"),
    strict=True,
)]  # fmt: skip


@pytest.fixture
def write_rows(tmp_path: Path) -> Write:
    """`write_rows(rows, "train.jsonl")`; a string is a line as it is."""

    def write(rows: Sequence[Mapping[str, Any] | str] = COLOURS, name: str = "train.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def config_file(tiny_base: Path, tmp_path: Path) -> Path:
    """A config with the tiny base, and a store of its own."""
    path = tmp_path / "config.yaml"
    config = {
        "server": {"store": f"sqlite:///{tmp_path / 'gateway.db'}"},
        "models": {"tiny": {"backend": "torch", "source": str(tiny_base)}, "echo": {"backend": "echo"}},
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path
