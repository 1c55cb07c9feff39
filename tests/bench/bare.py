"""The peer of the doors: Ray Serve applications of a few lines that send bytes which were made before.

`python -m tests.bench.bare --port N --unary FILE --stream FILE`: runs until a signal, says `ready` once it answers.
`/two-hop`: FastAPI with the body as a dict, then a second deployment by handle, chunk by chunk. `/one-hop`: Starlette.
"""

# Ray's own annotations are partial.
# pyright: basic

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from gateway.config import GatewayConfig
from gateway.serve.settings import open_session


def _config(port: int) -> GatewayConfig:
    return GatewayConfig.model_validate({"server": {"port": port}, "models": {"none": {"backend": "echo"}}})


def _applications(unary: bytes, events: list[bytes]) -> list[Any]:
    """Defined inside a function, so that replicas get the classes by value."""
    from fastapi import FastAPI
    from fastapi.responses import Response, StreamingResponse
    from ray import serve
    from starlette.requests import Request

    options: dict[str, Any] = {
        "max_ongoing_requests": 1000,
        "ray_actor_options": {"num_cpus": 0.1},
        "logging_config": {"enable_access_log": False},
    }

    class Model:
        async def whole(self, body: dict[str, Any]) -> bytes:
            return unary

        async def stream(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
            for event in events:
                yield event

    wide = FastAPI()

    class TwoHop:
        def __init__(self, model: Any) -> None:
            self._whole = model.options(method_name="whole")
            self._stream = model.options(method_name="stream", stream=True)

        @wide.post("/")
        async def answer(self, body: dict[str, Any]) -> Response:
            if body.get("stream"):
                return StreamingResponse(self._stream.remote(body), media_type="text/event-stream")
            return Response(await self._whole.remote(body), media_type="application/json")

    class OneHop:
        async def __call__(self, request: Request) -> Response:
            body = await request.json()
            if not body.get("stream"):
                return Response(unary, media_type="application/json")

            async def chunks() -> AsyncIterator[bytes]:
                for event in events:
                    yield event

            return StreamingResponse(chunks(), media_type="text/event-stream")

    model = serve.deployment(**options)(Model)
    two = serve.deployment(**options)(serve.ingress(wide)(TwoHop))
    one = serve.deployment(**options)(OneHop)
    return [
        serve.RunTarget(two.bind(model.bind()), name="two-hop", route_prefix="/two-hop"),
        serve.RunTarget(one.bind(), name="one-hop", route_prefix="/one-hop"),
    ]


def _until_open(port: int) -> None:
    """HAProxy learns of the applications some time after they run."""
    until = time.monotonic() + 60
    with httpx.Client(trust_env=False, timeout=10) as client:
        for name in ("two-hop", "one-hop"):
            while True:
                try:
                    answer = str(client.post(f"http://127.0.0.1:{port}/{name}/", json={}).status_code)
                except httpx.TransportError as error:
                    answer = str(error)
                if answer == "200":
                    break
                if time.monotonic() > until:
                    raise RuntimeError(f"{name} answers {answer} still")
                time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--unary", type=Path, required=True)
    parser.add_argument("--stream", type=Path, required=True, help="a JSON list of the stream's events")
    arguments = parser.parse_args()
    config = _config(arguments.port)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    session = open_session(config)
    # Serve with HAProxy and throughput mode, and none of what the gateway adds to that on a request's way. What lets
    # Ray rest more, in other settings and in `cluster.start`, stays: both are to have it.
    ours = "RAY_enable_metrics_collection", "RAY_SERVE_HAPROXY_RETRY_ON", "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT"
    for name in ours:
        del os.environ[name]
    from ray import serve

    from gateway.serve import cluster

    ray = cluster.start(config, session)
    try:
        events = [event.encode() for event in json.loads(arguments.stream.read_text())]
        serve.run_many(
            _applications(arguments.unary.read_bytes(), events), wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        )  # fmt: skip
        cluster.wait(["two-hop", "one-hop"], within_s=120, progress=lambda _: None)
        _until_open(arguments.port)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        stop.wait()
    finally:
        ray.stop()


if __name__ == "__main__":
    main()
