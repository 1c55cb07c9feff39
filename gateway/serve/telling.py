"""What `gateway status` says of a running gateway: `/health` for everybody, `/status` for whom the gateway lets in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway import console
from gateway.client import get_json
from gateway.serve import instance


def tell(port: int | None, api_key: str, *, as_json: bool = False) -> None:
    """Print it. Raises ConfigError where nothing runs."""
    running = instance.find(port)
    health = get_json(f"{running.url}/health", "", accept=(200, 503))
    known: dict[str, Any] = get_json(f"{running.url}/status", api_key, accept=(200, 401) if not api_key else (200,))
    told = known.get("object") == "gateway.status"
    if as_json:
        facts = {"url": running.url, "pid": running.pid, "config": running.config}
        facts |= {"status": health["status"], "models": health["models"]}
        return console.print_json(facts | ({"details": known} if told else {}))
    console.out().print(f"{running.url} is {health['status']} (process {running.pid}, {running.config})")
    if not told:
        console.table("", ["model", "state"], list(health["models"].items()))
        return console.out().print("More is shown with a key: --api-key, or GATEWAY_API_KEY.")
    console.table(
        "",
        ["model", "state", "replicas", "in flight", "requests", "failed", "tokens", "memory"],
        [_model(row) for row in known["models"]],
    )
    if known["errors"]:
        console.table(
            "Failed last",
            ["when", "status", "what", "model", "request"],
            [_failure(row) for row in known["errors"][:10]],
        )
    return None


def _model(row: Mapping[str, Any]) -> list[str]:
    totals = row["totals"]
    memory = sum(replica["memory_bytes"] or 0 for replica in row["replicas"])
    return [
        row["id"],
        "up" if row["state"] == "up" else f"[red]{row['state']}[/]",
        ", ".join(f"{count} {state}" for state, count in row["replica_states"].items()) or "none",
        str(row["in_flight"]),
        f"{totals['requests']:,}",
        f"{totals['failed']:,}",
        f"{totals['completion_tokens']:,}",
        f"{memory / 2**30:.1f} GiB" if memory else "",
    ]


def _failure(row: Mapping[str, Any]) -> list[str]:
    from rich.markup import escape

    when = time.strftime("%H:%M:%S", time.localtime(row["time"]))
    said = row.get("message") or row.get("code", "")
    # What a client sent itself (a request's id) is no markup.
    return [when, str(row["status"]), escape(said), row.get("target", ""), escape(row["request_id"])]
