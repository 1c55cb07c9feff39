"""The layer of `/v1/arena/votes` and `/v1/arena/leaderboard`. All other paths pass untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.errors import InvalidRequest, MethodNotAllowed, NotFound, Unsupported
from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.types import Receive, Scope, Send

if TYPE_CHECKING:
    from gateway.arena.strength import Battle
    from gateway.arena.votes import Votes

_PREFIX = "/v1/arena/"
_FIELDS = ("model_a", "model_b", "winner")


class Arena:
    """Takes votes in and tells who leads."""

    def __init__(self, layer: Layer, open_: Callable[[], Votes]) -> None:
        """`open_`: called when first needed."""
        self._layer = layer
        self._open = open_
        self._board: tuple[dict[Battle, int], list[dict[str, Any]]] = ({}, [])
        """The last leaderboard, and the battles that it was made of."""

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if not request.path.startswith(_PREFIX):
            return await self._layer(request, scope, receive, send)
        page = request.path.removeprefix(_PREFIX).rstrip("/")
        if page == "votes":
            _only(request, "POST")
            answer = await self._vote(request)
        elif page == "leaderboard":
            _only(request, "GET")
            answer = await self._leaderboard()
        else:
            raise NotFound(f"There is no {request.path[:200]!r} here")
        body = msgspec.json.encode(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        return await send({"type": "http.response.body", "body": body})

    async def _vote(self, request: GatewayRequest) -> Any:
        from gateway.arena.votes import MAX_NAME, WINNERS

        for name in request.fields:
            if name not in _FIELDS:
                raise Unsupported(f"`{name[:64]}` is not supported: a vote has {', '.join(_FIELDS)}", param=name[:64])
        names: list[str] = []
        for field in ("model_a", "model_b"):
            name: str = (request.value(field, str) or "").strip()
            if not name:
                raise InvalidRequest(f"`{field}` is missing: the name of a model", param=field)
            if len(name) > MAX_NAME or not name.isprintable():
                raise InvalidRequest(f"`{field}` is no model's name (at most {MAX_NAME} characters)", param=field)
            names.append(name)
        if names[0] == names[1]:
            raise InvalidRequest("`model_a` and `model_b` are the same model", param="model_b")
        winner = request.value("winner", str)
        if winner not in WINNERS:
            raise InvalidRequest(f"`winner` must be one of: {', '.join(WINNERS)}", param="winner")
        return await self._open().add(request.key_id, names[0], names[1], winner)

    async def _leaderboard(self) -> Any:
        from gateway.arena.strength import strengths

        battles = await self._open().battles()
        if battles != self._board[0]:
            found = await asyncio.to_thread(strengths, battles)
            rows = [
                {
                    "rank": rank,
                    "model": one.name,
                    "rating": round(one.rating, 1),
                    "low": round(one.low, 1),
                    "high": round(one.high, 1),
                    "votes": one.battles,
                    "wins": one.wins,
                    "losses": one.losses,
                    "ties": one.ties,
                }
                for rank, one in enumerate(found, 1)
            ]
            self._board = (battles, rows)
        return {"object": "list", "data": self._board[1], "votes": sum(battles.values()), "confidence": 0.95}


def _only(request: GatewayRequest, method: str) -> None:
    if request.method != method:
        raise MethodNotAllowed(f"{request.path[:200]} takes {method}, not {request.method}")
