"""Adapters at a door: their names turned into targets, `/v1/adapters`, and which model a loading is meant for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from gateway.adapters.directory import Directory
from gateway.adapters.version import AdapterVersion, Reference, read_reference
from gateway.errors import AdapterError, GatewayError, InvalidRequest, MethodNotAllowed, ModelNotFound
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import ModelCard, Receive, Scope, Send, Target

CHANGES = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter")
"""Answered by a replica of the base: it has the weights that an adapter is held against."""

Digests = Callable[[], Awaitable[Mapping[str, str]]]
"""The digest of every model's weights, as far as they are known."""
Residents = Callable[[], Awaitable[Mapping[str, Mapping[str, list[str]]]]]
"""For each model and each of its replicas, the ids of the adapters in its memory."""


class AdapterNames:
    """What clients may write as `model` beside the names of models and routes."""

    def __init__(
        self, models: Mapping[str, bool], directory: Directory | None, digests: Digests, residents: Residents
    ) -> None:
        """`models`: every model of this door, and whether it takes adapters. `directory`: None where none does."""
        self.models = models
        self.directory = directory
        self.residents = residents
        self._digests = digests
        self._enabled = [name for name, enabled in models.items() if enabled]

    async def find(self, name: str, unknown: ModelNotFound) -> Target:
        """Who answers to an adapter's name. Raises `unknown` where it can be none; AdapterError where it cannot
        answer."""
        base, colon, rest = name.partition(":")
        if colon and base in self.models and not self.models[base]:
            raise ModelNotFound(needs_setting(base), param="model")
        if self.directory is None or (colon and base not in self.models):
            raise unknown
        try:
            reference = read_reference(rest if colon else name)
        except AdapterError:
            raise unknown from None
        digests: Mapping[str, str] = {}
        try:
            return self._target(base if colon else "", reference, digests, unknown)
        except ModelNotFound:
            # It may be newer than what we have seen, or be known by its weights alone.
            await self.directory.look_for_more()
            digests = await self._digests()
        return self._target(base if colon else "", reference, digests, unknown)

    def _target(self, base: str, reference: Reference, digests: Mapping[str, str], unknown: ModelNotFound) -> Target:
        catalog = self._catalog
        if not base:
            owners = catalog.owners(reference.name, self._enabled, dict(digests))
            if not owners:
                names = ", ".join(dict.fromkeys(f"{each.base}:{each.name}" for each in catalog.versions))
                raise ModelNotFound(
                    f"{unknown.message}; adapters: {names}" if names else unknown.message, param="model"
                )
            if len(owners) > 1:
                choices = " or ".join(f"{owner}:{reference}" for owner in owners)
                raise ModelNotFound(f"{reference} is an adapter of several models: say {choices}", param="model")
            base = owners[0]
        version = catalog.choose(base, digests.get(base, ""), reference)
        return Target(base, adapter=version.id)

    @property
    def _catalog(self) -> Any:
        if self.directory is None:
            raise RuntimeError("no model here takes adapters")
        return self.directory.catalog

    def rows(
        self, cards: Mapping[str, ModelCard | None], taken: Iterable[str]
    ) -> list[tuple[str, str, AdapterVersion]]:
        """(name, model, version) of every adapter that answers now: `base:name`, and the name alone where it is unique
        and not `taken`."""
        if self.directory is None:
            return []
        catalog = self.directory.catalog
        digests = {name: card.digest for name, card in cards.items() if card is not None}
        rows: list[tuple[str, str, AdapterVersion]] = []
        for model in self._enabled:
            for name in dict.fromkeys(each.name for each in catalog.fitting(model, digests.get(model, ""))):
                try:
                    version = catalog.choose(model, digests.get(model, ""), Reference(name))
                except GatewayError:
                    # It cannot answer: /v1/adapters says why.
                    continue
                rows.append((f"{model}:{name}", model, version))
        reserved = {*taken}
        for name in dict.fromkeys(version.name for _, _, version in rows):
            owners = catalog.owners(name, self._enabled, digests)
            if len(owners) == 1 and name not in reserved:
                rows += [(name, model, version) for full, model, version in rows if full == f"{owners[0]}:{name}"]
        return rows


class AdapterPages:
    """Answers `GET /v1/adapters`; sends loading and unloading to the model that is meant; passes all else on."""

    def __init__(self, layer: Layer, names: AdapterNames, default: str) -> None:
        self._layer = layer
        self._names = names
        self._default = default

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if request.path == "/v1/adapters":
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowed(f"{request.path} takes GET, not {request.method}")
            return await _json(send, await self._list())
        if request.path in CHANGES:
            if request.method != "POST":
                raise MethodNotAllowed(f"{request.path} takes POST, not {request.method}")
            base, name = self._meant(request)
            request.set("lora_name", name)
            request.set("model", base)
        return await self._layer(request, scope, receive, send)

    def _meant(self, request: GatewayRequest) -> tuple[str, str]:
        """(base, name): by `lora_name: base:name`, by `model`, or the only one that takes adapters, or the default."""
        name = request.value("lora_name", str)
        if not name:
            raise InvalidRequest("`lora_name` is missing", param="lora_name")
        base, colon, rest = name.partition(":")
        models = self._names.models
        enabled = [model for model, takes in models.items() if takes]
        if colon:
            name = rest
        elif request.model:
            base = request.model
        elif self._default in enabled:
            base = self._default
        elif len(enabled) == 1:
            base = enabled[0]
        else:
            raise InvalidRequest(
                f"for which model? Say `lora_name: MODEL:{name}`; models that take adapters: {', '.join(enabled)}"
                if enabled
                else needs_setting(self._default if self._default in models else next(iter(models))),
                param="lora_name",
            )
        if base not in models:
            raise ModelNotFound(f"no model {base[:200]!r} here; there are: {', '.join(models)}", param="lora_name")
        if not models[base]:
            raise InvalidRequest(needs_setting(base), param="lora_name")
        return base, name

    async def _list(self) -> dict[str, Any]:
        directory = self._names.directory
        if directory is None:
            return {"object": "list", "data": [], "models": {}}
        await directory.look()
        catalog = directory.catalog
        residents = await self._names.residents()
        rows: list[dict[str, Any]] = []
        for version in catalog.versions:
            row: dict[str, Any] = {
                "id": f"{version.base}:{version.label}",
                "object": "adapter",
                "engine_id": version.id,
            }
            row |= msgspec.to_builtins(version)
            row["aliases"] = catalog.aliases_of(version)
            row["resident"] = [
                {"model": model, "replica": replica}
                for model, replicas in residents.items()
                for replica, held in replicas.items()
                if version.id in held
            ]
            rows.append(row)
        return {"object": "list", "data": rows, "models": residents}


def needs_setting(model: str) -> str:
    """What a model without adapters answers to a request for one."""
    return f"{model} takes no adapters: `adapters: {{}}` under models.{model} in the config turns them on"


async def _json(send: Send, value: Any) -> None:
    body = msgspec.json.encode(value)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
