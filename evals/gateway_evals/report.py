"""What people see of a run: a progress bar while it lasts, a table with standard errors when it is over."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from gateway_evals.results import ModelResult


@contextmanager
def bars(console: Console) -> Generator[Callable[[str, int], Callable[[bool], None]]]:
    """Gives a function that adds a bar for one model and returns what to call after each sample."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("[red]{task.fields[failed]}[/]"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def add(description: str, total: int) -> Callable[[bool], None]:
            task = progress.add_task(escape(description), total=total, failed="")
            failed = 0

            def advance(answered: bool) -> None:
                nonlocal failed
                failed += not answered
                progress.update(task, advance=1, failed=f"{failed} failed" if failed else "")

            return advance

        yield add


def result_table(title: str, results: Sequence[ModelResult]) -> Table:
    """A row for each task, metric and model: models stand below each other, so that they can be compared by eye."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for name in ("task", "metric", "model"):
        table.add_column(name, overflow="fold")
    for name in ("value", "± stderr", "n", "no answer", "failed"):
        table.add_column(name, justify="right")
    rows: dict[tuple[str, str, str], list[tuple[str, ...]]] = {}
    for result in results:
        for task in result.tasks:
            spec = task.run.task.spec
            for figure in task.figures:
                name = figure.metric if figure.filter == "none" else f"{figure.metric} ({figure.filter})"
                arrow = "↑" if figure.higher_is_better else "↓"
                missing = task.unanswered.get(figure.filter, 0)
                rows.setdefault((spec.task, spec.shown, f"{name} {arrow}"), []).append(
                    (
                        result.model.name,
                        "-" if figure.value is None else f"{figure.value:.4f}",
                        "-" if figure.stderr is None else f"{figure.stderr:.4f}",
                        str(task.answered),
                        str(missing) if missing else "",
                        f"[red]{task.failed}[/]" if task.failed else "",
                    )
                )
    shown_task = ""
    for (key, alias, metric), models in rows.items():
        if shown_task and shown_task != key:
            table.add_section()
        for index, (model, *cells) in enumerate(models):
            first = index == 0
            table.add_row(
                escape(alias) if first and shown_task != key else "",
                escape(metric) if first else "",
                escape(model),
                *cells,
            )
        shown_task = key
    return table


def print_report(console: Console, title: str, results: Sequence[ModelResult]) -> None:
    """The table, what failed, how long it took and where the files are."""
    console.print(result_table(title, results))
    for result in results:
        for task in result.tasks:
            failures = task.run.failures
            if failures:
                first = min(failures)
                console.print(
                    f"[red]{task.failed} of {task.run.asked}[/] samples of {escape(task.run.task.name)} failed on "
                    f"{escape(result.model.name)} and count in no figure; row {first}: {escape(failures[first])}",
                    soft_wrap=True,
                )
        tokens = sum(task.run.completion_tokens for task in result.tasks)
        count = sum(task.answered for task in result.tasks)
        kept = sum(task.run.cached for task in result.tasks)
        cached = f" ({kept} from the cache)" if kept else ""
        console.print(
            f"{escape(result.model.name)}: {count} samples, {tokens} tokens in {result.seconds:.1f} s{cached} → "
            f"{escape(str(result.files[0]))}",
            soft_wrap=True,
        )
