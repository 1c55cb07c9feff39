"""Tables and lengths of time as HTML, the same on every tab. Knows no Gradio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(title: str, head: Iterable[str], rows: Iterable[Sequence[str]], nothing: str) -> str:
    """Cells are HTML already. A table that is too wide scrolls by itself, by keyboard too."""
    cells = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not cells:
        return f"<h3>{escape(title)}</h3><p class='quiet'>{escape(nothing)}</p>"
    columns = "".join(f'<th scope="col">{escape(column)}</th>' for column in head)
    return (
        f'<h3>{escape(title)}</h3><div class="wide" role="region" aria-label="{escape(title)}" tabindex="0">'
        f"<table><thead><tr>{columns}</tr></thead><tbody>{cells}</tbody></table></div>"
    )


def span(seconds: float) -> str:
    """A length of time, in its largest sensible unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
