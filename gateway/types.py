"""The nouns of the hot path, as frozen structs. Knows nothing of Ray, HTTP servers or engines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Literal

import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""The one callable shape: every layer of the ingress and every backend is one of these."""

Headers = list[tuple[bytes, bytes]]
"""Header names are lower-case bytes, as ASGI has them."""

Outcome = Literal["ok", "client_error", "server_error", "rejected", "disconnected"]
"""How a request ended: answered, wrongly asked, failed by us, turned away (401, 403, 429), or left by its client."""

Door = Literal["wide", "lane"]
"""`/v1` (the wide door: routes and falls back) or `/m/<model>/v1` (the fast lane)."""


class Target(msgspec.Struct, frozen=True):
    """One model that can answer: what a route's name is turned into."""

    model: str
    """The model's name in the config; its Serve application and its own `model` value bear the same name."""
    weight: float = 1.0
    adapter: str = ""
    """Id of the adapter that answers in the base's place; "" for the base."""

    @property
    def name(self) -> str:
        """What its app is asked as `model`."""
        return self.adapter or self.model


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one answer, as the backend reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class RequestRecord(msgspec.Struct, frozen=True):
    """What is known of one request once it is over: exactly one for each. Holds no prompt and no answer."""

    request_id: str
    door: Door
    path: str
    model: str
    """The name the client asked for, or "" where none was read."""
    target: str
    """Who answered, or "" where nobody did."""
    status: int
    outcome: Outcome
    stream: bool
    started_at: float
    """Unix time in seconds."""
    duration_s: float
    first_byte_s: float | None
    """Seconds from the request's arrival to the first byte of the answer's body; None where none was sent."""
    usage: Usage = Usage()
    attempts: int = 1
    """How many targets were asked."""
    key_id: str = ""
    """The first characters of the key's hash; never the key."""
    error_code: str = ""
    """Of a request that failed: the error's `code`, or its `type` where it has none."""
    error_message: str = ""
    """Only of errors that speak of the gateway's own state (full, not up): others may quote the request."""


class ModelCard(msgspec.Struct, frozen=True):
    """What a model replica says of itself: the facts behind its row of `/v1/models`."""

    name: str
    backend: str
    max_model_len: int | None = None
    """Longest prompt plus answer, in tokens."""
    dtype: str = ""
    digest: str = ""
    """sha256 over the weights' source."""
    template_digest: str = ""
    """sha256 of the chat template's text; "" without one."""
    capabilities: tuple[str, ...] = ()
    """Of "adapters", "chat", "completions", "echo", "logprobs", "prompt_logprobs", "tokenize", …"""
    root: str = ""
    """What the weights are, for clients that load a tokenizer."""


class AdapterFiles(msgspec.Struct, frozen=True):
    """One version of an adapter on this machine, verified against its base: what a backend is given to load."""

    id: str
    """What the backend's app is asked as `model` for it. Never given to other weights: caches keyed by it stay true."""
    path: Path
    """A folder in PEFT's layout: `adapter_config.json` and `adapter_model.safetensors`."""
    digest: str
    """sha256 over both files."""
    rank: int
    """The largest of its matrices' ranks."""
