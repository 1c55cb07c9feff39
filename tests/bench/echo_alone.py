"""`python -m tests.bench.echo_alone --port N`: the echo backend under a plain uvicorn; says `ready` once it answers."""

from __future__ import annotations

import argparse
import asyncio
import sys

import uvicorn

from gateway.backend import BackendContext
from gateway.config import ModelSpec
from gateway_echo.backend import EchoBackend


async def _serve(port: int) -> None:
    app = EchoBackend(BackendContext("echo", ModelSpec(backend="echo"), None)).app
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await serving


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(_serve(parser.parse_args().port))
