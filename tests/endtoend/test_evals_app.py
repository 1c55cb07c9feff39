"""The evaluations' app in a real gateway: a run started over HTTP asks the gateway as any client does."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest

from tests.running import Gateway, run


@pytest.mark.slow
def test_a_run_over_http(gateway: Gateway) -> None:
    with httpx.Client(base_url=f"{gateway.url}/evals", timeout=30, trust_env=False) as client:
        assert "smoke" in [row["name"] for row in client.get("/suites").json()["data"]]
        started = client.post("/runs", json={"suite": "smoke", "models": ["echo"], "limit": 1})
        assert started.status_code == 202, started.text
        run_id = started.json()["id"]
        deadline = time.monotonic() + 120
        while (view := client.get(f"/runs/{run_id}").json())["state"] == "running":
            assert time.monotonic() < deadline, view
            time.sleep(0.2)
        assert (view["state"], view["done"]) == ("done", 3), view
        assert view["results"]["echo"]["results"]["smoke_choice"]
        assert client.get("/runs").json()["data"][0]["id"] == run_id


@pytest.mark.slow
def test_advice_on_what_runs(gateway: Gateway, tmp_path: Path) -> None:
    """Through a running gateway: its models by name, their memory as it tells it, none that passes."""
    rows = [{"word": f"one word of thirty letters, no {number}"} for number in range(4)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "words", "dataset_path": "json", "dataset_kwargs": {"data_files": "words.jsonl"},
        "doc_to_text": "word", "doc_to_target": "word", "apply_chat_template": True,
        "generation_kwargs": {"max_gen_toks": 40},
    }  # fmt: skip
    suite = tmp_path / "words.yaml"
    suite.write_text(json.dumps(task))
    common = ["--suite", str(suite), "--base-url", gateway.url, "-o", str(tmp_path / "out")]
    common += ["-m", "echo", "-m", "echo-slow"]
    aims = ["--min-score", "0.9", "--max-latency", "1.2", "--plot", str(tmp_path / "a.png"), "--json"]
    done = run("eval", "advise", *common, *aims)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["advice"] == "echo"
    assert all(each["memory_gib"] > 0.05 for each in told["models"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    none = run("eval", "advise", *common, "--max-memory", "0.001")
    assert (none.returncode, "no model passes" in none.stdout) == (1, True), none.stdout
