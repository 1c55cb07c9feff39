"""`/status`: how the gateway and its models are, out of what every replica says of itself. Knows no Ray.

Nothing here holds a prompt, an answer or a key: of a request that failed there is its code, and a message only where it
speaks of the gateway's own state.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway import __version__
from gateway.types import ModelCard, Outcome, RequestRecord

if TYPE_CHECKING:
    from gateway.ingress.metrics import Metrics

_KEPT = 20
"""Requests that are remembered for each way of failing: strangers with wrong keys push no crash out of sight."""
_SHOWN = 60
_LONGEST = 120
"""Characters of what a client chose itself (a path, a request's id)."""
_FRESH_S = 0.5
"""Any number of people may watch: replicas are asked no more often than this."""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that failed."""

    time: float
    """Unix time in seconds at which it began."""
    request_id: str
    door: str
    path: str
    status: int
    outcome: str
    duration_s: float
    model: str = ""
    """The name asked for, where it exists here."""
    target: str = ""
    code: str = ""
    message: str = ""
    replica: str = ""


class Failures:
    """The last requests that failed, a bounded number for each way of failing."""

    def __init__(self) -> None:
        self._by_outcome: dict[Outcome, deque[Failure]] = {}

    def keep(self, record: RequestRecord) -> None:
        """Remember one, unless it was answered or its client just left."""
        if record.outcome in ("ok", "disconnected"):
            return
        failure = Failure(
            time=record.started_at,
            request_id=record.request_id[:_LONGEST],
            door=record.door,
            path=record.path[:_LONGEST],
            status=record.status,
            outcome=record.outcome,
            duration_s=round(record.duration_s, 4),
            model=record.model if record.target else "",
            target=record.target,
            code=record.error_code,
            message=record.error_message,
        )
        self._by_outcome.setdefault(record.outcome, deque(maxlen=_KEPT)).append(failure)

    def __iter__(self) -> Iterator[Failure]:
        return chain.from_iterable(self._by_outcome.values())


class Totals(msgspec.Struct):
    """Counters of one target since their process began; the difference of two looks is a rate."""

    requests: int = 0
    failed: int = 0
    """Of them: server errors."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    streams: int = 0
    """Streams that sent a first token."""
    first_token_s: float = 0.0
    """Their times to first token, summed."""
    duration_s: float = 0.0
    """Arrival to last byte, summed over all requests."""

    def add(self, other: Totals) -> None:
        for field in self.__struct_fields__:
            setattr(self, field, getattr(self, field) + getattr(other, field))


class ReplicaReport(msgspec.Struct):
    """What one process that answers requests says of itself."""

    replica: str
    model: str
    """Whose replica it is; "" for the wide door's."""
    started_at: float
    in_flight: int
    limit: int | None
    """Requests that it takes at the same time."""
    generating: int = 0
    """Sequences in its engine, waiting or being computed."""
    memory_bytes: int | None = None
    """Resident memory of the process and of those it started; None where the system does not tell."""
    totals: dict[str, Totals] = {}
    """By target."""
    failures: list[Failure] = []


class Application(msgspec.Struct):
    """What the cluster says of a model, of the gateway or of an app beside it."""

    state: str
    """"running", "deploying", "failed", …"""
    replicas: dict[str, int] = {}
    """How many there are, by state."""
    message: str = ""


class FleetReport(msgspec.Struct):
    """All replicas that answered in time, and what the cluster knows; `apps` are the gateway's neighbours by name."""

    replicas: list[ReplicaReport] = []
    models: dict[str, Application] = {}
    apps: dict[str, Application] = {}


async def report(
    replica: str,
    *,
    metrics: Metrics,
    started_at: float,
    in_flight: int,
    limit: int | None,
    model: str = "",
    generating: int = 0,
) -> ReplicaReport:
    """What this process says of itself."""
    return ReplicaReport(
        replica=replica,
        model=model,
        started_at=started_at,
        in_flight=in_flight,
        limit=limit,
        generating=generating,
        memory_bytes=await asyncio.to_thread(_memory),
        totals=metrics.totals(),
        failures=list(metrics.failures),
    )


class Reporting(Protocol):
    """What this page asks of the models behind the doors."""

    async def cards(self) -> Mapping[str, ModelCard | None]: ...

    async def report(self) -> FleetReport:
        """What every process that answers requests says of itself."""
        ...


class StatusPage:
    """The page, kept for a moment however many ask."""

    def __init__(self, fleet: Reporting, routes: Mapping[str, tuple[str, ...]]) -> None:
        self._fleet = fleet
        self._routes = routes
        self._lock = asyncio.Lock()
        self._made_at = float("-inf")
        self._made = b""

    async def body(self) -> bytes:
        """The page as JSON."""
        async with self._lock:
            if time.monotonic() - self._made_at > _FRESH_S:
                cards, found = await asyncio.gather(self._fleet.cards(), self._fleet.report())
                self._made = msgspec.json.encode(page(cards, found, self._routes))
                self._made_at = time.monotonic()
            return self._made


def page(
    cards: Mapping[str, ModelCard | None], found: FleetReport, routes: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """One page out of what every replica said."""
    now = time.time()
    doors = [one for one in found.replicas if not one.model]
    counted: dict[str, Totals] = {}
    for one in found.replicas:
        for target, totals in one.totals.items():
            counted.setdefault(target, Totals()).add(totals)
    models = [
        _model(name, card, [one for one in found.replicas if one.model == name], counted.get(name), found.models, now)
        for name, card in cards.items()
    ]
    up = sum(card is not None for card in cards.values())
    started = min((one.started_at for one in doors), default=now)
    return {
        "object": "gateway.status",
        "status": "ok" if up == len(cards) else "degraded" if up else "down",
        "version": __version__,
        "time": now,
        "started_at": started,
        "uptime_s": round(now - started, 3),
        "gateway": {"in_flight": sum(one.in_flight for one in doors), "replicas": [_row(one, now) for one in doors]},
        "models": models,
        "routes": [
            {"id": name, "targets": list(targets), "up": any(cards.get(target) is not None for target in targets)}
            for name, targets in routes.items()
        ],
        "apps": [{"id": name, **msgspec.structs.asdict(app)} for name, app in found.apps.items()],
        "errors": _newest(found.replicas),
    }


def _model(
    name: str,
    card: ModelCard | None,
    replicas: list[ReplicaReport],
    totals: Totals | None,
    applications: Mapping[str, Application],
    now: float,
) -> dict[str, Any]:
    known = applications.get(name)
    row: dict[str, Any] = {
        "id": name,
        "state": "up" if card is not None else "down",
        "backend": card.backend if card is not None else "",
        "in_flight": sum(one.in_flight for one in replicas),
        "generating": sum(one.generating for one in replicas),
        "totals": totals or Totals(),
        "replicas": [_row(one, now) for one in replicas],
        # What the cluster sees, where there is one: also replicas that are starting, or cannot.
        "replica_states": known.replicas if known is not None else {"running": len(replicas)},
    }
    if known is not None and card is None:
        row["state"] = known.state if known.state != "running" else "down"
    if known is not None and known.message:
        row["message"] = known.message
    return row


def _row(one: ReplicaReport, now: float) -> dict[str, Any]:
    return {
        "id": one.replica,
        "uptime_s": round(now - one.started_at, 3),
        "in_flight": one.in_flight,
        "limit": one.limit,
        "generating": one.generating,
        "memory_bytes": one.memory_bytes,
    }


def _newest(replicas: Iterable[ReplicaReport]) -> list[Failure]:
    failures = [msgspec.structs.replace(failure, replica=one.replica) for one in replicas for failure in one.failures]
    return sorted(failures, key=lambda failure: -failure.time)[:_SHOWN]


def _memory() -> int | None:
    import psutil

    try:
        own = psutil.Process(os.getpid())
        total: int = own.memory_info().rss
        for child in own.children(recursive=True):
            # One that ends in between takes nothing any more.
            try:
                total += child.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    except psutil.Error:
        return None
    return total
