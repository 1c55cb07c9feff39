"""A tiny base with the real model's tokenizer and template, and rows that are learned in a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tiny import save_tiny

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_base(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "tiny", smollm2_folder, width=32, spread=0.2)


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
