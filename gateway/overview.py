"""`gateway --help`: the commands at a glance, drawn with the quick half of rich. Knows nothing of what commands do.

Typer's own help imports a Markdown parser and a syntax highlighter, which takes longer than all the rest together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup


class Overview(TyperGroup):
    """The top of the command line. Every command below it keeps Typer's own help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, what it is, options and commands to standard output."""
        from rich.console import Console

        console = Console(highlight=False)
        if usage := self.get_usage(ctx):
            console.print(f" {usage}", style="bold", markup=False)
        console.print(f"\n {self.help}\n", markup=False)
        records = (parameter.get_help_record(ctx) for parameter in self.get_params(ctx))
        _panel(console, "Options", [record for record in records if record is not None])
        commands = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        _panel(
            console,
            "Commands",
            [(name, command.get_short_help_str(100)) for name, command in commands if command and not command.hidden],
        )


def _panel(console: Any, title: str, rows: Iterable[tuple[str, str]]) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="bold cyan", no_wrap=True)
    grid.add_column()
    for name, text in rows:
        grid.add_row(Text(name), Text(text))
    console.print(Panel(grid, title=title, title_align="left", border_style="dim"))
