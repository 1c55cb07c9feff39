"""A run that is killed and continued equals one that was not; nothing that was answered is asked again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from gateway_evals.errors import EvaluationError
from gateway_evals.journal import Journal
from gateway_evals.samples import TIMES
from tests.evals.conftest import echo_app, generation
from tests.evals.test_run import CHOICE, ONES, broken, fails, files, invoke, lines, run, said


def without_times(folder: Path) -> list[str]:
    """Every samples file as text, its times taken out: all other bytes count."""
    texts: list[str] = []
    for path in sorted(folder.rglob("samples_*.jsonl"), key=lambda path: (path.parent.name, path.name[:12])):
        rows = lines(path)
        for row in rows:
            for name in TIMES:
                row["gateway"].pop(name, None)
        texts.append("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return texts


def figures(folder: Path) -> list[Any]:
    return [json.loads(path.read_text())["results"] for path in sorted(folder.rglob("results_*.json"))]


def killed_and_resumed(suite: Path, url: str, out: Path, times: int, seed: int, seconds: float) -> None:
    """`gateway eval run` in a process of its own, killed so many times at random moments, and then let finish."""
    command = [sys.executable, "-m", "gateway", "eval"]
    places = ["--base-url", url, "--output", str(out), "--concurrency", "8"]
    generator = random.Random(seed)
    arguments = ["run", str(suite), "-m", "echo", *places]
    for _ in range(times):
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        journals: list[Path] = []
        while not journals and process.poll() is None and time.monotonic() < began + 60:
            journals = list(out.rglob("journal_*.jsonl"))
            time.sleep(0.01)
        before = sum(path.stat().st_size for path in journals)
        # It has work to kill only once it asks: from there a random moment of what is left.
        while process.poll() is None and sum(path.stat().st_size for path in journals) <= before:
            time.sleep(0.005)
            if time.monotonic() > began + 60:
                break
        time.sleep(generator.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["resume", "last", *places]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def kill_and_compare(suite_file: Any, serve: Any, rows: int, kills: int, seconds: float) -> None:
    lines_of = [{"text": f"row {number}", "target": f"row {number % 9}"} for number in range(rows)]
    picks = [{"said": "ab", "choices": ["ab", "cd", f"a{number}"], "answer": number % 2} for number in range(rows // 5)]
    suite = suite_file(generation(num_fewshot=1), CHOICE, rows={"repeat.jsonl": lines_of, "pick.jsonl": picks})
    url = serve(echo_app(delay_ms=1))
    whole, broken_off = suite.parent / "whole", suite.parent / "killed"
    done = invoke("run", suite, "-m", "echo", "--base-url", url, "-o", whole, "--concurrency", "8")
    assert done.exit_code == 0, done.output
    killed_and_resumed(suite, url, broken_off, kills, seed=kills, seconds=seconds)
    assert without_times(whole) == without_times(broken_off)
    assert figures(whole) == figures(broken_off)
    assert list(broken_off.rglob("journal_*")) == []
    (manifest,) = broken_off.glob("run_*.json")
    assert json.loads(manifest.read_text())["finished"]


@pytest.mark.slow
def test_a_run_that_is_killed_twice_equals_one_that_is_not(suite_file: Any, serve: Any) -> None:
    kill_and_compare(suite_file, serve, rows=250, kills=2, seconds=0.4)


@pytest.mark.proof
def test_a_run_that_is_killed_twenty_times_equals_one_that_is_not(suite_file: Any, serve: Any) -> None:
    kill_and_compare(suite_file, serve, rows=6000, kills=20, seconds=0.6)


@pytest.fixture
def asked(serve: Any) -> tuple[list[str], str, Callable[[int | None], None]]:
    """A server that says "a": what it was asked, its address, and how to let it refuse all but the first so many."""
    texts: list[str] = []
    allowed: list[int | None] = [None]

    async def chat(request: Request) -> Any:
        texts.append((await request.json())["messages"][-1]["content"])
        return said("a") if allowed[0] is None or len(texts) <= allowed[0] else fails(400)

    app = broken(lambda *_: said("a"))
    app = Starlette(routes=[app.routes[0], Route("/v1/chat/completions", chat, methods=["POST"])])
    return texts, serve(app), lambda most: allowed.__setitem__(0, most)


TEN = {"repeat.jsonl": [{"text": f"{number}", "target": "a"} for number in range(10)]}


def test_nothing_answered_is_asked_again_and_what_failed_is(suite_file: Any, asked: Any) -> None:
    texts, url, allow = asked
    path = suite_file(generation(), rows=TEN)
    allow(4)
    done = run(path, url, "--concurrency", 1, "--fail-on-error", 0)
    assert (done.exit_code, "1 of 10 samples of echo failed" in done.stderr) == (2, True)
    allow(None)
    del texts[:]
    resumed = invoke("resume", "last", "-o", path.parent / "out", "--json")
    assert resumed.exit_code == 0, resumed.output
    assert sorted(texts) == ["4", "5", "6", "7", "8", "9"]
    assert json.loads(resumed.stdout)["models"]["echo"]["tasks"]["repeat"]["answered"] == 10
    again = invoke("resume", "last", "-o", path.parent / "out")
    assert (again.exit_code, "is finished" in again.stderr) == (0, True)


def test_a_torn_last_line_is_dropped(suite_file: Any, asked: Any) -> None:
    texts, url, allow = asked
    path = suite_file(generation(), rows=TEN)
    allow(3)
    run(path, url, "--concurrency", 1, "--fail-on-error", 0)
    (journal,) = files(path, "journal")
    whole = journal.read_bytes().splitlines(keepends=True)
    # The header, two answers, half of the third; the second took its time.
    late = json.dumps({**json.loads(whole[2]), "at": 1000.0}).encode() + b"\n"
    journal.write_bytes(b"".join(whole[:2]) + late + whole[3][: len(whole[3]) // 2])
    allow(None)
    del texts[:]
    assert invoke("resume", "last", "-o", path.parent / "out").exit_code == 0
    assert sorted(texts) == ["2", "3", "4", "5", "6", "7", "8", "9"]
    assert [row["doc_id"] for row in lines(files(path, "samples")[0])] == list(range(10))
    seconds = float(json.loads(files(path, "results")[0].read_text())["total_evaluation_time_seconds"])
    assert 1000 < seconds < 1100, "the time before it was ended counts"


def test_a_run_is_not_continued_as_another(suite_file: Any, asked: Any) -> None:
    _, url, allow = asked
    path = suite_file(generation(), rows=TEN)
    allow(3)
    run(path, url, "--concurrency", 1, "--fail-on-error", 0)
    allow(None)
    suite_file(generation(), rows={"repeat.jsonl": [*TEN["repeat.jsonl"][:9], {"text": "new", "target": "a"}]})
    refused = invoke("resume", "last", "-o", path.parent / "out")
    assert refused.exit_code == 2
    assert "task repeat: its rows or its settings have changed" in refused.stderr
    missing = invoke("resume", "1999", "-o", path.parent / "out")
    assert (missing.exit_code, "no run '1999'" in missing.stderr) == (2, True)


def test_a_journal_knows_whose_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"seed": 1, "model": "a"}) as journal:
        journal.write("t", 2, {"rows": []})
        journal.write("t", 1, {"rows": [], "error": "no"})
    with Journal(path, {"seed": 1, "model": "a"}) as journal:
        assert journal.answered("t") == {2}
        assert [entry["doc_id"] for entry in journal.in_order("t")] == [1, 2]
        journal.write("t", 1, {"rows": []})
        assert journal.answered("t") == {1, 2}
    with pytest.raises(EvaluationError, match="seed: 1 then, 2 now"):
        Journal(path, {"seed": 2, "model": "a"})
    torn = tmp_path / "torn.jsonl"
    torn.write_bytes(b'{"journal": {"see')
    with Journal(torn, {"seed": 1}) as journal:
        assert journal.answered("t") == set()
    assert lines(torn) == [{"journal": {"seed": 1}}]


def test_a_folder_that_cannot_be_written_is_said_at_once(suite_file: Any, asked: Any) -> None:
    _, url, _ = asked
    path = suite_file(generation(), rows=ONES)
    (path.parent / "out").write_text("a file")
    done = run(path, url)
    assert (done.exit_code, "choose another folder with --output" in done.stderr) == (2, True)
