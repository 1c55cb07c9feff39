"""Gates, baselines, and the reports that programs read, over runs that were really made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gateway_evals.errors import EvaluationError
from gateway_evals.gates import parse_gate
from gateway_evals.statistics import wilson
from tests.evals.conftest import generation
from tests.evals.test_run import files, invoke, run


@pytest.fixture
def three_quarters(suite_file: Any) -> Path:
    """A suite of which the echo backend has 30 of 40 right."""
    rows = [{"text": f"row {number}", "target": f"row {number}" if number < 30 else "other"} for number in range(40)]
    return suite_file(generation(), rows={"repeat.jsonl": rows})


@pytest.mark.parametrize(
    ("gate", "code"),
    [
        ("repeat:exact_match>=0.75", 0),
        ("repeat:exact_match,none > 0.75", 1),
        ("repeat:lower(exact_match)>=0.59", 0),
        ("repeat:lower(exact_match)>=0.6", 1),
        ("repeat:upper(exact_match)<=0.9", 0),
        ("other:exact_match>=0.5", 3),
        ("repeat:exact_match", 3),
        ("repeat:exact_match>=much", 3),
        ("repeat:bleu>=0.1", 2),
    ],
)
def test_gates_and_their_exit_codes(three_quarters: Path, echo_url: str, gate: str, code: int) -> None:
    bound = wilson(30, 40)
    assert 0.59 < bound.low < 0.6
    assert bound.high < 0.9
    done = run(three_quarters, echo_url, "--gate", gate)
    assert done.exit_code == code, done.output
    if code < 2:
        assert ("✓" in done.stdout, "✗" in done.stdout) == (code == 0, code == 1)


def test_what_is_no_gate_says_how_one_is_written() -> None:
    with pytest.raises(EvaluationError, match=r"write 'gsm8k:exact_match>=0\.30' or"):
        parse_gate("gsm8k >= 0.3")


def test_a_baseline_that_must_not_be_undercut(three_quarters: Path, echo_url: str, suite_file: Any) -> None:
    assert run(three_quarters, echo_url).exit_code == 0
    root = three_quarters.parent / "out"
    same = run(three_quarters, echo_url, "--baseline", "last", "--no-worse", 0.02)
    assert same.exit_code == 0, same.output
    assert "not worse by more than 0.02" in same.stdout
    # The first run as if it had been better: all right.
    first = files(three_quarters, "samples")[0]
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    first.write_text("".join(json.dumps({**row, "exact_match": 1.0}) + "\n" for row in rows))
    baseline = files(three_quarters, "results")[0]
    worse = invoke("gate", "last", "-o", root, "--baseline", baseline, "--no-worse", 0.02)
    assert (worse.exit_code, "may be worse by more than 0.02" in worse.stdout) == (1, True)
    missing = run(three_quarters, echo_url, "--baseline", "1999")
    assert (missing.exit_code, "no file, folder or run '1999'" in missing.stderr) == (2, True)


def test_reports_for_programs(three_quarters: Path, echo_url: str, tmp_path: Path) -> None:
    junit, markdown, report = tmp_path / "a" / "junit.xml", tmp_path / "run.md", tmp_path / "run.json"
    places = ("--junit", junit, "--markdown", markdown, "--report-json", report)
    gates = ("--gate", "repeat:exact_match>=0.5", "--gate", "repeat:exact_match>=0.9")
    assert run(three_quarters, echo_url, *gates, *places).exit_code == 1
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "exact_match,none is 0.7500, wanted >= 0.9"
    text = markdown.read_text()
    assert "| repeat | exact_match,none ↑ | echo | 0.7500 |" in text
    assert "**failed**" in text
    told = json.loads(report.read_text())
    assert [gate["passed"] for gate in told["gates"]] == [True, False]
    assert told["models"]["echo"]["tasks"]["repeat"]["figures"][0]["value"] == 0.75
    assert told["models"]["echo"]["memory_bytes"] is None, "an echo alone has no /status"
    page = tmp_path / "run.html"
    assert run(three_quarters, echo_url, "--report", page).exit_code == 0
    assert "<html" in page.read_text()
    assert run(three_quarters, echo_url, "--report", page / "inside").exit_code == 2
    nowhere = run(three_quarters, echo_url, "--junit", report / "inside")
    assert (nowhere.exit_code, "cannot be written" in nowhere.stderr) == (2, True)


def test_spellings_of_lm_eval(suite_file: Any, echo_url: str, tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "target": f"row {number}"} for number in range(20)]
    path = suite_file(generation(), generation("second"), rows={"repeat.jsonl": rows, "second.jsonl": rows})
    task = tmp_path / "more" / "own.yaml"
    task.parent.mkdir()
    (task.parent / "own.jsonl").write_text(json.dumps(rows[0]) + "\n")
    task.write_text(json.dumps(generation("own")))

    def asked(*more: object, suite: object = path) -> Callable[[str], dict[str, Any]]:
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        place = () if suite is None else (suite,)
        done = invoke("run", *place, "-m", "echo", "--base_url", echo_url, "--output_path", out, *more)
        assert done.exit_code == 0, done.output
        return lambda task: [  # pyright: ignore
            json.loads(line) for file in out.rglob(f"samples_{task}_*") for line in file.read_text().splitlines()
        ]

    found = asked("--tasks", "second", "--limit", "10-12", "--log_samples")
    assert ([row["doc_id"] for row in found("second")], found("repeat")) == ([10, 11], [])
    assert len(asked("--limit", "0.1")("repeat")) == 2
    prompt = asked("--num-fewshot", "2", "--limit", "1", "--no_chat_template")("repeat")[0]["arguments"]["gen_args_0"]
    assert prompt["arg_0"].count("row") == 5
    settings = asked("--gen_kwargs", "max_gen_toks=3,temperature=0", "--limit", "1")("repeat")[0]
    assert (settings["resps"], settings["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"]) == ([["row"]], 3)
    system = asked("--system_instruction", "Be brief.", "--limit", "1")("repeat")[0]["arguments"]["gen_args_0"]["arg_0"]
    assert system[0] == {"role": "system", "content": "Be brief."}
    assert len(asked("--tasks", "own", "--include_path", task.parent, suite=None)("own")) == 1
    for arguments, code, expected in (
        (("--tasks", "third"), 2, "there are: repeat, second"),
        (("--limit", "30-40"), 2, "leaves nothing of its 20 rows"),
        (("--limit", "4-2"), 3, "rows from 0 without the last"),
        (("--gen_kwargs", "hot"), 3, "is no setting"),
        (("--gen_kwargs", "hot=1"), 2, "--gen_kwargs: hot"),
        (("--include_path", tmp_path / "none"), 2, "no folder"),
    ):
        done = invoke("run", path, "-m", "echo", "--base-url", echo_url, *arguments)
        assert (done.exit_code, expected in " ".join(done.stderr.split())) == (code, True), done.stderr
