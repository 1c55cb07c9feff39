"""`gateway eval advise`: limits, the smallest model within them, the front as a picture, a gateway started for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from gateway_evals.advising import Advice, Limits, advise
from gateway_evals.errors import EvaluationError
from gateway_evals.front_picture import draw
from gateway_evals.saved import SavedResult, read_results
from tests.evals.conftest import generation
from tests.evals.reporting import write_long_run
from tests.evals.test_run import invoke


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[SavedResult]:
    """Small and hasty, middling, large and good; and one as large as the second, but worse."""
    folder = tmp_path_factory.mktemp("measured")
    models = (("large", 4, 0.9, 4.0), ("small", 1, 0.4, 0.5), ("middle", 2, 0.7, 1.0), ("worse", 2, 0.5, 2.0))
    return [
        read_results(
            write_long_run(folder / name, name, 400, 7, memory=gib * 2**30, share=share, slowest_s=slowest)
        )
        for name, gib, share, slowest in models
    ]  # fmt: skip


def names(advice: Advice) -> list[str]:
    return [each.model for each in advice.candidates if each.passes]


def test_the_smallest_within_all_limits(measured: list[SavedResult]) -> None:
    advice = advise(measured, Limits(min_score=0.45))
    assert [each.model for each in advice.candidates] == ["small", "middle", "worse", "large"], "the smallest first"
    assert names(advice) == ["middle", "worse", "large"]
    assert advice.chosen is not None
    assert advice.chosen.model == "middle"
    assert names(advise(measured, Limits(max_memory_gib=3))) == ["small", "middle", "worse"]
    assert names(advise(measured, Limits(max_latency_s=1.5))) == ["small", "middle"]
    one = advise(measured, Limits(max_latency_s=1.5, max_memory_gib=3, min_score=0.5))
    assert names(one) == ["middle"]
    assert one.candidates[3].reasons[1:] == ("memory is 4.00 GiB, above 3",)
    assert one.fronts == {"latency_p95_s": ["small", "middle", "large"], "memory_gib": ["small", "middle", "large"]}


def test_a_score_of_ones_own_and_a_bound_instead_of_a_value(measured: list[SavedResult]) -> None:
    score = advise(measured, Limits(min_score=0), "task_1:exact_match").candidates[0].score
    assert score == read_results(measured[1].path).task("task_1").figure("exact_match").value
    assert advise(measured, Limits(min_score=score or 0), "task_1:exact_match").candidates[0].passes
    surely = advise(measured, Limits(min_score=score or 0, sure=True), "task_1:exact_match").candidates[0]
    assert surely.reasons[0].startswith("the score's lower bound is")
    with pytest.raises(EvaluationError, match="write task:metric"):
        advise(measured, Limits(min_score=0), "exact_match")
    with pytest.raises(EvaluationError, match="there are: exact_match,none"):
        advise(measured, Limits(min_score=0), "task_1:bleu")


def test_a_server_that_tells_no_memory(tmp_path: Path) -> None:
    results = [
        read_results(write_long_run(tmp_path / name, name, 40, 1, memory=None, slowest_s=slowest))
        for name, slowest in (("slow", 2.0), ("fast", 1.0))
    ]
    advice = advise(results, Limits(min_score=0.3))
    assert (advice.chosen and advice.chosen.model) == "fast", "what it costs is its time"
    with pytest.raises(EvaluationError, match="leave --max-memory out"):
        advise(results, Limits(max_memory_gib=1))


def test_a_finished_run_is_judged_again_without_measuring(tmp_path: Path) -> None:
    for name, share, memory in (("small", 0.4, 2**30), ("large", 0.9, 2**32)):
        write_long_run(tmp_path / name, name, 100, 7, share=share, memory=memory)
    told = json.loads(invoke("advise", "--run", "last", "-o", tmp_path, "--min-score", 0.7, "--json").stdout)
    assert (told["advice"], [each["model"] for each in told["models"]]) == ("large", ["small", "large"])
    none = invoke("advise", "--run", "last", "-o", tmp_path, "--min-score", 0.7, "-m", "small")
    assert (none.exit_code, "no model passes" in none.stdout, "below 0.7" in none.stdout) == (1, True, True)
    nobody = invoke("advise", "--run", "last", "-o", tmp_path, "--min-score", 0.7, "-m", "nobody")
    assert (nobody.exit_code, "has none of the models nobody" in nobody.stderr) == (2, True)


def test_a_picture_of_the_front(measured: list[SavedResult], tmp_path: Path) -> None:
    advice = advise(measured, Limits(max_latency_s=1.5, max_memory_gib=3, min_score=0.5))
    draw(advice, "tried", tmp_path / "deep" / "front.png")
    with Image.open(tmp_path / "deep" / "front.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20) or ()) > 20
    with pytest.raises(EvaluationError, match="cannot be written"):
        draw(advice, "tried", tmp_path / "deep" / "front.png" / "inside.png")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((), 3, "say what is enough: --min-score, --max-latency, --max-memory"),
        (("--min-score", "0.5", "--run", "last"), 3, "name a --suite to measure, or a --run that is finished"),
        (("--min-score", "0.5", "--plot", "front.svg"), 3, "a .png or an .html file"),
        (("--min-score", "0.5", "--suite", "nothing"), 3, "no suite 'nothing'"),
        (("--min_score", "0.5", "--base_url", "http://127.0.0.1:9"), 2, "nothing answers at http://127.0.0.1:9"),
        (("--min-score", "much"), 3, "should be a valid number"),
        (("--min-score", "0.5", "--config", "absent.yaml"), 2, "absent.yaml: cannot be read"),
        (("--min-score", "0.5", "-m", "nobody"), 2, "no model 'nobody'"),
    ],
)
def test_what_is_wrong_is_said(
    suite_file: Any, echo_url: str, arguments: tuple[str, ...], code: int, expected: str
) -> None:
    suite = suite_file(generation(), rows={"repeat.jsonl": [{"text": "a", "target": "a"}]})
    done = invoke("advise", "--suite", suite, "--base-url", echo_url, *arguments)
    assert (done.exit_code, expected in " ".join(done.stderr.split())) == (code, True), done.output


@pytest.mark.slow
def test_what_is_started_ends_with_whoever_started_it_even_killed() -> None:
    code = (
        "import subprocess, sys, time; from gateway_evals.own_gateway import end_with_parent\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], preexec_fn=end_with_parent)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    child.wait(10)


@pytest.mark.slow
def test_candidates_of_a_config_in_a_gateway_started_for_them(suite_file: Any, tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "target": f"row {number}"} for number in range(4)]
    suite = suite_file(generation(), rows={"repeat.jsonl": rows})
    config = tmp_path / "models.yaml"
    models = {"quick": {"backend": "echo"}, "slow": {"backend": "echo", "options": {"first_delay_ms": 2500}},
              "other": {"backend": "no-such-backend"}}  # fmt: skip
    routes = {"any": {"targets": ["quick", "other"]}}
    config.write_text(yaml.safe_dump({"server": {"api_keys": ["secret"]}, "models": models, "routes": routes}))
    aims = ("--min-score", 0.9, "--max-latency", 2, "--max-memory", 4)
    places = ("--config", config, "-o", tmp_path / "out", "--plot", tmp_path / "front.html", "--json")
    done = invoke("advise", "--suite", suite, "-m", "quick", "-m", "slow", *aims, *places)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    found = {each["model"]: each for each in told["models"]}
    assert told["advice"] == "quick"
    assert found["quick"]["passes"]
    assert found["slow"]["reasons"][0].startswith("p95 latency is")
    assert all(0.05 < each["memory_gib"] < 4 for each in found.values())
    assert "Quality against memory" in (tmp_path / "front.html").read_text()
    assert "gateway" not in {path.name for path in tmp_path.iterdir()}
    broken = invoke("advise", "--suite", suite, *aims, "--config", config)
    assert (broken.exit_code, "no-such-backend" in broken.stderr) == (2, True), broken.output
