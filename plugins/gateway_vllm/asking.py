"""Where requests that every backend understands are not vLLM's, and nowhere else. Almost all bodies pass untouched: a
body is decoded only where its bytes hold what vLLM would refuse, a grammar or tools. Imports no vLLM."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, cast

import msgspec

from gateway.errors import InvalidRequest, Unsupported
from gateway.openai.checks import MAX_SEQUENCES, MAX_STOP_LENGTH, MAX_STOPS
from gateway.types import Message, Receive, Scope
from gateway_vllm.grammars import guide
from gateway_vllm.tools import TOOLED, Terms, offer

Change = tuple[re.Pattern[bytes], Callable[[dict[str, Any]], None]]
"""What a body must hold, and what is then done with the request. A key inside a JSON string has escaped quotes, so a
message's text never looks like one; a key of some deeper object may, and the change then finds nothing to do."""


async def adapt(scope: Scope, receive: Receive, terms: Terms) -> Receive:
    """The `receive` through which vLLM is to read this request, of which the body may have been read already.

    Raises InvalidRequest where a grammar or a tool is wrong.
    """
    if scope["method"] != "POST":
        return receive
    path: str = scope["path"]
    for ending, changes in _CHANGES.items():
        if path.endswith(ending):
            asked = _Asked(scope, receive, changes, terms)
            await asked.read()
            return asked.receive
    return receive


def drop_null_names(request: dict[str, Any]) -> None:
    """`"name": null` in a message, which OpenAI's own types allow, means no name."""
    messages: list[Any] = request.get("messages") or []
    for message in messages:
        if isinstance(message, dict) and message.get("name", "") is None:  # pyright: ignore[reportUnknownMemberType]
            del message["name"]


def sample_greedily(request: dict[str, Any]) -> None:
    """vLLM gives several choices only where it samples: drawing from the best token alone is the same as greedy."""
    temperature = request.get("temperature")
    # Below 1e-5 vLLM takes a temperature for 0 (its _SAMPLING_EPS); negative ones are its to refuse.
    is_greedy = isinstance(temperature, int | float) and 0 <= temperature < 1e-5
    if is_greedy and isinstance(request.get("n"), int) and request["n"] > 1:
        request |= {"temperature": 1.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0}


def messages_of_prompt(request: dict[str, Any]) -> None:
    """A list of messages under `prompt` is a conversation: evaluation harnesses ask for its templated tokens so."""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):
        request["messages"] = request.pop("prompt")


def check_limits(request: dict[str, Any]) -> None:
    """Raise InvalidRequest for what every engine refuses and vLLM would begin to compute, or ignore."""
    n, stop, prompt = request.get("n"), request.get("stop"), request.get("prompt")
    prompts = len(cast(list[Any], prompt)) if isinstance(prompt, list) and not _is_ids(cast(list[Any], prompt)) else 1
    copies = n if isinstance(n, int) else 1
    if copies * prompts > MAX_SEQUENCES:
        message = f"prompts × n may be at most {MAX_SEQUENCES}"
        raise InvalidRequest(message, param="n" if copies > 1 else "prompt")
    ends = cast(list[Any], stop) if isinstance(stop, list) else [stop]
    if len(ends) > MAX_STOPS:
        raise InvalidRequest(f"`stop` may hold at most {MAX_STOPS} strings", param="stop")
    if any(isinstance(end, str) and len(end) > MAX_STOP_LENGTH for end in ends):
        raise InvalidRequest(f"a stop string may have at most {MAX_STOP_LENGTH} characters", param="stop")
    if request.get("best_of") not in (None, 1):
        raise Unsupported("the vllm engine does not support `best_of`", param="best_of")
    if request.get("messages") == []:
        raise InvalidRequest("`messages` must hold at least one message", param="messages")


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""Not JSON, not UTF-8, or nested too deeply: not for us to judge, vLLM's own answer says what is wrong."""

_LIMITED = re.compile(
    rb'"(?:n|best_of)"\s*:|"(?:stop|prompt)"\s*:\s*\[|"stop"\s*:\s*"(?:[^"\\]|\\.){1024}|"messages"\s*:\s*\[\s*\]'
)
_NULL_NAME: Change = (re.compile(rb'"name"\s*:\s*null'), drop_null_names)
_CHOICES: Change = (re.compile(rb'"n"\s*:\s*(?!1\b)\d'), sample_greedily)
_CONVERSATION: Change = (re.compile(rb'"prompt"\s*:\s*\[\s*\{'), messages_of_prompt)
_CHANGES: dict[str, tuple[Change, ...]] = {
    "/chat/completions": (_NULL_NAME, _CHOICES),
    "/completions": (_CHOICES,),
    "/tokenize": (_NULL_NAME, _CONVERSATION),
}
"""By the end of the path; the first that fits counts."""


_CHATS = "/chat/completions"
_GUIDED = ("/chat/completions", "/completions")
_GRAMMAR = re.compile(rb'"(?:response_format|structured_outputs|guided_(?:json|regex|choice|grammar))"\s*:(?!\s*null)')


class _Asked:
    """One request's body: put together, changed where it must be, and handed on as one message."""

    def __init__(self, scope: Scope, receive: Receive, changes: tuple[Change, ...], terms: Terms) -> None:
        self._scope = scope
        self._receive = receive
        self._changes = changes
        self._terms = terms
        self._message: Message | None = None

    async def receive(self) -> Message:
        if self._message is None:
            return await self._receive()
        message, self._message = self._message, None
        return message

    async def read(self) -> None:
        """Read the body, or that the client has left before its end."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                self._message = message
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        self._message = {"type": "http.request", "body": await self._changed(b"".join(parts)), "more_body": False}

    async def _changed(self, body: bytes) -> bytes:
        changes = [change for pattern, change in self._changes if pattern.search(body)]
        path: str = self._scope["path"]
        guided = path.endswith(_GUIDED) and _GRAMMAR.search(body) is not None
        tooled = not path.endswith("/completions") or path.endswith(_CHATS)
        tooled = tooled and TOOLED.search(body) is not None
        limited = _LIMITED.search(body) is not None
        if not changes and not guided and not tooled and not limited:
            return body
        try:
            request = msgspec.json.decode(body, type=dict[str, Any])
        except _UNREADABLE:
            return body
        check_limits(request)
        if not changes and not guided and not tooled:
            return body
        for change in changes:
            change(request)
        tools = offer(request, self._terms) if tooled else None
        if guided or (tools is not None and path.endswith(_CHATS)):
            await guide(request, self._terms, tools)
        changed = msgspec.json.encode(request)
        length = (b"content-length", str(len(changed)).encode())
        self._scope["headers"] = [
            *(header for header in self._scope["headers"] if header[0] != b"content-length"),
            length,
        ]
        return changed
