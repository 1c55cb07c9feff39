"""Who are you? Keys as hashes, compared in constant time; without keys, loopback names only."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from gateway.errors import ConfigError, Forbidden, GatewayError, Unauthenticated
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import ASGIApp, Receive, Scope, Send

_HASH = re.compile(r"sha256:([0-9a-f]{64})")

OPEN_PATHS = frozenset({"/health", "/v2/health/live", "/v2/health/ready"})
"""Probes come without keys."""


def hash_key(key: str) -> str:
    """A key's SHA-256 as hex; `sha256:` and 64 hex digits are taken as a hash already.

    Keys are random and long, so a plain hash is right: there is no dictionary to be slow against.
    """
    match = _HASH.fullmatch(key)
    return match[1] if match else hashlib.sha256(key.encode()).hexdigest()


def hash_keys(keys: Iterable[str]) -> list[str]:
    """The hashes of all keys, blanks left out, each once."""
    return list(dict.fromkeys(hash_key(key.strip()) for key in keys if key.strip()))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def require_loopback_or_keys(host: str, keys: Iterable[str]) -> None:
    """Refuse to listen beyond this machine without keys. Raises ConfigError that says how to set one."""
    if not is_loopback(host) and not any(keys):
        raise ConfigError(
            f"server.host: {host} is reachable from other machines and no key is set. Set one "
            "(GATEWAY_API_KEYS=$(openssl rand -hex 32), or server.api_keys in the config) or listen on 127.0.0.1"
        )


class Authenticate:
    """With keys: `Authorization: Bearer KEY` or `x-api-key: KEY`.

    Without: `Host` (and `Origin`, if any) must be loopback names, so that a web page that a person happens to visit
    cannot reach the gateway through their browser.
    """

    def __init__(self, layer: Layer, key_hashes: Iterable[str] = ()) -> None:
        self._layer = layer
        self._hashes = [bytes.fromhex(key_hash) for key_hash in key_hashes]

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._hashes:
            check_loopback(request.headers)
        elif request.path not in OPEN_PATHS:
            request.key_id = check_key(request.headers, self._hashes)
        await self._layer(request, scope, receive, send)


def sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that came with a request, or nothing."""
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")


def check_key(headers: Mapping[bytes, bytes], hashes: Iterable[bytes]) -> str:
    """Raise Unauthenticated unless a known key came along. Returns what the key is called in records."""
    key = sent_key(headers)
    if not key:
        raise Unauthenticated("This gateway needs a key: send `Authorization: Bearer YOUR_KEY`")
    digest = hashlib.sha256(key).digest()
    # Every hash is compared, whichever matches: how long it takes says nothing.
    if sum([hmac.compare_digest(digest, known) for known in hashes]) == 0:
        raise Unauthenticated("This key is not known here")
    return digest[:4].hex()


def check_loopback(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden unless `Host`, and `Origin` where there is one, name this machine."""
    host = headers.get(b"host", b"").decode("latin-1")
    if host not in _seen_loopback:
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise Forbidden(f"Without keys this gateway answers to loopback names only, not to {host[:100]!r}")
        if len(_seen_loopback) < 64:
            _seen_loopback.add(host)
    origin = headers.get(b"origin")
    if origin is not None and not is_loopback(urlsplit(origin.decode("latin-1")).hostname or ""):
        raise Forbidden("Without keys this gateway takes no requests from other sites' pages")


class AppDoor:
    """In front of an app beside the gateway: without keys, loopback names only, as at the gateway's own doors.

    With keys, a `protected` app demands one; any other is left to ask its people itself, as a page must.
    """

    def __init__(self, app: ASGIApp, *, protected: bool = False) -> None:
        self._app = app
        self._protected = protected
        self._hashes: list[bytes] = []

    def admit(self, key_hashes: Iterable[str]) -> None:
        """From now on these keys, and no others. None: loopback names only."""
        self._hashes = [bytes.fromhex(key_hash) for key_hash in key_hashes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and self._protected:
            # No protected app speaks them; closing before accepting is answered 403 by the server.
            return await send({"type": "websocket.close", "code": 1000})
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            try:
                if not self._hashes:
                    check_loopback(headers)
                elif self._protected:
                    check_key(headers, self._hashes)
            except GatewayError as error:
                await send({"type": "http.response.start", "status": error.status, "headers": error.headers()})
                return await send({"type": "http.response.body", "body": error.to_json()})
        return await self._app(scope, receive, send)


_seen_loopback: set[str] = set()
"""Host values that were found to be loopback: the check is per request, parsing it is not. Bounded."""
