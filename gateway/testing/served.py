"""One model of a running server, asked over HTTP: plain JSON out, plain JSON in. Knows no client library, no check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Rejected(Exception):
    """The server gave another status than was expected."""

    def __init__(self, reply: Reply, asked: str) -> None:
        super().__init__(f"{asked} answered {reply.status}: {reply.text[:300]}")
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    name: str
    """Its `event:` line, or ""."""
    data: Any
    """Its decoded `data:`; `[DONE]` as that string."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Raises ValueError where it is no JSON."""
        return msgspec.json.decode(self.body)

    def events(self) -> list[Event]:
        """Of a stream. Raises ValueError where an event's data is neither JSON nor `[DONE]`."""
        events: list[Event] = []
        for block in self.text.replace("\r\n", "\n").split("\n\n"):
            lines = block.split("\n")
            data = "\n".join(line[5:].strip() for line in lines if line.startswith("data:"))
            name = next((line[6:].strip() for line in lines if line.startswith("event:")), "")
            if data:
                events.append(Event(name, data if data == "[DONE]" else msgspec.json.decode(data)))
        return events


@dataclass(frozen=True, slots=True)
class Served:
    """A model by its name, behind an address."""

    http: httpx.AsyncClient
    url: str
    """The OpenAI root: `http://127.0.0.1:8000/v1`."""
    model: str
    engine: str = ""
    """Which backend answers, where the server says it."""
    max_model_len: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else its row of `/v1/models` says."""

    @property
    def root(self) -> str:
        """Where `/tokenize` is."""
        return self.url.removesuffix("/v1")

    async def request(self, method: str, path: str, *, json: Any = None, **options: Any) -> Reply:
        """Any request. `path` starts with `/v1` or is a page of the root."""
        if json is not None:
            options["content"] = json if isinstance(json, bytes) else msgspec.json.encode(json)
            options["headers"] = {"content-type": "application/json", **options.get("headers", {})}
        answer = await self.http.request(method, self.root + path, **options)
        return Reply(answer.status_code, dict(answer.headers), answer.content)

    async def get(self, path: str) -> Any:
        """A page's JSON. Raises Rejected for anything but 200."""
        reply = await self.request("GET", path)
        if reply.status != 200:
            raise Rejected(reply, f"GET {path}")
        return reply.json()

    async def post(self, path: str, **fields: Any) -> Any:
        """An answer's JSON. The model is named for the caller. Raises Rejected for anything but 200."""
        reply = await self.request("POST", path, json={"model": self.model, **fields})
        if reply.status != 200:
            raise Rejected(reply, f"POST {path}")
        return reply.json()

    async def stream(self, path: str, **fields: Any) -> list[Event]:
        """A stream's events. Raises Rejected for anything but 200."""
        reply = await self.request("POST", path, json={"model": self.model, "stream": True, **fields})
        if reply.status != 200:
            raise Rejected(reply, f"POST {path} (stream)")
        return reply.events()

    async def chat(self, content: Any, **fields: Any) -> Any:
        """A greedy chat completion of one user message, or of a list of messages."""
        return await self.post("/v1/chat/completions", **chat_body(content, fields))

    async def complete(self, prompt: Any, **fields: Any) -> Any:
        """A greedy completion."""
        return await self.post("/v1/completions", **{"prompt": prompt, "temperature": 0, **fields})

    async def ids(self, text: str) -> list[int]:
        """The ids of a text, no special ones added."""
        return (await self.post("/tokenize", prompt=text, add_special_tokens=False))["tokens"]


def chat_body(content: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A greedy chat's fields; `content` is a user's text or all messages."""
    messages: Any = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return {"messages": messages, "temperature": 0, **fields}


def connect(url: str, api_key: str = "", timeout_s: float = 120) -> httpx.AsyncClient:
    """A connection pool for one server."""
    host = urlsplit(url).hostname
    if host is None or urlsplit(url).scheme not in {"http", "https"}:
        raise ConfigError(f"{url!r} is no address: expected something like http://127.0.0.1:8000/v1")
    return httpx.AsyncClient(
        # Both of the names under which a key travels: OpenAI's and Anthropic's.
        headers={"authorization": f"Bearer {api_key}", "x-api-key": api_key} if api_key else {},
        timeout=httpx.Timeout(timeout_s, connect=10.0),
        # A proxy of the environment must not swallow what is meant for this machine.
        trust_env=host not in LOOPBACK,
    )


async def find(http: httpx.AsyncClient, url: str, names: Sequence[str] = ()) -> list[Served]:
    """The models of a server by name; all of its own (no routes) where none is named.

    Raises ConfigError where nothing answers or a name is unknown.
    """
    root = url.rstrip("/").removesuffix("/v1")
    try:
        answer = await http.get(f"{root}/v1/models")
    except httpx.TransportError as error:
        raise ConfigError(f"nothing answers at {root} ({error}): start a gateway with `gateway serve`") from error
    if answer.status_code == 401:
        raise ConfigError(f"{root} needs a key: give --api-key or set GATEWAY_API_KEY")
    if answer.status_code != 200:
        raise ConfigError(f"{root}/v1/models answers {answer.status_code}: {answer.text[:300]}")
    try:
        rows: dict[str, Any] = {row["id"]: row for row in answer.json()["data"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{root}/v1/models is no list of models in OpenAI's shape") from error
    if unknown := [name for name in names if name not in rows]:
        raise ConfigError(f"no model {', '.join(unknown)} at {root}; there are: {', '.join(rows)}")
    found: list[Served] = []
    for name in names or rows:
        facts: dict[str, Any] = rows[name].get("gateway") or {}
        if names or "targets" not in facts:
            length = rows[name].get("max_model_len")
            found.append(Served(http, f"{root}/v1", name, facts.get("backend") or "", length, facts))
    return found
