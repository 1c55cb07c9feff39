"""What the registry knows of adapters, as HTML. Whatever comes from there is shown as text. Knows no Gradio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, cast

from gateway_playground.tabs.tables import table

Adapter = Mapping[str, Any]

_MOST = 60
"""Numbers of one adapter that are shown."""


def title(adapter: Adapter) -> str:
    """An adapter on one line, for a list to choose from."""
    aliases = ", ".join(f"@{alias}" for alias in adapter.get("aliases") or ())
    return f"{adapter['id']} ({aliases})" if aliases else str(adapter["id"])


def overview(adapters: Sequence[Adapter]) -> str:
    """All versions as a table."""
    rows = [
        (
            f"<b>{escape(str(adapter.get('name')))}</b>",
            escape(str(adapter.get("base"))),
            escape(str(adapter.get("version"))),
            escape(", ".join(str(alias) for alias in adapter.get("aliases") or ()) or "–"),
            _state(adapter),
            _verdict(adapter),
            escape(str(adapter.get("rank"))),
            _residence(adapter),
        )
        for adapter in adapters
    ]
    head = ("Adapter", "Base", "Version", "Aliases", "State", "Verdict", "Rank", "Resident on")
    nothing = "No adapter is registered: `gateway adapters add` brings one, `gateway adapters train` makes one."
    return table("Adapters", head, rows, nothing)


def detail(adapter: Adapter) -> str:
    """One version: what it is, what its training measured, and what an evaluation said."""
    facts = {
        "source": adapter.get("source"),
        "made": _day(adapter.get("created")),
        "digest": str(adapter.get("digest") or "")[:16],
        "digest of its base": str(adapter.get("base_digest") or "")[:16],
        "loaded at start": "yes" if adapter.get("wanted") else "no",
    }
    parts = [_pairs("Facts", facts.items())]
    problems = [str(adapter["reason"])] if adapter.get("state") == "failed" and adapter.get("reason") else []
    problems += [
        f"{place.get('model')}: {place.get('reason')}"
        for place in adapter.get("places") or ()
        if place.get("state") == "failed"
    ]
    parts += [f'<p class="failed" role="alert">{escape(problem)}</p>' for problem in problems]
    parts.append(_pairs("Verdict", flat(adapter.get("verdict") or {}), "No evaluation has judged it yet."))
    parts.append(_pairs("Metrics", flat(adapter.get("metrics") or {}), "Nothing is known of its training."))
    return "".join(parts)


def flat(value: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Nested figures as pairs: `("loss.last", 0.3)`."""
    found: list[tuple[str, Any]] = []
    for name, one in value.items():
        path = f"{before}{name}"
        if isinstance(one, Mapping):
            found += flat(cast("Mapping[str, Any]", one), f"{path}.")
        elif isinstance(one, list):
            listed = cast("list[Any]", one)
            shown = [_number(item) for item in listed[:8]]
            found.append((path, ", ".join([*shown, *(["…"] if len(listed) > 8 else [])])))
        else:
            found.append((path, one))
    return found[:_MOST]


def _pairs(title: str, pairs: Iterable[tuple[str, Any]], nothing: str = "Nothing.") -> str:
    rows = [(escape(name), escape(_number(value))) for name, value in pairs]
    return table(title, ("What", "Value"), rows, nothing)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None or value == "" else str(value)


def _state(adapter: Adapter) -> str:
    state = str(adapter.get("state"))
    return f'<span class="state {"good" if state == "verified" else "bad"}">{escape(state)}</span>'


def _verdict(adapter: Adapter) -> str:
    told: Mapping[str, Any] = adapter.get("verdict") or {}
    verdict = str(told.get("verdict") or "")
    if not verdict:
        return "–"
    kind = {"better": "good", "worse": "bad"}.get(verdict, "fair")
    return f'<span class="state {kind}">{escape(verdict)}</span>'


def _residence(adapter: Adapter) -> str:
    replicas: dict[str, int] = {}
    for place in adapter.get("resident") or ():
        replicas[str(place.get("model"))] = replicas.get(str(place.get("model")), 0) + 1
    said = [f"{model} ({count} replicas)" if count > 1 else model for model, count in replicas.items()]
    return escape(", ".join(said) or "–")


def _day(created: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(float(created))) if created else ""
