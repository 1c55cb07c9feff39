"""What the vllm plugin does around vLLM, without an engine: options, errors, streams, requests, clients that leave."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing import spawn
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway.errors import ConfigError, Unavailable
from gateway.plugins import load
from gateway.testing import AppClient
from gateway.types import ASGIApp, Receive, Scope, Send
from gateway_vllm import surroundings
from gateway_vllm.backend import VllmBackend
from gateway_vllm.dialect import Dialect, both_spellings, translate
from gateway_vllm.options import engine_arguments, parse_options, server_arguments
from gateway_vllm.reaper import Reaper, marked
from gateway_vllm.room import strictly

FIELDS = ["model", "dtype", "max_num_seqs", "tensor_parallel_size", "quantization", "enforce_eager"]


def context(**spec: Any) -> BackendContext:
    return BackendContext("small", ModelSpec(backend="vllm", **spec), Path("/models/small"))


def arguments(cpu: bool = True, **spec: Any) -> dict[str, Any]:
    made = context(**spec)
    return engine_arguments(made, parse_options(made), FIELDS, cpu=cpu)


class TestOptions:
    def test_chooses_for_a_cpu(self) -> None:
        chosen = arguments(max_model_len=512)
        assert chosen["dtype"] == "float32"
        assert chosen["enforce_eager"] is True
        assert chosen["kv_cache_memory_bytes"] == 1 << 30
        assert chosen["block_size"] == 32
        assert chosen["served_model_name"] == ["small"]
        assert chosen["max_model_len"] == 512

    def test_leaves_a_gpu_to_vllm(self) -> None:
        chosen = arguments(cpu=False)
        assert chosen["dtype"] == "auto"
        left = {"enforce_eager", "block_size", "kv_cache_memory_bytes", "max_num_seqs", "max_model_len"}
        assert not left & set(chosen)

    def test_takes_what_is_said(self) -> None:
        options = {
            "kv_cache_gb": 0.5,
            "enforce_eager": False,
            "block_size": 64,
            "engine_args": {"tensor_parallel_size": 2},
        }
        chosen = arguments(dtype="bfloat16", options=options)
        assert chosen["dtype"] == "bfloat16"
        assert chosen["kv_cache_memory_bytes"] == 1 << 29
        assert chosen["block_size"] == 64
        assert chosen["enforce_eager"] is False
        assert chosen["tensor_parallel_size"] == 2

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            (
                {"options": {"kv_cahe_gb": 1}},
                "models.small.options.kv_cahe_gb: unknown setting; did you mean kv_cache_gb?",
            ),
            ({"options": {"max_num_seqs": "8"}}, "models.small.options.max_num_seqs: Input should be a valid integer"),
            ({"options": {"engine_args": {"tensor-parallel-sise": 2}}}, "did you mean tensor_parallel_size?"),
            ({"options": {"engine_args": {"dtype": "half"}}}, "options.engine_args.dtype: say it in `dtype`"),
            ({"options": {"engine_args": {"enforce_eager": True}}}, "say it in `options.enforce_eager`"),
            ({"dtype": "int4"}, "models.small.dtype: vllm quantizes nothing itself"),
        ],
    )
    def test_refuses_what_it_does_not_know(self, spec: dict[str, Any], said: str) -> None:
        with pytest.raises(ConfigError) as error:
            arguments(**spec)
        assert said in str(error.value)

    def test_keeps_server_arguments_that_shape_answers(self) -> None:
        made = context(options={"server_args": {"return_tokens_as_token_ids": True}}, tool_parser="llama3_json")
        chosen = server_arguments(made, parse_options(made), ["return_tokens_as_token_ids", "api_key"])
        assert chosen["return_tokens_as_token_ids"]
        assert chosen["enable_auto_tool_choice"]
        assert chosen["tool_call_parser"] == "llama3_json"
        assert chosen["enable_tokenizer_info_endpoint"] is True
        closed = context(options={"server_args": {"api_key": ["k"]}})
        with pytest.raises(ConfigError, match="api_key"):
            server_arguments(closed, parse_options(closed), ["tool_call_parser", "api_key"])

    def test_is_found_and_costs_nothing_to_import(self) -> None:
        offer = load().backend("vllm")
        assert isinstance(offer.factory(context()), VllmBackend)
        code = "import sys, gateway_vllm, gateway_vllm.backend; print('torch' in sys.modules, 'vllm' in sys.modules)"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert said.stdout.split() == ["False", "False"]

    async def test_says_that_it_has_not_started(self) -> None:
        backend = VllmBackend(context())
        assert backend.running() == 0
        with pytest.raises(Unavailable):
            await backend.check_health()
        with pytest.raises(Unavailable):
            backend.app  # noqa: B018
        await backend.stop()


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "expected"),
        [
            (400, b'{"error":{"message":"This model\'s maximum context length is 8192 tokens.","type":"BadRequest",'
             b'"param":"input_tokens","code":400}}', (400, "context_length_exceeded", "input_tokens")),
            (400, b'{"error":{"message":"max_tokens=9 cannot be greater than max_model_len=8.","param":"max_tokens",'
             b'"code":400}}', (400, "context_length_exceeded", "max_tokens")),
            (400, b'{"error":{"message":"bad","param":"body.stop","code":400}}', (400, None, "stop")),
            (404, b'{"error":{"message":"The model `x` does not exist.","param":"model","code":404}}',
             (404, "model_not_found", "model")),
            (404, b'{"detail":"Not Found"}', (404, "not_found", None)),
            (405, b'{"detail":"Method Not Allowed"}', (405, "method_not_allowed", None)),
            (500, b'{"error":{"message":"boom","type":"Internal","code":500}}', (502, "backend_failed", None)),
            (501, b'{"error":{"message":"cannot","type":"NotImplementedError","code":501}}',
             (400, "unsupported_feature", None)),
            (503, b"", (503, "unavailable", None)),
            (500, b"Internal Server Error", (502, "backend_failed", None)),
        ],
    )  # fmt: skip
    def test_speaks_openai(self, status: int, body: bytes, expected: tuple[int, str | None, str | None]) -> None:
        error = translate(status, body)
        assert (error.status, error.code, error.param) == expected
        assert error.message

    def test_a_dead_engine_is_unavailable(self) -> None:
        error = translate(500, b'{"error":{"message":"EngineCore encountered an issue.","code":500}}', down=True)
        assert error.status == 503
        assert (b"retry-after", b"1") in error.headers()


def says(messages: Iterable[bytes], *, status: int = 200, kind: bytes = b"text/event-stream") -> ASGIApp:
    """An ASGI app that sends these bytes, as recorded from vLLM, one message each."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        for message in messages:
            await send({"type": "http.response.body", "body": message, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def asks(app: ASGIApp, **settings: Any) -> AppClient:
    return AppClient(Dialect(app, is_down=lambda: False, **settings))


def chunk(index: int, delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


ROLE = {"role": "assistant", "content": ""}
DONE = b"data: [DONE]\n\n"


class TestStreams:
    async def test_the_role_travels_with_the_first_content(self) -> None:
        sent = [chunk(0, ROLE, prompt_token_ids=[1, 2], prompt_text=None), chunk(0, {"content": "Hi"}), DONE]
        later = chunk(0, {"content": "\N{SNOWMAN}"})
        answer = await asks(says([*sent[:2], later, DONE])).post("/v1/chat/completions", {})
        first, second = answer.events()
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": "Hi"}
        assert first["prompt_token_ids"] == [1, 2]
        assert second["choices"][0]["delta"] == {"content": "\N{SNOWMAN}"}
        assert answer.chunks[1:] == [later, DONE]

    async def test_each_choice_has_its_role(self) -> None:
        sent = [chunk(0, ROLE), chunk(1, ROLE), chunk(0, {"content": "a"}), chunk(0, {"content": "b"})]
        answer = await asks(says([*sent, chunk(1, {"content": "c"}), DONE])).post("/v1/chat/completions", {})
        deltas = [(e["choices"][0]["index"], e["choices"][0]["delta"]) for e in answer.events()]
        assert deltas == [
            (0, {"role": "assistant", "content": "a"}),
            (0, {"content": "b"}),
            (1, {"role": "assistant", "content": "c"}),
        ]

    async def test_nothing_is_lost_where_no_content_comes(self) -> None:
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\n'
        answer = await asks(says([chunk(0, ROLE), usage, DONE])).post("/v1/chat/completions", {})
        first, second = answer.events()
        assert first["choices"] == []
        assert second["choices"][0]["delta"] == ROLE

    async def test_other_streams_pass_untouched(self) -> None:
        sent = [b'data: {"choices":[{"index":0,"text":"a"}]}\n\n', b": keep-alive\n\n", chunk(0, ROLE), DONE]
        answer = await asks(says(sent)).post("/v1/completions", {})
        assert answer.chunks == sent

    @pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
    async def test_errors_inside_a_stream_speak_openai(self, path: str) -> None:
        error = b'data: {"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}\n\n'
        answer = await asks(says([chunk(0, ROLE), error, DONE])).post(path, {})
        assert {"message": "boom", "type": "server_error", "param": None, "code": "backend_failed"} in [
            event.get("error") for event in answer.events()
        ]
        assert answer.events()[-1].get("error"), "the error is the last thing said"

    async def test_reasoning_has_both_names(self) -> None:
        text = r"he said \"reasoning\":\"x\" \\"
        sent = chunk(0, {"reasoning": text}), chunk(0, {"content": '"reasoning":"no"'}), DONE
        answer = await asks(says(sent), reasoning=True).post("/v1/chat/completions", {})
        deltas = [event["choices"][0]["delta"] for event in answer.events()]
        assert deltas == [{"reasoning": text, "reasoning_content": text}, {"content": '"reasoning":"no"'}]
        whole = says([b'{"reasoning":"a"}'], kind=b"application/json")
        answer = await asks(whole, reasoning=True).post("/v1/chat/completions", {})
        assert answer.json() == {"reasoning": "a", "reasoning_content": "a"}
        assert answer.headers["content-length"] == str(len(answer.body))
        assert both_spellings(b'{"reasoning":null}') == b'{"reasoning":null}'

    async def test_whole_errors_are_replaced_with_their_head(self) -> None:
        app = says([b'{"detail":', b'"Not Found"}'], status=404, kind=b"application/json")
        answer = await asks(app).get("/nowhere")
        assert answer.status == 404
        assert answer.json()["error"]["code"] == "not_found"
        assert answer.headers["content-length"] == str(len(answer.body))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends back the request that it was given."""
    message = await receive()
    length = next(value for name, value in scope["headers"] if name == b"content-length")
    assert int(length) == len(message["body"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": message["body"]})


class TestRequests:
    @pytest.mark.parametrize(
        ("path", "asked", "arrives"),
        [
            ("/v1/chat/completions", {"messages": [{"role": "user", "name": None, "content": '"name": null'}]},
             {"messages": [{"role": "user", "content": '"name": null'}]}),
            ("/v1/completions", {"n": 2, "temperature": 0, "x": 1},
             {"n": 2, "temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0, "x": 1}),
            ("/v1/completions", {"n": 12, "temperature": 0.5}, {"n": 12, "temperature": 0.5}),
            ("/tokenize", {"prompt": [{"role": "user", "content": "hi"}]},
             {"messages": [{"role": "user", "content": "hi"}]}),
            ("/other", {"prompt": [{"a": 1}], "n": 2, "temperature": 0, "messages": [{"name": None}]}, None),
        ],
    )  # fmt: skip
    async def test_asks_vllm_in_its_words(
        self, path: str, asked: dict[str, Any], arrives: dict[str, Any] | None
    ) -> None:
        answer = await asks(echo).post(path, asked)
        assert answer.json() == (asked if arrives is None else arrives)

    @pytest.mark.parametrize("body", [b'{"n":1, "temperature":0,"f":1.0}', b'{"name": null', b'["name": null]', b""])
    async def test_leaves_all_others_byte_for_byte(self, body: bytes) -> None:
        assert (await asks(echo).post("/v1/chat/completions", body)).body == body

    @pytest.mark.parametrize("field", [b'"tools":[]', b'"n":2', b'"max_tokens":99999', b'"messages":[]'])
    async def test_what_is_no_json_is_for_vllm_to_refuse(self, field: bytes) -> None:
        for path in ("/v1/chat/completions", "/tokenize"):
            for body in (b'{"prompt":"H\xff",' + field + b"}", b"{" + field):
                assert (await asks(echo).post(path, body)).body == body

    @pytest.mark.parametrize(("asked", "fits"), [(None, True), (0, True), (6, True), (7, False), (10**30, False)])
    def test_an_answer_that_cannot_fit_is_refused_instead_of_cut(self, asked: int | None, fits: bool) -> None:
        def get_max_tokens(max_model_len: int, max_tokens: int | None, input_length: int, defaults: Any) -> int:
            left = max_model_len - input_length
            return left if max_tokens is None else min(left, max_tokens)

        counted = strictly(get_max_tokens)
        if fits:
            assert counted(10, asked, 4, {}) == (6 if asked is None else asked)
        else:
            with pytest.raises(ValueError, match="maximum context length is 10 tokens"):
                counted(10, asked, 4, {})

    @pytest.mark.parametrize("stop", ["x" * 1025, '"' * 1025, ["a", "x" * 1025], [f"{n}" for n in range(257)]])
    async def test_refuses_stops_that_no_engine_takes(self, stop: Any) -> None:
        refused = await asks(echo).post("/v1/completions", {"prompt": "hi", "stop": stop})
        assert (refused.status, refused.json()["error"]["param"]) == (400, "stop")
        for fine in ("x" * 1024, ["x" * 1024], "a"):
            assert (await asks(echo).post("/v1/completions", {"prompt": "hi", "stop": fine})).status == 200


class TestLeaving:
    @pytest.mark.parametrize("how", ["disconnect", "cancel", "broken_pipe"])
    async def test_the_app_is_told(self, how: Any) -> None:
        told: list[str] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            listening = asyncio.ensure_future(receive())
            while not listening.done():
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.01)
            told.append(listening.result()["type"])

        async with asks(app).open("POST", "/v1/completions", {}) as exchange:
            await exchange.next_body()
            await exchange.leave(how)
            await until(lambda: told == ["http.disconnect"], 1)
            assert exchange.task is not None
            with pytest.raises((asyncio.CancelledError, OSError)) if how != "disconnect" else no_error():
                await exchange.task

    async def test_an_app_that_does_not_listen_is_cancelled(self) -> None:
        ended = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with asks(app).open("POST", "/v1/completions", {}) as exchange:
            await exchange.next_body()
            await exchange.leave("cancel")
            await asyncio.wait_for(ended.wait(), 3)


class TestSurroundings:
    def test_spawned_processes_begin_with_a_module_of_ours(self) -> None:
        before = spawn.get_preparation_data("engine")
        with surroundings.own_children():
            data = spawn.get_preparation_data("engine")
        assert importlib.util.find_spec(data["init_main_from_name"])
        assert data["init_main_from_name"] == "gateway_vllm.engine_process"
        assert "init_main_from_path" not in data
        assert spawn.get_preparation_data("engine") == before

    def test_the_environment_is_as_it_was(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
        monkeypatch.delenv("LD_PRELOAD", raising=False)
        with surroundings.environment({"OMP_NUM_THREADS": "2", "GATEWAY_TEST_ONLY": "1"}):
            os.environ["LD_PRELOAD"] = "/nowhere"
            assert (os.environ["OMP_NUM_THREADS"], os.environ["GATEWAY_TEST_ONLY"]) == ("2", "1")
        assert os.environ["OMP_NUM_THREADS"] == "7"
        assert "GATEWAY_TEST_ONLY" not in os.environ
        assert "LD_PRELOAD" not in os.environ

    def test_finds_the_first_error_that_was_written_down(self, tmp_path: Path) -> None:
        assert surroundings.root_cause(tmp_path) is None
        trace = "Traceback (most recent call last):\n  File x\nValueError: too small\n\nRuntimeError: so it failed\n"
        (tmp_path / "errors.log").write_text(trace)
        assert surroundings.root_cause(tmp_path) == "ValueError: too small"


OWNER = """
import os, subprocess, sys, time
from gateway_vllm.reaper import Reaper
reaper = Reaper()
reaper.start()
environment = {**os.environ, **reaper.environment()}
code = "import subprocess, sys; subprocess.Popen(['sleep', '600'], start_new_session=True).wait()"
subprocess.Popen([sys.executable, "-c", code], env=environment)
print(reaper.mark, reaper.scratch, flush=True)
time.sleep(600)
"""


class TestReaper:
    def test_ends_everything_with_its_owner(self) -> None:
        with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            mark, scratch = owner.stdout.readline().split()
            wait_until(lambda: len(marked(mark)) == 2, 10)
            assert Path(scratch).is_dir()
            watcher = [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or ())]
            assert len(watcher) == 1
            owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not marked(mark), 3)
        wait_until(lambda: not Path(scratch).exists() and not watcher[0].is_running(), 3)

    def test_ends_everything_when_closed(self) -> None:
        reaper = Reaper()
        reaper.start()
        bystander = subprocess.Popen(["sleep", "600"])
        child = subprocess.Popen(["sleep", "600"], env={**os.environ, **reaper.environment()})
        try:
            wait_until(lambda: marked(reaper.mark) == [child.pid], 5)
            reaper.close()
            assert child.wait(1) == -signal.SIGKILL
            assert bystander.poll() is None
            assert not reaper.scratch.exists()
            wait_until(lambda: not [p for p in psutil.process_iter(["cmdline"]) if reaper.mark in str(p.info)], 3)
            reaper.close()
        finally:
            bystander.kill()
            bystander.wait()


def wait_until(met: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


async def until(met: Callable[[], bool], seconds: float) -> None:
    await asyncio.to_thread(wait_until, met, seconds)


class no_error:
    """A context in which nothing must be raised."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
