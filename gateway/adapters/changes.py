"""`/v1/load_lora_adapter` and `/v1/unload_lora_adapter` as vLLM has them, in a replica of the base: what is loaded is
verified and registered first, so that every replica has it, now and after every restart. Knows no Ray."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from gateway.adapters.intake import Find, add
from gateway.adapters.residence import Residence
from gateway.adapters.verify import Base
from gateway.adapters.version import PROD, AdapterVersion, check_name, read_reference
from gateway.errors import AdapterError, InvalidRequest, ModelNotFound
from gateway.types import Receive, Scope, Send

LOAD = "/v1/load_lora_adapter"
UNLOAD = "/v1/unload_lora_adapter"

Announce = Callable[[str, str], Awaitable[list[str]]]
"""(`load_adapter` or `unload_adapter`, an id): let every replica of the base do so, and every door know. What could
not be done, a line each."""


class _Asked(msgspec.Struct):
    lora_name: str = ""
    lora_path: str = ""
    load_inplace: bool = False


class Changes:
    """An ASGI app. Every other path goes on to the residence."""

    def __init__(self, residence: Residence, base: Base, find: Find, cache: Path, announce: Announce) -> None:
        self._residence = residence
        self._base = base
        self._find = find
        self._cache = cache
        self._announce = announce

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (LOAD, UNLOAD):
            return await self._residence(scope, receive, send)
        asked = await _read(receive)
        said = await (self._load(asked) if scope["path"] == LOAD else self._unload(asked))
        body = said.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        return await send({"type": "http.response.body", "body": body})

    async def _load(self, asked: _Asked) -> str:
        if not asked.lora_path:
            raise InvalidRequest("`lora_path` is missing: a folder, hf:ORG/NAME, s3://…", param="lora_path")
        name = check_name(asked.lora_name)
        directory = self._residence.directory
        await directory.look()
        before = self._named(name)
        if before and not asked.load_inplace:
            raise AdapterError(
                f"{self._base.name}:{name} is there already: set `load_inplace` to make this its next version",
                param="lora_name",
            )
        registry = directory.registry
        version = await add(
            registry, asked.lora_path, name=name, base=self._base, find=self._find, cache=self._cache, wanted=True
        )
        await directory.look()
        await self._residence.load(version.id)
        for older in before:
            if older.wanted and older.version != version.version:
                await registry.set_wanted(older, False)
        if before and directory.catalog.alias(version, PROD) is not None:
            # Whoever asks for the name shall get what was loaded under it.
            await registry.promote(version)
        await self._everywhere("load_adapter", version)
        return f"Success: LoRA adapter '{name}' added successfully."

    async def _unload(self, asked: _Asked) -> str:
        reference = read_reference(asked.lora_name)
        directory = self._residence.directory
        await directory.look()
        if not self._named(reference.name):
            raise ModelNotFound(f"the adapter {asked.lora_name!r} cannot be found", param="lora_name")
        gone = await directory.registry.remove(self._base.name, reference.name, reference.version)
        await directory.look()
        for version in gone:
            await self._residence.unload(version.id)
            await self._everywhere("unload_adapter", version)
        return f"Success: LoRA adapter '{asked.lora_name}' removed successfully."

    def _named(self, name: str) -> list[AdapterVersion]:
        versions = self._residence.directory.catalog.versions
        return [version for version in versions if (version.base, version.name) == (self._base.name, name)]

    async def _everywhere(self, what: str, version: AdapterVersion) -> None:
        if failures := await self._announce(what, version.id):
            raise AdapterError(f"not every replica of {self._base.name} could do it: {'; '.join(failures)}")


async def _read(receive: Receive) -> _Asked:
    parts: list[bytes] = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    try:
        return msgspec.json.decode(b"".join(parts), type=_Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not understood: {error}") from None
