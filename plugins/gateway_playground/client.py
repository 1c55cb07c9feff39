"""The gateway's public HTTP API as tabs ask it (`gateway.tabs.PageClient`). Knows no page and keeps no key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.tabs import AskError
from gateway_playground.failures import message_in, of_status, of_transport


class GatewayClient:
    """One pool of connections for all users of the page; each call carries its own user's key."""

    def __init__(self, base_url: str, read_timeout_s: float) -> None:
        self.base_url = base_url.rstrip("/")
        # The gateway is on this machine: a proxy of the environment has no business in between.
        self._http = httpx.AsyncClient(
            base_url=self.base_url,
            timeout=httpx.Timeout(read_timeout_s, connect=5, write=30, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self, key: str) -> list[dict[str, Any]]:
        """What is served, in the gateway's order: the rows of `/v1/models`, each with its `path`. Raises AskError."""
        try:
            rows = cast("list[dict[str, Any]]", (await self.get("/v1/models", key))["data"])
            return [{**row, "id": str(row["id"]), "path": _path(row)} for row in rows]
        except (KeyError, TypeError, AttributeError) as error:
            raise AskError(f"What answers at {self.base_url} is not a gateway.") from error

    async def get(self, path: str, key: str) -> Any:
        """As `gateway.tabs.PageClient`."""
        return self._decoded(await self._whole("GET", path, key))

    async def get_text(self, path: str, key: str) -> str:
        """As `gateway.tabs.PageClient`."""
        return (await self._whole("GET", path, key)).text

    async def send(self, method: str, path: str, key: str, body: Any = None) -> Any:
        """As `gateway.tabs.PageClient`."""
        answer = await self._whole(method, path, key, body)
        return self._decoded(answer) if answer.content else None

    async def events(
        self, path: str, key: str, body: Any, told: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any]]:
        """As `gateway.tabs.PageClient`."""
        started = False
        try:
            async with self._http.stream("POST", path, json=body, headers=_headers(key)) as answer:
                if answer.status_code != 200:
                    said = await answer.aread()
                    model = str(body.get("model", ""))
                    raise of_status(answer.status_code, said, answer.headers, model=model, with_key=bool(key))
                if told is not None:
                    told.update(answer.headers)
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        return
                    started = True
                    yield _event(data)
                raise AskError("The connection to the model was lost: the answer is not complete.")
        except httpx.HTTPError as error:
            raise of_transport(error, self.base_url, started=started) from error

    async def _whole(self, method: str, path: str, key: str, body: Any = None) -> httpx.Response:
        content = None if body is None else msgspec.json.encode(body)
        headers = _headers(key) if content is None else {**_headers(key), "content-type": "application/json"}
        try:
            answer = await self._http.request(method, path, headers=headers, content=content)
        except httpx.HTTPError as error:
            raise of_transport(error, self.base_url) from error
        if answer.status_code >= 300:
            raise of_status(answer.status_code, answer.content, answer.headers, with_key=bool(key))
        return answer

    def _decoded(self, answer: httpx.Response) -> Any:
        try:
            return msgspec.json.decode(answer.content)
        except msgspec.DecodeError as error:
            raise AskError(f"What answers at {self.base_url}{answer.url.path} is not JSON.") from error


def _headers(key: str) -> dict[str, str]:
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise AskError("This is not a key: keys are plain letters, digits and signs.", needs_key=True)
    return {"authorization": f"Bearer {key}"}


def _path(row: dict[str, Any]) -> str:
    """Where to ask a model: `/m/<model>/v1`, the fast lane, where its row names one, else `/v1`."""
    # The address is the one outside clients use; from here the same path leads there on this machine, and a key
    # can never be sent to another host.
    facts: dict[str, Any] = row.get("gateway") or {}
    path = urlsplit(str(facts.get("url") or "")).path.rstrip("/") or "/v1"
    return path if path.endswith("/v1") else path + "/v1"


def _event(data: str) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise AskError("The model sent something that is not an answer.") from error
    if event.get("error") is not None:
        raise AskError(f"The answer broke off: {message_in(event) or 'the model failed'}")
    return event
