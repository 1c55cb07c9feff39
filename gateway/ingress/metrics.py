"""Prometheus metrics of one process, and one page out of those of many. Fed by the record layer alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric

from gateway.types import RequestRecord

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LABELS = ("door", "model", "target", "outcome")


class Family(msgspec.Struct, array_like=True):
    """One metric family as it travels between processes."""

    name: str
    help: str
    type: str
    samples: list[tuple[str, dict[str, str], float]]


class Metrics:
    """What this process has counted. `model` is the name asked for where it exists here, else "", so that strangers'
    inventions do not become labels."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("gateway_requests", "Requests that ended, by outcome.", _LABELS, registry=registry)
        self._latency = Histogram(
            "gateway_request_duration_seconds", "Arrival to last byte.", _LABELS, buckets=_SECONDS, registry=registry
        )
        self._ttft = Histogram(
            "gateway_time_to_first_token_seconds",
            "Arrival to the first byte of a stream's body.",
            _LABELS,
            buckets=_SECONDS,
            registry=registry,
        )
        self._prompt = Counter(
            "gateway_prompt_tokens", "Prompt tokens of answered requests.", _LABELS, registry=registry
        )
        self._completion = Counter(
            "gateway_completion_tokens", "Tokens that were generated.", _LABELS, registry=registry
        )
        self._fallbacks = Counter(
            "gateway_fallbacks", "Targets that were asked and gave way to the next.", _LABELS, registry=registry
        )
        self.in_flight = Gauge(
            "gateway_requests_in_flight", "Requests being answered now.", ("door",), registry=registry
        )
        self.generations = Gauge(
            "gateway_generations_running", "Sequences in a model's engine now.", ("model",), registry=registry
        )
        self._children: dict[tuple[str, ...], tuple[Counter, Histogram, Histogram, Counter, Counter, Counter]] = {}

    def count(self, record: RequestRecord) -> None:
        """Add one request that is over."""
        key = (record.door, (record.model or record.target) if record.target else "", record.target, record.outcome)
        children = self._children.get(key)
        if children is None:
            children = self._children[key] = (
                self._requests.labels(*key),
                self._latency.labels(*key),
                self._ttft.labels(*key),
                self._prompt.labels(*key),
                self._completion.labels(*key),
                self._fallbacks.labels(*key),
            )
        requests, latency, ttft, prompt, completion, fallbacks = children
        requests.inc()
        latency.observe(record.duration_s)
        if record.stream and record.first_byte_s is not None:
            ttft.observe(record.first_byte_s)
        if record.usage.prompt_tokens:
            prompt.inc(record.usage.prompt_tokens)
        if record.usage.completion_tokens:
            completion.inc(record.usage.completion_tokens)
        if record.attempts > 1:
            fallbacks.inc(record.attempts - 1)

    def snapshot(self) -> bytes:
        """Everything counted so far, for `page` in another process."""
        return msgspec.msgpack.encode(
            [
                Family(
                    family.name,
                    family.documentation,
                    family.type,
                    [
                        (sample.name, sample.labels, sample.value)
                        for sample in family.samples
                        if not sample.name.endswith("_created")
                    ],
                )
                for family in self.registry.collect()
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
