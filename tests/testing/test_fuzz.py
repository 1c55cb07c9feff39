"""A hundred requests that nobody should send, to a gateway in this process: none is a 500, none is left unanswered."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import uvicorn

from gateway import openapi
from gateway.ingress.doors import DoorPolicy
from gateway.serve.settings import free_ports
from tests.fuzzing import VALID, fuzz
from tests.ingress.conftest import Doors


async def test_nonsense_is_refused_and_never_breaks_anything() -> None:
    (port,) = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(Doors({}, DoorPolicy(), [], []).door, port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        found = await asyncio.to_thread(fuzz, f"http://127.0.0.1:{port}", ["echo"], 100)
    finally:
        server.should_exit = True
        await serving
    assert found.failures == []
    assert found.cases >= 100
    # Nonsense alone would prove little: some of it is almost right.
    assert found.statuses[200] >= 5
    assert found.statuses[400] >= 20


def test_the_document_describes_the_wide_door() -> None:
    document = json.loads(openapi.document())
    assert document["openapi"].startswith("3.1")
    assert document["paths"].keys() >= {*VALID, "/v1/models", "/health", "/metrics", "/tokenizer_info"}
    schemas = document["components"]["schemas"]
    assert schemas["ChatRequest"]["properties"].keys() >= {"messages", "tools", "response_format", "top_logprobs"}
    references = set[str]()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            references.update([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= schemas.keys()


async def test_the_document_is_a_page() -> None:
    from gateway.testing import AppClient

    client = AppClient(Doors({}, DoorPolicy(), [], []).door)
    answer = await client.get("/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json()["info"]["title"] == "model-gateway"
    assert (await client.post("/openapi.json", {})).status == 405
