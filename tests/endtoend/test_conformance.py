"""The shipped conformance suite over every engine, by the command that its users run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.running import Gateway, run

pytestmark = pytest.mark.slow

GROUPS = (
    "chat",
    "completions",
    "sampling",
    "scoring",
    "tokens",
    "tools",
    "guided",
    "responses",
    "messages",
    "failures",
)
ENGINES = ("smollm2", "smollm2-onnx", "smollm2-torch")


@pytest.fixture(scope="module")
def table(gateway: Gateway) -> dict[str, dict[str, Any]]:
    """Each engine's results by feature."""
    models = [part for model in ENGINES for part in ("--model", model)]
    only = [part for group in GROUPS for part in ("--only", group)]
    done = run("conformance", f"{gateway.url}/v1", *models, *only, "--json", timeout=400)
    rows = json.loads(done.stdout)["models"]
    assert (done.returncode == 0) == all(row["outcome"] != "fail" for model in rows.values() for row in model)
    return {model: {row["feature"]: row for row in found} for model, found in rows.items()}


@pytest.mark.parametrize("model", ENGINES)
def test_no_feature_fails(table: dict[str, dict[str, Any]], model: str) -> None:
    assert {name: row["reason"] for name, row in table[model].items() if row["outcome"] == "fail"} == {}


def test_engines_refuse_nothing_that_another_can(table: dict[str, dict[str, Any]]) -> None:
    refused = {
        (model, name): row["reason"]
        for model, rows in table.items()
        for name, row in rows.items()
        if row["outcome"] == "refused"
    }
    assert {name for _, name in refused} <= {"return_token_ids"}


def test_the_command_ends_with_1_where_something_fails(gateway: Gateway) -> None:
    # A model that fails every generation after one token.
    done = run("conformance", f"{gateway.url}/v1", "--model", "broken", "--only", "chat", timeout=60)
    assert done.returncode == 1
    assert "✗ broken · chat: " in done.stdout
    asked = run("conformance", f"{gateway.url}/v1", "--model", "echo", "--only", "tokens", "--markdown", timeout=60)
    assert asked.returncode == 0, asked.stdout
    assert "| tokenize | ✓ |" in asked.stdout
    nobody = run("conformance", "http://127.0.0.1:9/v1", timeout=60)
    assert nobody.returncode == 1
    assert "nothing answers at http://127.0.0.1:9" in nobody.stderr
