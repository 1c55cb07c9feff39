"""The gateway's own pages: `/v1/models`, `/health`, `/status`, `/metrics`, `/openapi.json`. The rest goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.errors import MethodNotAllowed, ModelNotFound
from gateway.ingress import metrics
from gateway.ingress.adapters import AdapterNames
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.ingress.status import FleetReport, StatusPage
from gateway.types import ModelCard, Receive, Scope, Send


class Fleet(Protocol):
    """What the pages ask of the models behind the doors."""

    async def cards(self) -> Mapping[str, ModelCard | None]:
        """The facts of every model in the config's order; None for one that does not answer."""
        ...

    async def snapshots(self) -> Iterable[tuple[str, bytes]]:
        """(replica, metrics) of every process that answers requests."""
        ...

    async def report(self) -> FleetReport:
        """How every process that answers requests is."""
        ...


class Pages:
    """Answers the gateway's own pages and passes every other path on."""

    def __init__(
        self,
        layer: Layer,
        fleet: Fleet,
        routes: Mapping[str, tuple[str, ...]],
        document: Callable[[], bytes] | None = None,
        adapters: AdapterNames | None = None,
    ) -> None:
        """`document`: the OpenAPI document of all that stands behind, where one is published."""
        self._adapters = adapters
        self._layer = layer
        self._document = document
        self._fleet = fleet
        self._routes = routes
        """Each route's name and the models behind it."""
        self._status = StatusPage(fleet, routes)
        self._created = int(time.time())

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        path = request.path
        if path == "/v1/models" or path.startswith("/v1/models/"):
            _only_get(request)
            cards = await self._fleet.cards()
            rows = self._rows(cards, scope)
            rows += await self._adapter_rows(cards, [row["id"] for row in rows], scope)
            if path == "/v1/models":
                return await _json(send, 200, {"object": "list", "data": rows})
            name = path.removeprefix("/v1/models/")
            for row in rows:
                if row["id"] == name:
                    return await _json(send, 200, row)
            raise ModelNotFound(f"no model {name[:200]!r} here; there are: {', '.join(row['id'] for row in rows)}")
        if path == "/health":
            _only_get(request)
            models = {name: card is not None for name, card in (await self._fleet.cards()).items()}
            status = "ok" if all(models.values()) else "degraded" if any(models.values()) else "down"
            return await _json(
                send,
                503 if status == "down" else 200,
                {"status": status, "models": {name: "up" if up else "down" for name, up in models.items()}},
            )
        if path == "/status":
            _only_get(request)
            return await _answer(send, 200, await self._status.body(), b"application/json")
        if path == "/openapi.json" and self._document is not None:
            _only_get(request)
            return await _answer(send, 200, self._document(), b"application/json")
        if path == "/metrics":
            _only_get(request)
            return await _answer(send, 200, metrics.page(await self._fleet.snapshots()), CONTENT_TYPE_LATEST.encode())
        return await self._layer(request, scope, receive, send)

    def _rows(self, cards: Mapping[str, ModelCard | None], scope: Scope) -> list[dict[str, Any]]:
        root = f"{scope.get('scheme', 'http')}://{_host(scope)}"
        rows: list[dict[str, Any]] = []
        for name, card in cards.items():
            gateway: dict[str, Any] = {"url": f"{root}/m/{name}/v1", "up": card is not None}
            if card is not None:
                gateway |= {
                    "backend": card.backend,
                    "dtype": card.dtype,
                    "digest": card.digest,
                    "template_digest": card.template_digest,
                    "capabilities": list(card.capabilities),
                }
            rows.append(self._row(name, card, gateway))
        for name, targets in self._routes.items():
            first = next((cards[target] for target in targets if cards.get(target) is not None), None)
            # A route has no lane of its own: it is the wide door that routes.
            rows.append(
                self._row(name, first, {"url": f"{root}/v1", "up": first is not None, "targets": list(targets)})
            )
        return rows

    async def _adapter_rows(
        self, cards: Mapping[str, ModelCard | None], taken: Iterable[str], scope: Scope
    ) -> list[dict[str, Any]]:
        if self._adapters is None or self._adapters.directory is None:
            return []
        await self._adapters.directory.look(soonest_s=0.25)
        root = f"{scope.get('scheme', 'http')}://{_host(scope)}"
        rows: list[dict[str, Any]] = []
        for name, model, version in self._adapters.rows(cards, taken):
            card = cards.get(model)
            gateway = {
                "url": f"{root}/m/{model}/v1",
                "up": card is not None,
                "backend": card.backend if card is not None else "",
                "dtype": card.dtype if card is not None else "",
                "digest": version.digest,
                "adapter": version.label,
                "aliases": self._adapters.directory.catalog.aliases_of(version),
                "capabilities": list(card.capabilities) if card is not None else [],
            }
            rows.append(self._row(name, card, gateway) | {"root": version.source, "parent": model})
        return rows

    def _row(self, name: str, card: ModelCard | None, gateway: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "model-gateway",
            "root": card.root if card is not None and card.root else name,
            "parent": None,
            "max_model_len": card.max_model_len if card is not None else None,
            "gateway": gateway,
        }


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return value.decode("latin-1")
    server = scope.get("server") or ("127.0.0.1", 80)
    return f"{server[0]}:{server[1]}"


def _only_get(request: GatewayRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(f"{request.path} takes GET, not {request.method}")


async def _json(send: Send, status: int, value: Any) -> None:
    await _answer(send, status, msgspec.json.encode(value), b"application/json")


async def _answer(send: Send, status: int, body: bytes, content_type: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
