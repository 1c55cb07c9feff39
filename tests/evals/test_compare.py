"""`gateway eval compare` over runs that were really made, and the reading of finished runs beneath it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway_evals.compare import compare
from gateway_evals.errors import EvaluationError
from gateway_evals.saved import find_result, find_run, read_results, runs_in
from tests.evals.conftest import generation
from tests.evals.test_run import CHOICE, PICKS, files, invoke, run

ROWS = [{"text": f"row {number}", "target": f"row {number}"} for number in range(40)]


@pytest.fixture
def made(suite_file: Any, echo_url: str) -> Callable[..., Path]:
    """Runs the suite; gives the results file. `right`: how many of the rows the echo backend has right."""

    def make(*more: object, right: int = 40, **changes: Any) -> Path:
        rows = [{**row, "target": row["target"] if place < right else "other"} for place, row in enumerate(ROWS)]
        path = suite_file(
            CHOICE, generation(**changes), rows={"pick.jsonl": PICKS, f"{changes.get('name', 'repeat')}.jsonl": rows}
        )
        before = set(files(path, "results"))
        done = run(path, echo_url, *more)
        assert done.exit_code == 0, done.output
        (new,) = set(files(path, "results")) - before
        return new

    return make


def with_values(path: Path, values: list[float]) -> Path:
    """The run as if another model had answered: its samples' values changed, beside the original."""
    folder = path.parent.parent / "other"
    folder.mkdir(exist_ok=True)
    for file in path.parent.iterdir():
        (folder / file.name).write_text(file.read_text())
    (samples,) = folder.glob("samples_repeat_*")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    for row, value in zip(rows, values, strict=True):
        row["exact_match"] = value
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = json.loads((folder / path.name).read_text())
    body["model_name"] = "other"
    body["results"]["repeat"]["exact_match,none"] = sum(values) / len(values)
    (folder / path.name).write_text(json.dumps(body))
    return folder / path.name


def test_finished_runs_are_read_back(made: Callable[..., Path]) -> None:
    path = made(right=30)
    result = read_results(path)
    task = result.task("repeat")
    assert (result.model, result.suite, result.seed, result.limit) == ("echo", "tried", 1234, None)
    assert (task.figure("exact_match").value, task.facts["answered"]) == (0.75, 40)
    assert list(task.values("exact_match").values()) == [1.0] * 30 + [0.0] * 10
    root = path.parent.parent
    assert runs_in(root) == {result.run: [path]}
    for reference in ("last", result.run, result.run[:16], str(root), str(path)):
        assert [each.path for each in find_run(reference, root)] == [path]
        assert find_result(reference, root).path == path
    assert find_result("echo", root) == find_result("last:echo", root) == find_result(f"{root}:echo", root)
    with pytest.raises(EvaluationError, match=r"no metric 'bleu'; there are: exact_match,none"):
        task.figure("bleu")
    with pytest.raises(EvaluationError, match="no task 'nope'; there are: pick, repeat"):
        result.task("nope")


def test_what_cannot_be_read_says_what_there_is(made: Callable[..., Path], tmp_path: Path) -> None:
    path = made()
    root = path.parent.parent
    with pytest.raises(
        EvaluationError, match=f"no file, folder or run '1999' .*the newest are: {read_results(path).run}"
    ):
        find_run("1999", root)
    with pytest.raises(EvaluationError, match="no model 'nobody'"):
        find_result("nobody", root)
    (tmp_path / "results_x.json").write_text("[]")
    with pytest.raises(EvaluationError, match="holds no results of an evaluation"):
        read_results(tmp_path / "results_x.json")
    for samples in path.parent.glob("samples_*"):
        samples.unlink()
    with pytest.raises(EvaluationError, match=r"not beside its results: samples_repeat_\*"):
        list(read_results(path).task("repeat").rows())


def test_a_better_model_is_called_better(made: Callable[..., Path]) -> None:
    first = made(right=20)
    second = with_values(first, [1.0] * 19 + [0.0] + [1.0] * 15 + [0.0] * 5)
    root = first.parent.parent
    found = compare(read_results(first), read_results(second))
    row = found.row("repeat", "exact_match")
    assert row.paired is not None
    assert (row.paired.wins, row.paired.losses, row.paired.test) == (15, 1, "mcnemar")
    assert row.adjusted_p == pytest.approx(3 * row.paired.p_value), "three rows: acc, acc_norm, exact_match"
    assert (row.verdict(), found.row("pick", "acc").verdict()) == ("better", "no difference shown")
    assert compare(read_results(second), read_results(first)).row("repeat", "exact_match").verdict() == "worse"
    done = invoke("compare", "echo", "other", "-o", root)
    assert done.exit_code == 0, done.output
    for expected in ("other against echo", "+0.3500", "better", "mcnemar"):
        assert expected in done.stdout
    told = json.loads(invoke("compare", "last:echo", second, "-o", root, "--json").stdout)
    assert told["rows"][2]["verdict"] == "better"
    ambiguous = invoke("compare", "last", "last", "-o", root)
    assert (ambiguous.exit_code, "say which model as RUN:MODEL; there are: echo, other" in ambiguous.stderr) == (
        2,
        True,
    )


@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        (("--seed", "7"), {}, "seed: 1234 and 7"),
        (("--limit", "2"), {}, "limit: none and 2"),
        ((), {"metadata": {"version": 2}}, "task repeat: versions 0 and 2"),
        ((), {"num_fewshot": 1}, "task repeat: 0 and 1 few-shot examples"),
        ((), {"name": "another"}, "task another: only in"),
    ],
)
def test_what_was_not_asked_the_same_is_refused(
    made: Callable[..., Path], arguments: tuple[str, ...], changes: dict[str, Any], expected: str
) -> None:
    first, second = made(), made(*arguments, **changes)
    done = invoke("compare", first, second)
    assert done.exit_code == 2
    assert "were not asked the same" in done.stderr
    assert expected in done.stderr
