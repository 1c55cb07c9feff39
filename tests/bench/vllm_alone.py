"""The peer of the vLLM backend: the same engine and vLLM's own app under a plain uvicorn, without Ray and without us.

`python -m tests.bench.vllm_alone --port N --config FILE --model NAME`: runs until a signal, says `ready`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import uvicorn
import uvloop

from gateway import plugins
from gateway.config import load
from gateway.serve.contexts import context_of
from gateway.serve.settings import replica_environment
from gateway.types import ASGIApp
from gateway_vllm.dialect import Dialect


async def _serve(config: Path, model: str, port: int) -> None:
    spec = load(config).models[model]
    os.environ.update(replica_environment(spec))
    found = plugins.load()
    backend = found.backend(spec.backend).factory(context_of(model, spec, found))
    try:
        await backend.start()
        # Below our dialect lies vLLM's own app, which is what vLLM's server serves.
        if not isinstance(dialect := backend.app, Dialect):
            raise TypeError(f"the vllm backend's app is a {type(dialect).__name__}")
        app: ASGIApp = dialect.inner
        server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", access_log=False, log_level="error"))
        task = asyncio.ensure_future(server.serve())
        while not server.started:
            await asyncio.sleep(0.05)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await task
    finally:
        await backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.config, arguments.model, arguments.port))


if __name__ == "__main__":
    main()
