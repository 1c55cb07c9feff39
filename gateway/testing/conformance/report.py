"""How results are shown: a table for people, Markdown for pages, JSON for programs. Knows no check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.testing.conformance.check import Outcome, Result

Results = Mapping[str, Sequence[Result]]
_SIGN: dict[Outcome, str] = {"pass": "✓", "refused": "refused", "fail": "✗", "n/a": "–"}
_COLOUR: dict[Outcome, str] = {"pass": "green", "refused": "yellow", "fail": "bold red", "n/a": "dim"}


def failed(results: Results) -> bool:
    return any(one.outcome == "fail" for rows in results.values() for one in rows)


def as_json(results: Results) -> dict[str, Any]:
    """For programs."""
    return {
        "ok": not failed(results),
        "models": {
            model: [
                {"group": one.group, "feature": one.name, "outcome": one.outcome, "reason": one.reason} for one in rows
            ]
            for model, rows in results.items()
        },
    }


def markdown(results: Results) -> str:
    """A table of features against models, for a page."""
    lines = [f"| feature | {' | '.join(results)} |", f"|---|{'---|' * len(results)}"]
    for name, row in _by_feature(results):
        lines.append(f"| {name} | {' | '.join(_SIGN[one.outcome] for one in row)} |")
    return "\n".join(lines) + "\n"


def show(results: Results) -> None:
    """The table on standard output, and below it why something was refused or failed."""
    from rich.markup import escape

    from gateway import console

    rows: list[list[str]] = []
    group = ""
    for name, row in _by_feature(results):
        first, group = row[0].group != group, row[0].group
        signs = [f"[{_COLOUR[one.outcome]}]{_SIGN[one.outcome]}[/]" for one in row]
        rows.append([f"[dim]{group}[/]" if first else "", escape(name), *signs])
    console.table("", ["", "feature", *(escape(model) for model in results)], rows)
    out = console.out()
    for outcome in ("refused", "fail"):
        for model, found in results.items():
            for one in found:
                if one.outcome == outcome:
                    out.print(f"[{_COLOUR[outcome]}]{_SIGN[outcome]}[/] {escape(model)} · {escape(one.name)}: ", end="")
                    out.print(one.reason, markup=False, soft_wrap=True)
    counts = {kind: sum(one.outcome == kind for found in results.values() for one in found) for kind in _SIGN}
    out.print(", ".join(f"{count} {kind}" for kind, count in counts.items()))


def _by_feature(results: Results) -> list[tuple[str, list[Result]]]:
    columns = list(results.values())
    return [(row[0].name, list(row)) for row in zip(*columns, strict=True)] if columns else []
