"""What commands print: errors as one clear line, progress as bars, tables for people and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.backend import Report
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def out() -> Console:
    """Standard output. Made when it is needed: rich takes longer to import than `--help` may."""
    from rich.console import Console

    return Console(highlight=False)


def err() -> Console:
    """Standard error: progress and complaints, so that standard output stays clean for programs."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def fail(error: GatewayError | str, code: int = 1) -> NoReturn:
    """Print what is wrong, one line a problem, and exit."""
    message = error.message if isinstance(error, GatewayError) else error
    console = err()
    for line in message.splitlines():
        # Messages may hold brackets of their own (YAML paths), which are no markup.
        console.print("[bold red]error:[/] ", end="")
        console.print(line, markup=False, soft_wrap=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    """For programs: one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """For people."""
    from rich import box
    from rich.table import Table

    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out().print(grid)


@contextmanager
def progress() -> Generator[Progress]:
    """Bars on standard error; where that is no terminal, nothing is drawn."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}", style="dim"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=False) as bars:
        yield bars


def reporter(bars: Progress, description: str) -> Report:
    """A Report that moves one bar."""
    task = bars.add_task(description, total=1.0, note="")

    def report(what: str, share: float) -> None:
        bars.update(task, completed=min(1.0, share), note=what)

    return report
