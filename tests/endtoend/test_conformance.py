"""The shipped conformance suite over every engine, by the command that its users run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.testing import conformance
from tests.running import Gateway, run

pytestmark = pytest.mark.slow

QUICK = ("scoring", "tools", "batches", "failures")
SHARES = {
    "smollm2": (*QUICK, "tokens", "completions"),
    "smollm2-onnx": (*QUICK, "chat", "responses", "messages"),
    "smollm2-torch": (*QUICK, "sampling", "guided"),
}
"""Four groups on every engine, and every other on one of them: the proof has all on all."""
ENGINES = tuple(SHARES)
GROUPS = tuple(group.name for group in conformance.GROUPS)
README = (Path(__file__).parents[2] / "README.md").read_text()


CELLS = {"pass": "✓", "refused": "refused", "fail": "✗", "n/a": "–"}


def told(feature: str, model: str) -> str:
    """What the README's table says of a feature."""
    (row,) = re.findall(rf"^\| {re.escape(feature)} \|(.*)\|$", README, flags=re.M)
    return row.split("|")[ENGINES.index(model)].strip()


def failures(gateway: Gateway, model: str, groups: Sequence[str], at_once: int) -> dict[str, str]:
    """What fails, and what is refused though another engine can do it, with the reasons."""
    only = [part for group in groups for part in ("--only", group)]
    beside = ("--at-once", str(at_once))
    done = run("conformance", f"{gateway.url}/v1", "--model", model, *only, *beside, "--json", timeout=250)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["models"][model]
    assert {row["group"] for row in rows} == set(groups)
    assert (done.returncode == 0) == all(row["outcome"] != "fail" for row in rows)
    # vLLM alone tells its token ids; the others refuse that, by name.
    for row in rows:
        assert told(row["feature"], model) == CELLS[row["outcome"]], row
    bad = [row for row in rows if row["outcome"] not in ("pass", "n/a") and row["feature"] != "return_token_ids"]
    return {row["feature"]: row["reason"] for row in bad}


def test_every_group_has_an_engine() -> None:
    assert set().union(*SHARES.values()) == set(GROUPS)


@pytest.mark.parametrize("model", ENGINES)
def test_no_feature_fails(gateway: Gateway, model: str) -> None:
    assert failures(gateway, model, SHARES[model], at_once=6) == {}


@pytest.mark.proof
@pytest.mark.parametrize("model", ENGINES)
def test_no_feature_fails_on_any_engine(gateway: Gateway, model: str) -> None:
    assert failures(gateway, model, GROUPS, at_once=1) == {}


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
