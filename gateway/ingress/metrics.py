"""Prometheus metrics of one process, and one page out of those of many. Fed by the record layer alone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from gateway.ingress.status import Failures, Totals
from gateway.types import Door, RequestRecord

Sample = tuple[str, dict[str, str], float]
"""Name, labels, value."""

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_BOUNDS = (*(str(bound) for bound in _SECONDS), "+Inf")
_LABELS: tuple[str, ...] = ("door", "model", "target", "outcome")


class Family(msgspec.Struct, array_like=True):
    """One metric family as it travels between processes."""

    name: str
    help: str
    type: str
    samples: list[Sample]


class _Histogram:
    """Seconds, counted by bucket."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.total += seconds

    def samples(self, name: str, labels: dict[str, str]) -> Iterator[Sample]:
        """Buckets are cumulative, as Prometheus has them; none without a count."""
        count = sum(self.counts)
        if count:
            for bound, upto in zip(_BOUNDS, accumulate(self.counts), strict=True):
                yield f"{name}_bucket", {**labels, "le": bound}, upto
            yield f"{name}_count", labels, count
            yield f"{name}_sum", labels, self.total


class _Series:
    """What one combination of labels has counted."""

    __slots__ = ("completion_tokens", "duration", "fallbacks", "first_token", "prompt_tokens", "requests")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.completion_tokens = self.fallbacks = 0
        self.duration = _Histogram()
        self.first_token = _Histogram()


class Metrics:
    """What this process has counted, on its event loop alone. `model` is the name asked for where it exists here, else
    "", so that strangers' inventions do not become labels."""

    def __init__(self) -> None:
        self.in_flight: dict[Door, int] = {}
        """Requests being answered now, by door."""
        self.generations: dict[str, int] = {}
        """Sequences in a model's engine now."""
        self.failures = Failures()
        """The last requests that failed."""
        self._series: dict[tuple[str, str, str, str], _Series] = {}

    def count(self, record: RequestRecord) -> None:
        """Add one request that is over."""
        key = (record.door, (record.model or record.target) if record.target else "", record.target, record.outcome)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        series.requests += 1
        series.duration.observe(record.duration_s)
        if record.stream and record.first_byte_s is not None:
            series.first_token.observe(record.first_byte_s)
        series.prompt_tokens += record.usage.prompt_tokens
        series.completion_tokens += record.usage.completion_tokens
        series.fallbacks += max(0, record.attempts - 1)
        self.failures.keep(record)

    def totals(self) -> dict[str, Totals]:
        """What was counted so far, by target, for `/status`."""
        found: dict[str, Totals] = {}
        for (_, _, target, outcome), series in self._series.items():
            if not target:
                continue
            found.setdefault(target, Totals()).add(
                Totals(
                    requests=series.requests,
                    failed=series.requests if outcome == "server_error" else 0,
                    prompt_tokens=series.prompt_tokens,
                    completion_tokens=series.completion_tokens,
                    streams=sum(series.first_token.counts),
                    first_token_s=series.first_token.total,
                    duration_s=series.duration.total,
                )
            )
        return found

    def snapshot(self) -> bytes:
        """Everything counted so far, for `page` in another process."""
        labelled = [(dict(zip(_LABELS, key, strict=True)), series) for key, series in self._series.items()]

        def counter(name: str, text: str, value: Callable[[_Series], int]) -> Family:
            samples = [(f"{name}_total", labels, float(value(series))) for labels, series in labelled]
            return Family(name, text, "counter", samples)

        def histogram(name: str, text: str, value: Callable[[_Series], _Histogram]) -> Family:
            samples = [sample for labels, series in labelled for sample in value(series).samples(name, labels)]
            return Family(name, text, "histogram", samples)

        def gauge(name: str, text: str, label: str, values: Mapping[Any, int]) -> Family:
            return Family(name, text, "gauge", [(name, {label: key}, float(value)) for key, value in values.items()])

        return msgspec.msgpack.encode(
            [
                counter("gateway_requests", "Requests that ended, by outcome.", lambda s: s.requests),
                histogram("gateway_request_duration_seconds", "Arrival to last byte.", lambda s: s.duration),
                histogram(
                    "gateway_time_to_first_token_seconds",
                    "Arrival to the first byte of a stream's body.",
                    lambda s: s.first_token,
                ),
                counter("gateway_prompt_tokens", "Prompt tokens of answered requests.", lambda s: s.prompt_tokens),
                counter("gateway_completion_tokens", "Tokens that were generated.", lambda s: s.completion_tokens),
                counter(
                    "gateway_fallbacks", "Targets that were asked and gave way to the next.", lambda s: s.fallbacks
                ),
                gauge("gateway_requests_in_flight", "Requests being answered now.", "door", self.in_flight),
                gauge("gateway_generations_running", "Sequences in an engine now.", "model", self.generations),
            ]
        )


class _Merged:
    """Families of many processes as one; a `replica` label keeps counters monotonic when replicas come and go."""

    def __init__(self, snapshots: Iterable[tuple[str, bytes]]) -> None:
        self._families: dict[str, Metric] = {}
        for replica, snapshot in snapshots:
            for family in msgspec.msgpack.decode(snapshot, type=list[Family]):
                metric = self._families.setdefault(family.name, Metric(family.name, family.help, family.type))
                for name, labels, value in family.samples:
                    metric.add_sample(name, {**labels, "replica": replica}, value)

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def page(snapshots: Iterable[tuple[str, bytes]]) -> bytes:
    """One page in Prometheus' text format from (replica, snapshot) of every process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(snapshots))  # pyright: ignore[reportArgumentType] (it asks for no more than collect)
    return generate_latest(registry)
