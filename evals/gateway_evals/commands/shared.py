"""What every command of `gateway eval` shares: options, exit codes, errors as lines. Imports nothing heavy.

Exit codes: 0 done, 1 a gate failed, 2 an error, 3 a command line that cannot be meant, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from gateway_evals.suite import Suite

GATE_FAILED, ERROR, USAGE, INTERRUPTED = 1, 2, 3, 130

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Everything wrong with a command line; typer exports only this one of its children."""


class UsageIsThree(TyperGroup):
    """2 means that a run failed; a mistyped option is told apart from that."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except USAGE_ERROR as error:
            error.exit_code = USAGE  # pyright: ignore[reportAttributeAccessIssue]
            raise


def permit_code(allowed: bool) -> None:
    """Let tasks of this process run the programs that models write, where a person said so."""
    if allowed:
        from gateway_evals.checks.scorers import ALLOW_CODE

        os.environ[ALLOW_CODE] = "1"


SuiteArgument = Annotated[
    str, typer.Argument(metavar="SUITE", help="A suite's YAML file, or the name of one of `gateway eval ls`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def find_suite(reference: str, as_json: bool) -> Suite:
    from gateway_evals import catalog
    from gateway_evals.errors import SuiteError
    from gateway_evals.suite_file import load_suite

    try:
        path = catalog.find(reference)
    except SuiteError as error:
        fail(error.message, as_json, USAGE)
    return load_suite(path)


@contextmanager
def errors(as_json: bool, interrupted: str = "stopped") -> Generator[None]:
    """Our errors end as clear lines and an exit code; anything else is a defect and keeps its traceback."""
    from gateway.errors import GatewayError

    try:
        yield
    except GatewayError as error:
        fail(error.message, as_json, ERROR)
    except KeyboardInterrupt:
        fail(interrupted, as_json, INTERRUPTED)


def fail(message: str, as_json: bool, code: int) -> NoReturn:
    if as_json:
        print_json({"ok": False, "errors": message.splitlines()})
    else:
        lines = console(stderr=True)
        for line in message.splitlines():
            lines.print("[bold red]error:[/] ", end="")
            lines.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def console(*, stderr: bool = False) -> Any:
    from gateway import console

    return console.err() if stderr else console.out()


def print_json(value: object) -> None:
    import json

    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
