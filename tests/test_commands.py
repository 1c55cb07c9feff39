"""Groups of commands that plugins add to."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from gateway.commands import group


def test_a_plugin_finds_a_group_by_name_and_adds_to_it() -> None:
    cli = typer.Typer()
    there = typer.Typer(help="What is there.")
    cli.add_typer(there, name="things")
    assert group(cli, "things") is there
    group(cli, "things").command("one")(lambda: typer.echo("one"))
    group(cli, "things").command("two")(lambda: typer.echo("two"))
    assert CliRunner().invoke(cli, ["things", "two"]).output == "two\n"


def test_a_group_that_is_not_there_is_made_once() -> None:
    cli = typer.Typer()
    assert group(cli, "others") is group(cli, "others")
    group(cli, "others").command("greet")(lambda: typer.echo("hello"))
    group(cli, "others").command("part")(lambda: typer.echo("bye"))
    assert CliRunner().invoke(cli, ["others", "greet"]).output == "hello\n"


def test_the_command_line_has_a_group_for_adapters() -> None:
    from gateway.adapter_commands import adapters
    from gateway.cli import app

    assert group(app, "adapters") is adapters
