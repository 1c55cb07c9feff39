"""`gateway parity` over every engine: in float32 the same model gives the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.running import Gateway, run

pytestmark = pytest.mark.slow


def test_three_engines_of_one_model_are_alike(gateway: Gateway, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "The capital of France is"}\n'
        '{"prompt": "1, 2, 3, 4, 5,"}\n'
        '{"messages": [{"role": "user", "content": "What is the capital of France?"}]}\n'
    )
    done = run("parity", "--models", "smollm2,smollm2-onnx,smollm2-torch", "--url", gateway.url,
               "--prompts", str(prompts), "--max-tokens", "12", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("smollm2", "smollm2-onnx"),
        ("smollm2", "smollm2-torch"),
        ("smollm2-onnx", "smollm2-torch"),
    ]
    for pair in found["pairs"]:
        assert pair["identical"] == 1.0
        assert pair["earliest"] is None
        assert pair["prompt_max"] < 2e-3
        assert pair["made_max"] < 2e-3
        assert [row["compared"] > 0 for row in pair["prompts"]] == [True] * 3


def test_it_prints_a_table_and_refuses_what_cannot_be_compared(gateway: Gateway, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "A"}\n{"prompt": "B"}\n')
    shown = run("parity", "--models", "echo,echo-slow", "--url", gateway.url, "--prompts", str(prompts))
    assert shown.returncode == 0, shown.stderr
    assert "100% of 2" in shown.stdout
    for models, reason in (
        ("echo,smollm2-torch", "they serve different models"),
        ("echo", "--models needs two or more"),
        ("echo,nobody", "no model nobody at"),
    ):
        refused = run("parity", "--models", models, "--url", gateway.url, "--prompts", str(prompts))
        assert refused.returncode == 1
        assert reason in refused.stderr
