"""Where requests that every backend understands are not vLLM's, and nowhere else. Almost all bodies pass untouched: a
body is decoded only where its bytes hold what vLLM would refuse. Imports no vLLM."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.types import Message, Receive, Scope

_NULL_NAME = re.compile(rb'"name"\s*:\s*null')
"""A JSON key with null. Inside a string its quotes would be escaped, so a message's text can never look like it."""
_PROMPT_OF_MESSAGES = re.compile(rb'"prompt"\s*:\s*\[\s*\{')


def adapt(scope: Scope, receive: Receive) -> Receive:
    """The `receive` through which vLLM is to read this request."""
    if scope["method"] != "POST":
        return receive
    path: str = scope["path"]
    if path.endswith("/chat/completions"):
        return _Asked(scope, receive, _NULL_NAME, drop_null_names).receive
    if path.endswith("/tokenize"):
        return _Asked(scope, receive, _PROMPT_OF_MESSAGES, messages_of_prompt).receive
    return receive


def drop_null_names(request: dict[str, Any]) -> None:
    """`"name": null` in a message, which OpenAI's own types allow, means no name."""
    messages: list[Any] = request.get("messages") or []
    for message in messages:
        if isinstance(message, dict) and message.get("name", "") is None:  # pyright: ignore[reportUnknownMemberType]
            del message["name"]


def messages_of_prompt(request: dict[str, Any]) -> None:
    """A list of messages under `prompt` is a conversation: evaluation harnesses ask for its templated tokens so."""
    request["messages"] = request.pop("prompt")


class _Asked:
    """One request's body: put together, changed where `wanted` is found in it, and handed on as one message."""

    def __init__(
        self, scope: Scope, receive: Receive, wanted: re.Pattern[bytes], change: Callable[[dict[str, Any]], None]
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._wanted = wanted
        self._change = change
        self._read = False

    async def receive(self) -> Message:
        if self._read:
            return await self._receive()
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        self._read = True
        return {"type": "http.request", "body": self._changed(b"".join(parts)), "more_body": False}

    def _changed(self, body: bytes) -> bytes:
        if self._wanted.search(body) is None:
            return body
        try:
            request = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            return body  # Not for us to judge: vLLM's own answer says what is wrong with it.
        self._change(request)
        changed = msgspec.json.encode(request)
        length = (b"content-length", str(len(changed)).encode())
        self._scope["headers"] = [header for header in self._scope["headers"] if header[0] != b"content-length"] + [
            length
        ]
        return changed
