"""`gateway adapters`: reads arguments, calls the rooms that do the work, imports nothing heavy before."""

from __future__ import annotations

import typer

adapters = typer.Typer(
    help="Fine-tuned adapters: add, verify, promote, roll back, remove, and what plugins add.", no_args_is_help=True
)
