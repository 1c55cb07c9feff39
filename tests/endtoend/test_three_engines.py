"""The product as its clients see it: the official client, three engines, both doors, one real model."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.running import Gateway, run

pytestmark = pytest.mark.slow

ENGINES = ("smollm2", "smollm2-onnx", "smollm2-torch")
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


def client(gateway: Gateway, lane: str = "") -> openai.OpenAI:
    base = f"{gateway.url}/m/{lane}/v1" if lane else f"{gateway.url}/v1"
    return openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60)


@pytest.mark.parametrize("model", ENGINES)
@pytest.mark.parametrize("door", ["wide", "lane"])
def test_every_engine_says_paris_through_both_doors(gateway: Gateway, model: str, door: str) -> None:
    answer = client(gateway, model if door == "lane" else "").chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=20
    )
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (37, 8)


def test_the_wide_door_reaches_a_replica_over_a_socket_that_is_its_owners_alone(gateway: Gateway) -> None:
    assert httpx.get(f"{gateway.url}/v1/models/smollm2-torch").status_code == 200
    client(gateway).completions.create(model="smollm2-torch", prompt="A", max_tokens=1)
    (replica,) = [one for one, line in gateway.commands().items() if "model-smollm2-torch:" in " ".join(line)]
    sockets = [Path(one.laddr) for one in replica.net_connections("unix") if "/sockets/" in str(one.laddr)]
    # One listens, the others were accepted.
    assert len(sockets) > 1
    assert len(set(sockets)) == 1
    assert sockets[0].parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("model", ENGINES)
def test_a_stream_is_the_same_text_with_usage_where_it_was_asked_for(gateway: Gateway, model: str) -> None:
    chunks = list(
        client(gateway).chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            max_tokens=20,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        "The capital of France is Paris."
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


@pytest.mark.parametrize("model", ENGINES)
def test_sampling_fields_do_what_they_say(gateway: Gateway, model: str) -> None:
    ask = client(gateway).completions.create
    seeded = [
        ask(model=model, prompt="Once upon a time", max_tokens=12, temperature=1.0, top_p=0.9, seed=seed)
        .choices[0]
        .text
        for seed in (7, 7, 8)
    ]
    assert seeded[0] == seeded[1] != seeded[2]
    greedy = ask(model=model, prompt="1, 2, 3, 4,", max_tokens=8, temperature=0).choices[0]
    narrow = ask(model=model, prompt="1, 2, 3, 4,", max_tokens=8, temperature=1, extra_body={"top_k": 1}).choices[0]
    assert narrow.text == greedy.text
    assert greedy.finish_reason == "length"
    stopped = ask(model=model, prompt="1, 2, 3, 4,", max_tokens=20, temperature=0, stop=["7"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert "7" not in stopped.text
    several = ask(model=model, prompt="A", max_tokens=3, n=3, temperature=1, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    chat = client(gateway).chat.completions.create(
        model=model, messages=QUESTION, max_completion_tokens=3, temperature=0, logprobs=True, top_logprobs=2
    )
    assert chat.choices[0].logprobs is not None
    content = chat.choices[0].logprobs.content or []
    assert len(content) == 3
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in content)


def test_the_three_engines_agree_on_log_probabilities(gateway: Gateway) -> None:
    found: dict[str, list[float]] = {}
    for model in ENGINES:
        answer = client(gateway).completions.create(
            model=model, prompt="The capital of France is Paris.", max_tokens=1, temperature=0, logprobs=1, echo=True
        )
        logprobs = answer.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.token_logprobs is not None
        assert logprobs.token_logprobs[0] is None
        found[model] = [value for value in logprobs.token_logprobs[1:] if value is not None]
    first = found[ENGINES[0]]
    for model in ENGINES[1:]:
        assert found[model] == pytest.approx(first, abs=2e-3)


@pytest.mark.parametrize("model", ENGINES)
async def test_sixteen_at_once_are_all_answered_as_one_alone(gateway: Gateway, model: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=120) as many:
        answers = await asyncio.gather(
            *(
                many.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=20)
                for _ in range(16)
            )
        )
    assert {answer.choices[0].message.content for answer in answers} == {"The capital of France is Paris."}


@pytest.mark.parametrize("model", [*ENGINES, "echo-slow"])
@pytest.mark.parametrize("door", ["wide", "lane"])
def test_a_client_that_leaves_stops_the_generation(gateway: Gateway, model: str, door: str) -> None:
    base = f"{gateway.url}/v1" if door == "wide" else f"{gateway.url}/m/{model}/v1"
    body = {"model": model, "prompt": "x" * 300 if "echo" in model else "Tell me a story", "stream": True,
            "max_tokens": 1500, "ignore_eos": True}  # fmt: skip
    with httpx.Client(timeout=60) as http, http.stream("POST", f"{base}/completions", json=body) as stream:
        # The iterator is kept: httpx closes the connection with it.
        chunks = stream.iter_bytes()
        next(chunks)
        assert in_flight(gateway, model) >= 1
    deadline = time.monotonic() + 1.0
    while in_flight(gateway, model) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert in_flight(gateway, model) == 0


def in_flight(gateway: Gateway, model: str) -> int:
    """Generations in the engine of `model`, as its replica counts them."""
    for _ in range(5):
        page = httpx.get(f"{gateway.url}/metrics", timeout=30).text
        counts = [
            int(float(line.rsplit(" ", 1)[1]))
            for line in page.splitlines()
            if line.startswith("gateway_generations_running{") and f'model="{model}"' in line
        ]
        if counts:
            return sum(counts)
        # A replica that is too busy to answer in time is left out of the page.
    raise AssertionError(f"{model} is missing on five pages of metrics")


def test_routes_fall_back_and_say_who_answered(gateway: Gateway) -> None:
    raw = client(gateway).chat.completions.with_raw_response.create(model="backup", messages=QUESTION)
    assert raw.headers["x-gateway-target"] == "echo"
    assert raw.parse().model == "backup"
    assert float(raw.headers["x-gateway-overhead-ms"]) >= 0
    assert len(raw.headers.get_list("x-request-id")) == 1
    with pytest.raises(openai.InternalServerError) as refused:
        client(gateway).chat.completions.create(model="broken", messages=QUESTION)
    assert refused.value.status_code == 503


def test_a_request_id_is_kept(gateway: Gateway) -> None:
    answer = httpx.get(f"{gateway.url}/v1/models", headers={"x-request-id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]


@pytest.mark.parametrize("door", ["wide", "lane"])
def test_serves_own_layers_are_not_on_the_way(gateway: Gateway, door: str) -> None:
    """They would end this request after a tenth of a second, and fail on an id that is no text."""
    base = f"{gateway.url}/v1" if door == "wide" else f"{gateway.url}/m/echo-slow/v1"
    asked: Any = {"x-request-timeout-seconds": "0.1", "x-request-id": b"caf\xe9"}
    answer = httpx.post(f"{base}/completions", json={"model": "echo-slow", "prompt": "0123456789"}, headers=asked)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == "0123456789"
    (name,) = answer.headers.get_list("x-request-id")
    assert len(name) == 32


@pytest.mark.parametrize("model", ENGINES)
def test_too_long_a_prompt_is_a_400_with_its_code(gateway: Gateway, model: str) -> None:
    for base in (f"{gateway.url}/v1", f"{gateway.url}/m/{model}/v1"):
        answer = httpx.post(
            f"{base}/completions", json={"model": model, "prompt": "word " * 3000, "max_tokens": 5}, timeout=60
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_models_health_and_metrics_cover_everything(gateway: Gateway) -> None:
    rows = {row["id"]: row for row in httpx.get(f"{gateway.url}/v1/models").json()["data"]}
    assert set(rows) >= {*ENGINES, "chat", "backup"}
    for model in ENGINES:
        assert rows[model]["gateway"]["dtype"] == "float32"
        assert rows[model]["max_model_len"] == 2048
        assert rows[model]["gateway"]["digest"].startswith("b179c952")
    assert len({rows[model]["gateway"]["template_digest"] for model in ENGINES}) == 1
    assert httpx.get(f"{gateway.url}/health").json()["status"] == "ok"
    httpx.post(f"{gateway.url}/m/echo/v1/completions", json={"prompt": "a"})
    httpx.post(f"{gateway.url}/v1/completions", json={"prompt": "a", "model": "echo"})
    page = httpx.get(f"{gateway.url}/metrics").text
    for door in ("wide", "lane"):
        assert f'gateway_requests_total{{door="{door}",model="echo",outcome="ok"' in page


def test_status_says_of_every_replica_how_it_is_and_what_failed_last(gateway: Gateway) -> None:
    body = {"model": "broken", "prompt": "never-shown", "stream": True}
    httpx.post(f"{gateway.url}/m/broken/v1/completions", json=body, headers={"x-request-id": "broken-1"})
    answer = httpx.get(f"{gateway.url}/status", timeout=30)
    assert "never-shown" not in answer.text
    found = answer.json()
    models = {row["id"]: row for row in found["models"]}
    for model in ENGINES:
        (replica,) = models[model]["replicas"]
        assert models[model]["replica_states"] == {"running": 1}
        # A real model takes hundreds of megabytes, wherever its engine's process is.
        assert replica["memory_bytes"] > 300 * 2**20
    assert {app["id"]: app["state"] for app in found["apps"]}["playground"] == "running"
    assert {route["id"]: route["up"] for route in found["routes"]}["backup"]
    failed = next(error for error in found["errors"] if error["request_id"] == "broken-1")
    assert (failed["door"], failed["target"], failed["outcome"]) == ("lane", "broken", "server_error")
    told = run("status", "--port", str(gateway.port), "--json").stdout
    assert json.loads(told)["details"]["object"] == "gateway.status"


def test_the_printed_curl_line_works(gateway: Gateway) -> None:
    import subprocess

    line = next(line for line in gateway.lines if line.startswith("curl "))
    answer = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
    assert "Paris" in answer.stdout


def test_the_page_is_there(gateway: Gateway) -> None:
    page = httpx.get(f"{gateway.url}/playground/")
    assert page.status_code == 200
    assert "gradio" in page.text.lower()
