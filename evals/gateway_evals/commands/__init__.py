"""`gateway eval`: one module a command, each a function that is added below. Imports nothing heavy before one runs."""

from __future__ import annotations

import typer

from gateway_evals.commands.advise import advise
from gateway_evals.commands.arena import arena
from gateway_evals.commands.compare import compare
from gateway_evals.commands.fetch import fetch
from gateway_evals.commands.gate import gate
from gateway_evals.commands.ls import list_suites
from gateway_evals.commands.report import report
from gateway_evals.commands.resume import resume
from gateway_evals.commands.run import run
from gateway_evals.commands.shared import UsageIsThree
from gateway_evals.commands.validate import validate

cli = typer.Typer(
    cls=UsageIsThree,
    help="Measure what a gateway serves: run suites of tasks, compare and judge what came of them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
cli.command("run")(run)
cli.command("ls")(list_suites)
cli.command("validate")(validate)
cli.command("compare")(compare)
cli.command("resume")(resume)
cli.command("gate")(gate)
cli.command("fetch")(fetch)
cli.command("arena")(arena)
cli.command("advise")(advise)
cli.command("report")(report)
