"""Finding plugins: broken ones are told of and are fatal only where they are needed; names are offered once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway import commands, plugins
from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.errors import PluginError
from gateway.hookspecs import hookimpl
from gateway.plugins import Plugins


def make_nothing(context: BackendContext) -> Backend:
    raise NotImplementedError


def plugin(name: str, **functions: Callable[..., Any]) -> tuple[str, ModuleType]:
    """A module with these hook implementations."""
    module = ModuleType(name)
    for function, implementation in functions.items():
        setattr(module, function, hookimpl(implementation))
    return name, module


def offering(name: str) -> Callable[..., None]:
    return lambda register: register(BackendOffer(name, make_nothing))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], EntryPoint]:
    """Write a module and give its entry point: `installed("mine", "source text")`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, text: str) -> EntryPoint:
        module = f"{name}_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{module}.py").write_text(text)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return EntryPoint(name, module, plugins.ENTRY_POINT_GROUP)

    return write


GOOD = """
from gateway.backend import BackendOffer
from gateway.hookspecs import hookimpl

@hookimpl
def register_backends(register):
    register(BackendOffer("good", lambda context: None))
"""


def test_ours_are_found_by_entry_point() -> None:
    found = plugins.load()
    assert found.broken == {}
    assert {"echo", "vllm", "onnx", "torch"} <= set(found.backends.offers)
    assert {"path", "package", "hf"} <= set(found.sources.offers)
    assert {"first", "weighted"} <= set(found.policies.offers)
    assert "playground" in found.apps.offers


def test_two_of_one_name_are_told_apart_by_who_brings_them() -> None:
    with pytest.raises(PluginError, match="backend 'same' is offered by 'one' and by 'two': uninstall one of them"):
        Plugins([plugin("one", register_backends=offering("same")), plugin("two", register_backends=offering("same"))])


def test_an_unknown_name_lists_what_there_is() -> None:
    found = Plugins([plugin("one", register_backends=offering("b")), plugin("two", register_backends=offering("a"))])
    for name, ask, kind, there in (
        ("c", found.backend, "backend", "a, b"),
        ("s3", found.source, "model source", "none"),
        ("best", found.policy, "policy", "none"),
        ("page", found.app, "app", "none"),
    ):
        with pytest.raises(PluginError, match=f"no {kind} '{name}'; there are: {there}"):
            ask(name)


def test_a_broken_plugin_is_fatal_only_where_it_is_needed(installed: Callable[[str, str], EntryPoint]) -> None:
    found = plugins.load([installed("bad", "import no_such_module_anywhere\n"), installed("fine", GOOD)])
    assert found.broken == {"bad": "ModuleNotFoundError: No module named 'no_such_module_anywhere'"}
    assert found.backend("good").name == "good"
    with pytest.raises(
        PluginError, match=r"no backend 'bad'; there are: good; could not be loaded: bad \(see `gateway"
    ):
        found.backend("bad")


def test_one_that_fails_while_it_offers_is_broken() -> None:
    def fails(register: Callable[[BackendOffer], None]) -> None:
        raise ZeroDivisionError("oh")

    found = Plugins([plugin("bad", register_backends=fails), plugin("fine", register_backends=offering("good"))])
    assert found.broken == {"bad": "ZeroDivisionError: oh"}
    assert list(found.backends.offers) == ["good"]
    assert "bad" not in dict(found.manager.list_name_plugin())


def test_one_that_is_found_twice_is_one(installed: Callable[[str, str], EntryPoint]) -> None:
    point = installed("fine", GOOD)
    assert list(plugins.load([point, point]).backends.offers) == ["good"]


def test_a_misspelt_hook_is_caught() -> None:
    found = Plugins([plugin("typo", register_backend=offering("a")), plugin("fine", register_backends=offering("b"))])
    assert list(found.broken) == ["typo"]
    assert "register_backend" in found.broken["typo"]
    assert list(found.backends.offers) == ["b"]
    assert "typo" not in dict(found.manager.list_name_plugin())


def test_a_hook_that_takes_what_it_is_not_given_is_caught() -> None:
    def mistaken(give: Callable[[BackendOffer], None]) -> None:
        give(BackendOffer("a", make_nothing))

    found = Plugins([plugin("wrong", register_backends=mistaken)])
    assert "give" in found.broken["wrong"]
    assert found.backends.offers == {}
    assert "wrong" not in dict(found.manager.list_name_plugin())
    assert not found.has("register_backends")


def test_commands_come_from_marked_functions_alone(
    installed: Callable[[str, str], EntryPoint], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    marked = "from gateway.hookspecs import hookimpl\n\n@hookimpl\n"
    function = "def register_commands(cli):\n    cli.command('NAME')(lambda: print('hello'))\n"
    points = [
        installed("real", marked + function.replace("NAME", "greet")),
        installed("plain", function.replace("NAME", "other")),
        installed("broken", "raise RuntimeError('not today')\n"),
        installed("clumsy", marked + "def register_commands(cli):\n    raise ValueError('oh')\n"),
    ]
    monkeypatch.setattr(commands, "entry_points", lambda group: points)
    cli = typer.Typer()
    cli.command("first")(lambda: None)
    with caplog.at_level("INFO"):
        commands.add_plugin_commands(cli)
    assert {command.name for command in cli.registered_commands} == {"first", "greet"}
    assert CliRunner().invoke(cli, ["greet"]).output == "hello\n"
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "plugin broken brings no commands: RuntimeError: not today"),
        ("WARNING", "plugin clumsy could not add its commands: ValueError: oh"),
    ]
