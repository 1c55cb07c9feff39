"""Answers of finished runs against each other, judged over HTTP by a server that prefers the longer answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.evals.test_run import invoke

QUESTIONS = 6


def results(folder: Path, model: str, answers: list[str]) -> Path:
    """As `gateway eval run` writes them, for a task of text."""
    (folder / model).mkdir()
    asked = {"gen_args_0": {"arg_0": [{"role": "user", "content": "Why?"}], "arg_1": {"until": []}}}
    rows = [
        {"doc_id": n, "filter": "none", "arguments": asked, "resps": [[text]], "metrics": [], "gateway": {}}
        for n, text in enumerate(answers)
    ]
    stamp = "2026-01-01T00-00-00.000000"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / model / f"samples_talk_{stamp}.jsonl").write_text(lines)
    path = folder / model / f"results_{stamp}.json"
    body = {"results": {"talk": {"alias": "talk"}}, "versions": {"talk": 1}, "n-shot": {"talk": 0},
            "n-samples": {"talk": {"original": QUESTIONS, "effective": QUESTIONS}}, "model_name": model,
            "date": 0, "config": {}, "gateway": {"suite": "s"}}  # fmt: skip
    path.write_text(json.dumps(body))
    return path


def judging(always: str | None = None, status: int = 200) -> Any:
    async def models(request: Request) -> JSONResponse:
        return JSONResponse({"data": [{"id": "judge"}]})

    async def chat(request: Request) -> JSONResponse:
        asked = await request.json()
        if "structured_outputs" in asked:
            return said(asked["structured_outputs"]["choice"][1])
        prompt = asked["messages"][0]["content"]
        found = re.search(r"\[Answer A\]\n(.*?)\n\n\[Answer B\]\n(.*?)\n\nReply", prompt, re.DOTALL)
        assert found
        first, second = len(found[1]), len(found[2])
        told = always or ("[[A]]" if first > second else "[[B]]" if second > first else "[[tie]]")
        return said(told)

    def said(text: str) -> JSONResponse:
        body = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
        return JSONResponse(body, status)

    return Starlette(routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])])


def test_a_judge_ranks_models_over_their_answers(tmp_path: Path, serve: Any) -> None:
    paths = [
        results(tmp_path, name, [text] * QUESTIONS) for name, text in (("short", "a"), ("long", "aaa"), ("mid", "aa"))
    ]
    done = invoke("arena", *paths, "--judge", "judge", "--base-url", serve(judging()), "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["model"] for row in told["ranking"]] == ["long", "mid", "short"]
    assert (told["judged"], told["agreement"], told["unreadable"], told["failed"]) == (3 * QUESTIONS, 1.0, 0, 0)
    assert all(row["low"] <= row["rating"] <= row["high"] for row in told["ranking"])


def test_what_the_order_decides_is_a_tie_and_what_cannot_be_read_no_battle(tmp_path: Path, serve: Any) -> None:
    paths = [results(tmp_path, name, [text] * QUESTIONS) for name, text in (("one", "a"), ("two", "aaa"))]
    told = json.loads(
        invoke("arena", *paths, "--judge", "judge", "--base-url", serve(judging("[[A]]")), "--json").stdout
    )
    assert (told["agreement"], {row["ties"] for row in told["ranking"]}) == (0.0, {QUESTIONS})
    told = json.loads(invoke("arena", *paths, "--judge", "judge", "--base-url", serve(judging("Hm.")), "--json").stdout)
    assert (told["agreement"], told["unreadable"], told["ranking"]) == (None, QUESTIONS, [])
    # What it may say is a verdict each time, here always the same one.
    guided = ("--judge", "judge", "--base-url", serve(judging("Hm.")), "--guided", "--json")
    told = json.loads(invoke("arena", *paths, *guided).stdout)
    assert (told["unreadable"], {row["ties"] for row in told["ranking"]}) == (0, {QUESTIONS})
    failing = invoke("arena", *paths, "--judge", "judge", "--base-url", serve(judging(status=400)))
    assert (failing.exit_code, "no pair was judged; the first one: 400" in failing.output) == (2, True)
    one = invoke("arena", paths[0], "--judge", "judge", "--base-url", serve(judging()))
    assert (one.exit_code, "two or more models" in one.output) == (2, True)
    nobody = invoke("arena", *paths, "--judge", "judy", "--base-url", serve(judging()))
    assert (nobody.exit_code, "no judge 'judy'" in nobody.output) == (2, True)
