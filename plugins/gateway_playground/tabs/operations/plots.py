"""A small line plot as SVG that follows the page's theme and says in words what it shows. Knows nothing of gateways."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 300, 72


def line(title: str, values: Sequence[float | None], shown: Callable[[float], str], *, points: int) -> str:
    """HTML of one plot: `values` from the oldest to now, at most `points` of them; None is a gap."""
    known = [value for value in values if value is not None]
    now = shown(known[-1]) if known else "–"
    highest = max(known, default=0.0)
    said = f"{title}: now {now}, highest {shown(highest)} in view" if known else f"{title}: nothing yet"
    caption = f"<figcaption>{html.escape(title)}<b>{html.escape(now)}</b></figcaption>"
    return (
        f'<figure class="plot">{caption}'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{html.escape(said)}">'
        f'<line x1="0" y1="{_HEIGHT - 1}" x2="{_WIDTH}" y2="{_HEIGHT - 1}" class="axis"/>'
        f"{_lines(values, highest, points)}</svg>"
        f'<span class="highest" aria-hidden="true">{html.escape(shown(highest)) if highest else ""}</span></figure>'
    )


def _lines(values: Sequence[float | None], highest: float, points: int) -> str:
    step = _WIDTH / max(1, points - 1)
    start = _WIDTH - step * (len(values) - 1)
    drawn: list[str] = []
    run: list[str] = []
    for position, value in enumerate([*values, None]):
        if value is not None:
            x, y = start + step * position, (_HEIGHT - 2) - (_HEIGHT - 8) * (value / highest if highest else 0)
            run.append(f"{x:.1f},{y:.1f}")
        elif run:
            # One value alone is a dot: a line of no length with round ends.
            ends = run if len(run) > 1 else run * 2
            drawn.append(f'<polyline points="{" ".join(ends)}"/>')
            run = []
    return "".join(drawn)
