"""How a contract asks a backend's app, and what it reads from the answers. Knows no test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from gateway.backend import Backend
from gateway.testing.client import Answer, AppClient

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPTS = [f"{number} and {number + 1} make" for number in range(8)]


class Asking:
    """Greedy requests to the backend that is tested."""

    def completion(self, backend: Backend, **fields: Any) -> dict[str, Any]:
        """A greedy completion request, with these fields."""
        return {"model": backend.card().name, "prompt": "The capital of France is", "temperature": 0, **fields}

    def chat(self, backend: Backend, **fields: Any) -> dict[str, Any]:
        """A greedy chat request, with these fields."""
        return {"model": backend.card().name, "messages": QUESTION, "temperature": 0, **fields}

    async def text(self, backend: Backend, client: AppClient, **fields: Any) -> str:
        """The text of a completion."""
        return ok(await client.post(COMPLETIONS, self.completion(backend, **fields)))["choices"][0]["text"]

    async def ids(self, client: AppClient, text: str) -> list[int]:
        """The ids of a text, no special ones added."""
        return ok(await client.post("/tokenize", {"prompt": text, "add_special_tokens": False}))["tokens"]


def ok(answer: Answer) -> Any:
    assert answer.status == 200, answer.body
    return answer.json()


def refused(answer: Answer, *statuses: int) -> dict[str, Any]:
    """The error of an answer that must be one, in OpenAI's shape."""
    assert answer.status in statuses, (answer.status, answer.body)
    error = answer.json()["error"]
    assert set(error) >= {"message", "type", "param", "code"}, error
    assert error["message"]
    return error


async def until(met: Callable[[], bool], seconds: float) -> None:
    """Wait until `met()`. Fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)
