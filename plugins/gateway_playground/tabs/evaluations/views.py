"""Runs, their progress and their figures as HTML. Whatever comes from the API is shown as text. Knows no Gradio."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gateway_playground.tabs.tables import span, table

Run = Mapping[str, Any]

OVER = frozenset({"done", "failed", "cancelled", "interrupted"})
"""States that do not change any more."""

_KINDS = {"done": "good", "running": "fair", "failed": "bad"}


def title(run: Run) -> str:
    """A run on one line, for a list to choose from."""
    models = ", ".join(str(model) for model in run.get("models") or ())
    return f"{_when(run)} · {run.get('suite')} · {models} · {run.get('state')}"


def overview(runs: Sequence[Run]) -> str:
    """All runs as a table."""
    rows = [
        (
            escape(_when(run)),
            escape(str(run.get("suite"))),
            escape(", ".join(str(model) for model in run.get("models") or ())),
            _state(run),
            _share(run),
            f"<code>{escape(str(run.get('id')))}</code>",
        )
        for run in runs
    ]
    nothing = "No suite has been run from here yet: start one above."
    return table("Runs", ("Started", "Suite", "Models", "State", "Samples", "Id"), rows, nothing)


def detail(run: Run) -> str:
    """One run: how far it is, and what it found."""
    parts = [f'<p class="facts">{_state(run)} · {escape(title(run))}</p>']
    if run.get("state") == "running":
        parts.append(_progress(run))
    for error in run.get("errors") or ():
        parts.append(f'<p class="failed" role="alert">{escape(str(error))}</p>')
    results: Mapping[str, Any] | None = run.get("results")
    if results:
        parts.append(_figures(results))
    elif run.get("state") == "interrupted":
        parts.append('<p class="quiet">The gateway went away before it was over. Start it again to go on.</p>')
    return "".join(parts)


def _progress(run: Run) -> str:
    done, total = int(run.get("done") or 0), int(run.get("total") or 0)
    eta = run.get("eta_s")
    left = f" · about {span(float(eta))} left" if eta is not None else ""
    said = f"{done:,} of {total:,} samples{left}" if total else "preparing …"
    bar = f'<progress max="{total}" value="{done}" aria-label="Progress of the run"></progress>' if total else ""
    models: Mapping[str, Mapping[str, Any]] = run.get("progress") or {}
    rows = "".join(
        f"<li>{escape(str(model))}: {int(one.get('done') or 0):,} of {int(one.get('total') or 0):,}</li>"
        for model, one in models.items()
    )
    return f'<div class="progress">{bar}<p role="status">{said}</p><ul>{rows}</ul></div>'


def _figures(results: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = []
    for model, one in results.items():
        for figure in one.get("figures") or ():
            stderr = figure.get("stderr")
            rows.append(
                (
                    escape(str(model)),
                    escape(str(figure.get("task", ""))),
                    _metric(figure),
                    f"{_number(figure.get('value'))}{f' ± {_number(stderr)}' if stderr is not None else ''}",
                )
            )
    return table("Figures", ("Model", "Task", "Metric", "Value"), rows, "This run has no figures.")


def _metric(figure: Mapping[str, Any]) -> str:
    filtered = figure.get("filter")
    return escape(str(figure.get("metric")) if filtered in (None, "none") else f"{figure.get('metric')} {filtered}")


def suite(facts: Mapping[str, Any] | None) -> str:
    """What a suite measures."""
    if not facts:
        return '<p class="quiet">Pick a suite.</p>'
    if facts.get("error"):
        return f'<p class="failed" role="alert">This suite cannot be run: {escape(str(facts["error"]))}</p>'
    tasks: Iterable[Mapping[str, Any]] = facts.get("tasks") or ()
    names = ", ".join(str(task.get("title") or task.get("task")) for task in tasks)
    minutes = f" About {facts['minutes']} min." if facts.get("minutes") else ""
    return f'<p class="quiet">{escape(str(facts.get("description") or ""))}.{minutes} Tasks: {escape(names)}.</p>'


def _state(run: Run) -> str:
    state = str(run.get("state"))
    return f'<span class="state {_KINDS.get(state, "fair")}">{escape(state)}</span>'


def _share(run: Run) -> str:
    total = run.get("total")
    failed = int(run.get("failed") or 0)
    said = f"{int(run.get('done') or 0):,} of {int(total):,}" if total else "–"
    return f"{said}, {failed:,} failed" if failed else said


def _when(run: Run) -> str:
    created = run.get("created")
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(float(created))) if created else "?"


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))
