"""What `/status` says as HTML tables. Whatever comes from there is shown as text. Knows no Gradio."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from typing import Any

from gateway_playground.tabs.tables import span, table


def overview(status: Mapping[str, Any]) -> str:
    """The gateway itself, in one line."""
    gateway: Mapping[str, Any] = status["gateway"]
    replicas: Sequence[Mapping[str, Any]] = gateway["replicas"]
    facts = [
        f'<span class="state {_kind(status["status"])}">{_text(status["status"])}</span>',
        f"version {_text(status['version'])}",
        f"up {span(float(status['uptime_s']))}",
        f"{len(replicas)} gateway replica{'' if len(replicas) == 1 else 's'}",
        # This very request is one of them.
        f"{max(0, int(gateway['in_flight']) - 1)} at the wide door",
    ]
    return f'<p class="facts">{" · ".join(facts)}</p>'


def models(status: Mapping[str, Any]) -> str:
    """Every model with its replicas, then routes and apps."""
    rows: list[Sequence[str]] = []
    for model in status["models"]:
        totals: Mapping[str, Any] = model["totals"]
        memory = sum(int(replica["memory_bytes"] or 0) for replica in model["replicas"])
        state = f'<span class="state {_kind(model["state"])}">{_text(model["state"])}</span>'
        if model.get("message"):
            state += f" <small>{_text(model['message'])}</small>"
        rows.append(
            (
                f"<b>{_text(model['id'])}</b> <small>{_text(model['backend'])}</small>",
                state,
                _text(", ".join(f"{count} {which}" for which, count in model["replica_states"].items()) or "none"),
                f"{int(model['in_flight']):,}",
                f"{int(model['generating']):,}",
                f"{int(totals['requests']):,}",
                f"{int(totals['failed']):,}",
                f"{int(totals['completion_tokens']):,}",
                f"{memory / 2**30:.2f} GiB" if memory else "–",
            )
        )
    head = ("Model", "State", "Replicas", "In flight", "Queue and engine", "Requests", "Failed", "Tokens", "Memory")
    return table("Models", head, rows, "No model is served.")


def replicas(status: Mapping[str, Any]) -> str:
    """Every replica of the gateway and of its models."""
    groups = [("the gateway", status["gateway"]["replicas"])]
    groups += [(model["id"], model["replicas"]) for model in status["models"]]
    rows = [
        (
            _text(owner),
            f"<code>{_text(replica['id'])}</code>",
            span(float(replica["uptime_s"])),
            f"{int(replica['in_flight']):,} of {_text(replica['limit'] or 'any')}",
            f"{int(replica['generating']):,}",
            f"{int(replica['memory_bytes']) / 2**30:.2f} GiB" if replica["memory_bytes"] else "–",
        )
        for owner, found in groups
        for replica in found
    ]
    return table("Replicas", ("Of", "Replica", "Up", "In flight", "Queue and engine", "Memory"), rows, "None answered.")


def neighbours(status: Mapping[str, Any]) -> str:
    """Routes and apps."""
    rows = [
        (
            _text(route["id"]),
            "route",
            f'<span class="state {_kind("up" if route["up"] else "down")}">{"up" if route["up"] else "down"}</span>',
            _text(", ".join(route["targets"])),
        )
        for route in status["routes"]
    ]
    rows += [
        (
            _text(app["id"]),
            "app",
            f'<span class="state {_kind(app["state"])}">{_text(app["state"])}</span>',
            _text(app.get("message") or ""),
        )
        for app in status["apps"]
    ]
    return table("Routes and apps", ("Name", "Kind", "State", "To"), rows, "None.") if rows else ""


def errors(status: Mapping[str, Any], *, most: int = 30) -> str:
    """The last requests that failed, the newest first."""
    now = float(status["time"])
    rows = [
        (
            f'<time datetime="{_stamp(float(error["time"]))}">{span(max(0.0, now - float(error["time"])))} ago</time>',
            _text(error["status"]),
            _text(error.get("message") or error.get("code") or error["outcome"]),
            _text(error.get("target") or error.get("model") or ""),
            _text(error["path"]),
            f"{float(error['duration_s']) * 1000:,.0f} ms",
            f"<code>{_text(error['request_id'])}</code>",
        )
        for error in status["errors"][:most]
    ]
    head = ("When", "Status", "What", "Model", "Path", "Took", "Request")
    return table("Recent errors", head, rows, "No request has failed since the replicas began.")


def _kind(state: str) -> str:
    return {"ok": "good", "up": "good", "running": "good", "degraded": "fair", "deploying": "fair"}.get(state, "bad")


def _stamp(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)
