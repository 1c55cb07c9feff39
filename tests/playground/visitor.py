"""One person at the page without a browser: speaks what the page's own script speaks. Knows no gateway."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from gradio_client.utils import apply_diff


class Visitor:
    """`open` first, then `ask`, one question after the other; the page's server keeps the conversation."""

    def __init__(self, http: httpx.AsyncClient, playground_url: str) -> None:
        self._http = http
        self._root = f"{playground_url}/gradio_api"
        self._config_url = f"{playground_url}/config"
        self._session = secrets.token_hex(6)
        self._parts: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []

    async def open(self) -> None:
        config = (await self._http.get(self._config_url)).raise_for_status().json()
        self._parts = {part["id"]: part for part in config["components"]}
        self._events = config["dependencies"]
        # As the page does when it is opened: the list of models comes.
        (listing,) = [
            event for event in self._events if self._id("refresh") in [target[0] for target in event["targets"]]
        ]
        body = {"data": self._inputs(listing, {}), "fn_index": listing["id"], "session_hash": self._session}
        (await self._http.post(f"{self._root}/run/predict", json=body)).raise_for_status()

    async def ask(self, text: str, model: str) -> AsyncGenerator[list[dict[str, Any]]]:
        """The conversation as it is shown, each time it changes."""
        prompt = self._id("prompt")
        (event,) = [event for event in self._events if [prompt, "submit"] in event["targets"]]
        values = {"prompt": text, "model": model}
        body = {"data": self._inputs(event, values), "fn_index": event["id"], "session_hash": self._session}
        (await self._http.post(f"{self._root}/queue/join", json=body)).raise_for_status()
        place = event["outputs"].index(self._id("chat"))
        shown: Any = None
        async with self._http.stream(
            "GET", f"{self._root}/queue/data", params={"session_hash": self._session}
        ) as events:
            async for line in events.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] not in ("process_generating", "process_completed"):
                    continue
                if not message["success"]:
                    raise AssertionError(message)
                if message["msg"] == "process_completed":
                    return
                sent = message["output"]["data"][place]
                # The first is whole, each later one is what has changed.
                shown = sent if shown is None else apply_diff(shown, sent)
                if isinstance(shown, list):
                    yield shown

    def _id(self, elem_id: str) -> int:
        return next(number for number, part in self._parts.items() if part["props"].get("elem_id") == elem_id)

    def _inputs(self, event: dict[str, Any], values: dict[str, Any]) -> list[Any]:
        props = [self._parts[number]["props"] for number in event["inputs"]]
        return [values.get(one.get("elem_id") or "", one.get("value")) for one in props]


def said(shown: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(role, text) of the messages, without the facts of answers."""
    found: list[tuple[str, str]] = []
    for message in shown:
        parts = [part["text"] for part in message["content"]]
        found.append((message["role"], parts[0]))
    return found
