"""`gateway eval` as people use it: the command line against a real server over HTTP."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

import gateway_evals
from gateway_evals.client import GatewayClient
from gateway_evals.errors import SampleFailed
from gateway_evals.samples import TIMES
from tests.evals.conftest import echo_app, generation

LIKELY, UNLIKELY = math.log(0.75), math.log(0.25 / 258)
"""What the echo backend gives to the byte it expects and to any other."""

CHOICE = {
    "task": "pick",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": "pick.jsonl"},
    "output_type": "multiple_choice",
    # After its echo mark the echo backend expects the text before it, so that it can be right and wrong on purpose.
    "doc_to_text": "{{said}}<|echo|>",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "target_delimiter": "",
}
PICKS = [
    {"said": "Paris", "choices": ["Rome", "Paris"], "answer": 1},
    {"said": "ab", "choices": ["ab", "cd"], "answer": 1},
    # Three misses cost more than one, but fewer a character.
    {"said": "abcdefghijkl", "choices": ["x", "abcdefghijyy"], "answer": 1},
    {"said": "Rome", "choices": ["Rome", "Paris"], "answer": 0},
]


def invoke(*arguments: object, key: str | None = None) -> Result:
    cli = typer.Typer()
    cli.callback()(lambda: None)
    gateway_evals.register_commands(cli)
    environment = {"GATEWAY_API_KEY": key, "GATEWAY_URL": None, "COLUMNS": "200"}
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)], env=environment)


def run(path: Path, url: str, *more: object, model: str = "echo") -> Result:
    return invoke("run", path, "--model", model, "--base-url", url, "--output", path.parent / "out", *more)


def files(path: Path, kind: str) -> list[Path]:
    return sorted((path.parent / "out").rglob(f"{kind}_*"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_multiple_choice_by_log_likelihood(suite_file: Any, echo_url: str) -> None:
    path = suite_file(CHOICE, rows={"pick.jsonl": PICKS})
    done = run(path, echo_url)
    assert done.exit_code == 0, done.output
    results = json.loads(files(path, "results")[0].read_text())
    assert results["results"]["pick"] == {
        "alias": "pick",
        "acc,none": 0.5,
        "acc_stderr,none": pytest.approx(math.sqrt(0.25 / 3)),
        "acc_norm,none": 0.75,
        "acc_norm_stderr,none": pytest.approx(math.sqrt(0.75 * 0.25 / 3)),
    }
    assert results["n-samples"]["pick"] == {"original": 4, "effective": 4}
    assert results["higher_is_better"]["pick"] == {"acc": True, "acc_norm": True}
    rows = lines(files(path, "samples")[0])
    assert [row["doc_id"] for row in rows] == [0, 1, 2, 3]
    assert [row["acc"] for row in rows] == [1, 0, 0, 1]
    (rome,), (paris,) = rows[0]["resps"]
    assert float(paris[0]) == pytest.approx(5 * LIKELY)
    assert float(rome[0]) == pytest.approx(4 * UNLIKELY)
    assert (paris[1], rome[1]) == ("True", "False")
    assert rows[0]["arguments"]["gen_args_1"] == {"arg_0": "Paris<|echo|>", "arg_1": "Paris"}
    assert files(path, "journal") == [], "all of it stands in the samples"


def test_a_metric_knows_its_better_direction_unless_the_task_says(suite_file: Any, echo_url: str) -> None:
    asked = [{"metric": "acc"}, {"metric": "ece"}, {"metric": "brier_score", "higher_is_better": True}]
    path = suite_file(CHOICE | {"metric_list": asked}, rows={"pick.jsonl": PICKS})
    assert run(path, echo_url).exit_code == 0
    told = json.loads(files(path, "results")[0].read_text())["higher_is_better"]["pick"]
    assert told == {"acc": True, "ece": False, "brier_score": True}


def test_generation_filters_and_answers_that_are_not_there(suite_file: Any, echo_url: str) -> None:
    task = generation(
        filter_list=[
            {"name": "digits", "filter": [{"function": "regex", "regex_pattern": r"\d+"}, {"function": "take_first"}]},
            {"name": "text", "filter": [{"function": "take_first"}]},
        ]
    )
    rows = [
        {"text": "it is 12", "target": "12"},
        {"text": "it is 13", "target": "12"},
        {"text": "nobody knows", "target": "nobody knows"},
        {"text": "12\nand more", "target": ["13", "12"]},
    ]
    path = suite_file(task, rows={"repeat.jsonl": rows})
    done = run(path, echo_url, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["models"]["echo"]
    assert told["results"]["repeat"]["exact_match,digits"] == 0.5
    assert told["results"]["repeat"]["exact_match,text"] == 0.5
    assert told["tasks"]["repeat"]["no_answer"] == {"digits": 1, "text": 0}
    assert told["files"] == [str(file) for file in (*files(path, "results"), *files(path, "samples"))]
    found = [
        (row["doc_id"], row["filter"], row["filtered_resps"], row["exact_match"])
        for row in lines(files(path, "samples")[0])
    ]
    assert found[4:] == [
        (2, "digits", ["[invalid]"], 0.0),
        (2, "text", ["nobody knows"], 1.0),
        (3, "digits", ["12"], 1.0),
        (3, "text", ["12"], 1.0),
    ]


def test_a_table_for_people(suite_file: Any, echo_url: str) -> None:
    path = suite_file(
        CHOICE, generation(), rows={"pick.jsonl": PICKS, "repeat.jsonl": [{"text": "a", "target": "a"}] * 2}
    )
    done = run(path, echo_url)
    for expected in (
        "pick",
        "acc_norm ↑",
        "0.7500",
        "0.2500",
        "repeat",
        "1.0000",
        "0.0000",
        str(files(path, "results")[0]),
    ):
        assert expected in done.stdout
    assert "6/6" in done.stderr


def test_order_and_content_do_not_depend_on_concurrency(suite_file: Any, echo_url: str) -> None:
    rows = [{"text": f"row {n}", "target": f"row {n % 7}"} for n in range(60)]
    path = suite_file(generation(num_fewshot=2), CHOICE, rows={"repeat.jsonl": rows, "pick.jsonl": PICKS})
    kept: list[list[dict[str, Any]]] = []
    for concurrency in (1, 32):
        out = path.parent / f"out{concurrency}"
        assert (
            invoke("run", path, "-m", "echo", "--base-url", echo_url, "-o", out, "--concurrency", concurrency).exit_code
            == 0
        )
        kept.append([row for file in sorted(out.rglob("samples_*")) for row in lines(file)])
        for row in kept[-1]:
            for name in TIMES:
                del row["gateway"][name]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 64


def test_suite_names_and_the_lists_of_them(echo_url: str, tmp_path: Path) -> None:
    listed = json.loads(invoke("ls", "--json").stdout)
    assert [row["error"] for row in listed] == [None] * len(listed)
    assert "smoke" in [row["name"] for row in listed]
    assert "smoke_choice" in invoke("ls").stdout
    assert invoke("validate", "smoke").exit_code == 0
    done = invoke("run", "smoke", "-m", "echo", "--base-url", echo_url, "-o", tmp_path, "--limit", "2", "--json")
    assert [task["answered"] for task in json.loads(done.stdout)["models"]["echo"]["tasks"].values()] == [2, 2, 2]


def broken(answer: Callable[[Request, int], Response], models: Callable[[Request], Response] | None = None) -> Any:
    """A foreign server: `answer` gets the request and how many came before it."""
    count = -1

    async def chat(request: Request) -> Response:
        nonlocal count
        count += 1
        return answer(request, count)

    listed = models or (lambda _: JSONResponse({"data": [{"id": "echo"}]}))
    return Starlette(routes=[Route("/v1/models", listed), Route("/v1/{path:path}", chat, methods=["POST"])])


def said(text: str) -> Response:
    return JSONResponse({"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]})


def fails(status: int, **headers: str) -> Response:
    return JSONResponse({"error": {"message": f"told {status}"}}, status, headers)


ONES = {"repeat.jsonl": [{"text": "a", "target": "a"}] * 4}


@pytest.mark.parametrize(
    "bad",
    [
        lambda: fails(400),
        lambda: JSONResponse({"choices": []}),
        lambda: JSONResponse({"choices": [7]}),
        lambda: JSONResponse({"choices": [{"message": "a"}]}),
    ],
)
def test_a_failed_sample_ends_no_run_and_counts_in_no_figure(
    suite_file: Any, serve: Any, bad: Callable[[], Response]
) -> None:
    url = serve(broken(lambda _, count: bad() if count == 1 else said("a")))
    path = suite_file(generation(), rows=ONES)
    done = run(path, url, "--concurrency", 1)
    assert done.exit_code == 0, done.output
    assert "1 of 4 samples of repeat failed on echo" in done.stdout
    results = json.loads(files(path, "results")[0].read_text())
    assert results["results"]["repeat"]["exact_match,none"] == 1.0
    assert results["n-samples"]["repeat"]["effective"] == 3
    assert results["gateway"]["tasks"]["repeat"]["failed"] == 1
    rows = lines(files(path, "samples")[0])
    assert [row["metrics"] for row in rows] == [["exact_match"], [], ["exact_match"], ["exact_match"]]
    assert rows[1]["gateway"]["error"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_asked_again_when_it_is_said_to_pass(suite_file: Any, serve: Any, status: int) -> None:
    times: list[float] = []

    def answer(_: Request, count: int) -> Response:
        times.append(time.monotonic())
        return fails(status, **{"Retry-After": "1"}) if count == 0 else said("a")

    path = suite_file(generation(), rows=ONES)
    done = run(path, serve(broken(answer)), "--concurrency", 1)
    assert done.exit_code == 0, done.output
    assert times[1] - times[0] >= 1
    assert [row["gateway"]["attempts"] for row in lines(files(path, "samples")[0])] == [2, 1, 1, 1]


async def test_a_server_that_hangs_or_hangs_up_fails_the_sample(serve: Any) -> None:
    async def hang(_: Request) -> Response:
        await asyncio.sleep(1)
        return said("late")

    url = serve(Starlette(routes=[Route("/v1/chat/completions", hang, methods=["POST"])]))
    async with GatewayClient(url, timeout_s=0.1, max_attempts=2, first_wait_s=0.01) as client:
        with pytest.raises(SampleFailed, match=r"no answer in time .*after 2 attempts"):
            await client.post(f"{url}/v1/chat/completions", {})
    async with GatewayClient("http://127.0.0.1:9", max_attempts=2, first_wait_s=0.01) as client:
        with pytest.raises(SampleFailed, match="ClientConnectorError"):
            await client.post("http://127.0.0.1:9/v1/chat/completions", {})


def test_a_share_of_failures_ends_the_run_and_leaves_the_journal(suite_file: Any, serve: Any) -> None:
    url = serve(broken(lambda _, count: said("a") if count == 0 else fails(400)))
    path = suite_file(generation(), rows=ONES)
    done = run(path, url, "--concurrency", 1, "--fail-on-error", 0.25)
    assert done.exit_code == 2
    assert "2 of 4 samples of echo failed" in done.stderr
    (journal,) = files(path, "journal")
    assert [("error" in entry, entry["doc_id"]) for entry in lines(journal)[1:]] == [(False, 0), (True, 1), (True, 2)]
    assert files(path, "results") == []


def test_a_run_without_any_answer_is_an_error(suite_file: Any, serve: Any) -> None:
    done = run(suite_file(generation(), rows=ONES), serve(echo_app(fail=400)))
    assert done.exit_code == 2
    assert "no sample was answered; the first one: 400: the echo engine was told to answer 400" in done.stderr


def test_a_backend_without_logprobs_gets_no_made_up_figures(suite_file: Any, serve: Any) -> None:
    async def tokens(request: Request) -> Response:
        return JSONResponse({"tokens": list((await request.json())["prompt"].encode())})

    app = broken(lambda *_: JSONResponse({"choices": [{"index": n, "text": ""} for n in (0, 1)]}))
    app.routes.append(Route("/tokenize", tokens, methods=["POST"]))
    done = run(suite_file(CHOICE, rows={"pick.jsonl": PICKS}), serve(app))
    assert done.exit_code == 2
    assert "without logprobs: it cannot score choices" in done.stderr


def test_the_fast_lane_is_taken_and_the_key_goes_to_our_host_alone(suite_file: Any, serve: Any) -> None:
    seen: list[tuple[str, str]] = []

    async def chat(request: Request) -> Response:
        seen.append((request.url.path, request.headers.get("authorization", "")))
        return said("a")

    def models(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer sesame":
            return fails(401)
        lane = "http://elsewhere.invalid/m/echo/v1"
        return JSONResponse({"data": [{"id": "echo", "gateway": {"url": lane, "backend": "echo", "dtype": "bytes"}}]})

    app = Starlette(routes=[Route("/v1/models", models), Route("/m/echo/v1/chat/completions", chat, methods=["POST"])])
    path, url = suite_file(generation(), rows=ONES), serve(app)
    refused = run(path, url)
    assert refused.exit_code == 2
    assert "--api-key or in GATEWAY_API_KEY" in refused.stderr
    done = run(path, f"{url}/v1/", "--api-key", "sesame")
    assert done.exit_code == 0, done.output
    assert seen == [("/m/echo/v1/chat/completions", "Bearer sesame")] * 4
    text = files(path, "results")[0].read_text()
    assert json.loads(text)["gateway"]["model"] == {"backend": "echo", "dtype": "bytes"}
    assert "sesame" not in text


def test_a_key_that_expires_ends_the_run(suite_file: Any, serve: Any) -> None:
    url = serve(broken(lambda _, count: said("a") if count < 2 else fails(401)))
    done = run(suite_file(generation(), rows=ONES), url, "--concurrency", 2)
    assert done.exit_code == 2
    assert "wants a key (told 401)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (
            ["run", "smoke", "-m", "echo", "--base-url", "http://127.0.0.1:9"],
            2,
            "nothing answers at http://127.0.0.1:9: start it with",
        ),
        (["run", "smoke", "-m", "echo", "--base-url", "nowhere"], 2, "'nowhere' is no address"),
        (["run", "nope", "-m", "echo"], 3, "no file and no suite 'nope'; suites: generated"),
        (["run", "smoke"], 3, "--model"),
        (["run", "smoke", "-m", "x", "--limit", "0"], 3, "a number of rows (10), a share"),
        (["run", "smoke", "-m", "x", "--concurrency", "0"], 3, "--concurrency"),
        (["walk"], 3, "walk"),
    ],
)
def test_errors_that_say_what_to_do(arguments: list[str], code: int, expected: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == code
    assert expected in " ".join(done.stderr.split())


def test_an_unknown_model_lists_the_names(echo_url: str) -> None:
    done = invoke("run", "smoke", "-m", "echo", "-m", "eco", "--base-url", echo_url)
    assert (done.exit_code, "no model 'eco'" in done.stderr, "there are: echo" in done.stderr) == (2, True, True)


def test_something_else_that_answers_is_not_taken_for_a_gateway(serve: Any) -> None:
    url = serve(Starlette(routes=[Route("/{path:path}", lambda _: PlainTextResponse("hello"))]))
    done = invoke("run", "smoke", "-m", "echo", "--base-url", url)
    assert (done.exit_code, "is this a gateway?" in done.stderr) == (2, True)


def test_errors_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("task: x\n")
    done = invoke("validate", path, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["ok"]) == (2, False)
    assert any("tasks[0].dataset_path" in line for line in told["errors"])


@pytest.mark.parametrize(("weighted", "expected"), [(True, (1 + 0 + 0) / 3), (False, (0.5 + 0) / 2)])
def test_a_group_has_a_number_over_its_tasks(
    suite_file: Callable[..., Path], echo_url: str, weighted: bool, expected: float
) -> None:
    rows = {
        "one.jsonl": [{"text": "a", "target": "a"}, {"text": "b", "target": "x"}],
        "two.jsonl": [{"text": "c", "target": "x"}],
    }
    path = suite_file(generation("one"), generation("two"), rows=rows)
    wanted = [{"metric": "exact_match", "weight_by_size": weighted}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"aggregate_metric_list": wanted}))
    assert run(path, echo_url).exit_code == 0
    (results,) = (path.parent / "out").rglob("results_*.json")
    body = json.loads(results.read_text())
    assert body["groups"]["tried"]["exact_match,none"] == pytest.approx(expected)
    assert body["group_subtasks"]["tried"] == ["one", "two"]
