"""The harness at size: many samples at once, none lost, memory flat. Small in `make test`, whole in `make proof`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evals.conftest import generation
from tests.evals.test_run import lines
from tests.peak import peak_mb

pytestmark = pytest.mark.slow

LIMIT_MB = 500


def echoed(suite_file: Any, url: str, count: int) -> tuple[float, dict[str, Any]]:
    """So many samples at concurrency 64, in a process of its own: its peak memory in MB, and what it told."""
    rows = [{"text": f"row {number}", "target": f"row {number}"} for number in range(count)]
    suite: Path = suite_file(generation(), rows={"repeat.jsonl": rows})
    out = suite.parent / f"out-{count}"
    command = ["gateway", "eval", "run", str(suite), "-m", "echo", "--base-url", url]
    command += ["--output", str(out), "--concurrency", "64", "--no-cache", "--json"]
    told_file = suite.parent / f"told-{count}.json"
    with told_file.open("w") as told:
        peak = peak_mb(command, suite.parent / f"peak-{count}", stdout=told)
    (samples,) = out.rglob("samples_*.jsonl")
    found = lines(samples)
    assert [row["doc_id"] for row in found] == list(range(count)), "none lost, none twice"
    assert all(row["exact_match"] == 1.0 for row in found)
    return peak, json.loads(told_file.read_text())["models"]["echo"]


def test_a_peak_is_the_childs_own(tmp_path: Path) -> None:
    """Neither what this process holds counts, nor is what the child held and gave back forgotten."""
    ballast = bytearray(b"x") * (600 << 20)
    (tmp_path / "holds.py").write_text("import sys\nwhole = bytearray(b'x') * (int(sys.argv[1]) << 20)\ndel whole\n")
    small, large = (peak_mb(["holds", size], tmp_path / "peak", cwd=tmp_path) for size in ("1", "550"))
    assert small < LIMIT_MB < large < len(ballast) >> 20


def test_hundreds_of_samples_at_once(suite_file: Any, echo_url: str) -> None:
    peak, told = echoed(suite_file, echo_url, 500)
    assert (told["tasks"]["repeat"]["answered"], told["tasks"]["repeat"]["failed"]) == (500, 0)
    assert told["tasks"]["repeat"]["ttft_p50_s"] > 0
    assert peak < LIMIT_MB


@pytest.mark.proof
def test_twenty_thousand_samples_at_once_in_flat_memory(suite_file: Any, echo_url: str) -> None:
    small, _ = echoed(suite_file, echo_url, 2000)
    peak, told = echoed(suite_file, echo_url, 20_000)
    assert told["tasks"]["repeat"]["answered"] == 20_000
    sys.stdout.write(f"20,000 samples in {told['seconds']} s, peak {peak:.0f} MB (2,000: {small:.0f} MB)\n")
    assert peak < LIMIT_MB
