"""Every hook has a heading with its exact signature in plugins/README.md, and is exercised here through `Plugins`."""

from __future__ import annotations

import inspect
import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from gateway import hookspecs
from gateway.adapters.sources import AdapterSourceOffer
from gateway.apps import AppContext, AppOffer
from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.errors import Forbidden, PluginError
from gateway.hookspecs import hookimpl
from gateway.ingress.request import GatewayRequest
from gateway.plugins import Plugins
from gateway.sources import SourceOffer
from gateway.tabs import PageContext, TabOffer
from gateway.types import AdapterFiles, ASGIApp, ModelCard, RequestRecord, Target

HOOKS = {name: value for name, value in vars(hookspecs).items() if hasattr(value, "gateway_spec")}
DOCS = (Path(__file__).parents[1] / "plugins" / "README.md").read_text(encoding="utf-8")


def loaded(*implementations: Callable[..., Any]) -> Plugins:
    """Plugins `p0`, `p1`, … with one of these hook implementations each."""
    modules: list[tuple[str, ModuleType]] = []
    for index, implementation in enumerate(implementations):
        module = ModuleType(f"p{index}")
        setattr(module, implementation.__name__, hookimpl(implementation))
        modules.append((module.__name__, module))
    found = Plugins(modules)
    assert found.broken == {}
    return found


async def backends() -> None:
    def factory(context: BackendContext) -> Backend:
        raise NotImplementedError

    def register_backends(register: Callable[[BackendOffer], None]) -> None:
        register(BackendOffer("mine", factory))

    found = loaded(register_backends)
    assert found.backend("mine").factory is factory
    assert found.backends.brought_by == {"mine": "p0"}


async def model_sources() -> None:
    def register_model_sources(register: Callable[[SourceOffer], None]) -> None:
        register(SourceOffer("disk", Path))

    assert loaded(register_model_sources).source("disk").locate("a/b") == Path("a/b")


async def adapter_sources() -> None:
    def fetch(reference: str, folder: Path) -> None:
        (folder / reference).write_text("")

    def register_adapter_sources(register: Callable[[AdapterSourceOffer], None]) -> None:
        register(AdapterSourceOffer("vault", fetch))

    assert loaded(register_adapter_sources).adapter_source("vault").fetch is fetch


async def policies() -> None:
    def last(targets: Sequence[Target], rng: random.Random) -> Sequence[Target]:
        return targets[::-1]

    def register_policies(register: Callable[[str, Any], None]) -> None:
        register("last", last)

    assert loaded(register_policies).policy("last")([Target("a"), Target("b")], random.Random(0))[0] == Target("b")


async def apps() -> None:
    def build(context: AppContext) -> ASGIApp:
        raise NotImplementedError

    def register_apps(register: Callable[[AppOffer], None]) -> None:
        register(AppOffer("page", build))

    assert loaded(register_apps).app("page").build is build


async def tabs() -> None:
    def build(context: PageContext) -> None:
        raise NotImplementedError

    def register_tabs(register: Callable[[TabOffer], None]) -> None:
        register(TabOffer("mine", "Mine", 90, build))

    found = loaded(register_tabs)
    assert found.tabs.offers["mine"].build is build
    with pytest.raises(PluginError, match="tab 'mine' is offered by 'p0' and by 'p1'"):
        loaded(register_tabs, register_tabs)


async def metrics() -> None:
    def register_metrics(register: Callable[[str, Callable[[], object]], None]) -> None:
        register("length", object)

    given: dict[str, object] = {}
    loaded(register_metrics).manager.hook.register_metrics(register=given.__setitem__)
    assert given == {"length": object}


async def tasks() -> None:
    def register_tasks(register: Callable[[str, Callable[[], object]], None]) -> None:
        register("sums", object)

    given: dict[str, object] = {}
    loaded(register_tasks).manager.hook.register_tasks(register=given.__setitem__)
    assert given == {"sums": object}


async def scorers() -> None:
    def register_scorers(register: Callable[[str, Callable[..., object]], None]) -> None:
        register("shape", object)

    given: dict[str, object] = {}
    loaded(register_scorers).manager.hook.register_scorers(register=given.__setitem__)
    assert given == {"shape": object}


async def commands() -> None:
    def register_commands(cli: typer.Typer) -> None:
        cli.command("greet")(lambda: None)

    cli = typer.Typer()
    loaded(register_commands).manager.hook.register_commands(cli=cli)
    assert [command.name for command in cli.registered_commands] == ["greet"]


async def guards() -> None:
    async def guard_request(request: GatewayRequest) -> None:
        request.set("user", "somebody")

    second: list[str] = []

    async def refuse(request: GatewayRequest) -> None:
        second.append(request.value("user", str))
        raise Forbidden("not you")

    refuse.__name__ = "guard_request"
    third: list[str] = []

    async def never(request: GatewayRequest) -> None:
        third.append("asked")

    never.__name__ = "guard_request"
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    request = GatewayRequest.arrived(scope, "wide", "/v1/completions")
    request.read(b'{"model": "a"}')
    with pytest.raises(Forbidden):
        await loaded(guard_request, refuse, never).guard("guard_request", request=request)
    assert second == ["somebody"], "guards are asked in the plugins' order, and see what the one before has done"
    assert third == [], "a refusal ends it"


async def started() -> None:
    seen: list[tuple[str, str]] = []

    async def backend_started(name: str, card: ModelCard) -> None:
        seen.append((name, card.backend))

    found = loaded(backend_started)
    assert found.has("backend_started")
    assert not found.has("backend_stopping")
    await found.watch("backend_started", name="a", card=ModelCard("a", "echo"))
    assert seen == [("a", "echo")]


async def stopping() -> None:
    seen: list[str] = []

    async def backend_stopping(name: str) -> None:
        seen.append(name)

    await loaded(backend_stopping).watch("backend_stopping", name="a")
    assert seen == ["a"]


async def came() -> None:
    seen: list[tuple[str, int]] = []

    async def adapter_loaded(name: str, adapter: AdapterFiles) -> None:
        seen.append((name, adapter.rank))

    await loaded(adapter_loaded).watch("adapter_loaded", name="a", adapter=AdapterFiles("s@1-0", Path(), "0", 8))
    assert seen == [("a", 8)]


async def went() -> None:
    seen: list[str] = []

    async def adapter_evicted(id: str) -> None:
        seen.append(id)

    await loaded(adapter_evicted).watch("adapter_evicted", name="a", id="s@1-0")
    assert seen == ["s@1-0"]


RECORD = RequestRecord("id", "wide", "/v1/completions", "a", "a", 200, "ok", False, 0.0, 0.1, 0.1)


async def finished() -> None:
    seen: list[str] = []

    async def request_finished(record: RequestRecord) -> None:
        seen.append(record.outcome)

    async def careless() -> None:
        # A hook may leave out what it does not need.
        seen.append("careless")
        raise ZeroDivisionError

    careless.__name__ = "request_finished"
    await loaded(careless, request_finished).watch("request_finished", record=RECORD)
    assert seen == ["careless", "ok"], "a watcher that fails hurts nobody"


EXERCISES = {
    "register_backends": backends,
    "register_model_sources": model_sources,
    "register_adapter_sources": adapter_sources,
    "register_policies": policies,
    "register_apps": apps,
    "register_tabs": tabs,
    "register_metrics": metrics,
    "register_tasks": tasks,
    "register_scorers": scorers,
    "register_commands": commands,
    "guard_request": guards,
    "backend_started": started,
    "backend_stopping": stopping,
    "adapter_loaded": came,
    "adapter_evicted": went,
    "request_finished": finished,
}


def test_every_hook_is_exercised() -> None:
    assert set(EXERCISES) == set(HOOKS)


@pytest.mark.parametrize("hook", EXERCISES)
async def test_the_hook_does_what_it_says(hook: str) -> None:
    await EXERCISES[hook]()


@pytest.mark.parametrize("hook", HOOKS)
def test_the_hook_has_a_heading_with_its_signature_and_an_example(hook: str) -> None:
    function = HOOKS[hook]
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    signature = str(inspect.signature(function)).replace("'", "")  # annotations are strings here
    heading = f"### `{kind} {hook}{signature}`\n"
    assert heading in DOCS, f"plugins/README.md lacks the heading\n{heading}"
    section = DOCS.partition(heading)[2].partition("\n### ")[0].partition("\n## ")[0]
    assert f"def {hook}(" in section, "its example"
    assert (function.__doc__ or "").strip() in " ".join(section.split()), "what hookspecs.py says of it"


@pytest.mark.parametrize("hook", HOOKS)
def test_guards_and_watchers_are_async_and_offers_are_not(hook: str) -> None:
    assert inspect.iscoroutinefunction(HOOKS[hook]) != hook.startswith("register_")
    assert not HOOKS[hook].gateway_spec["firstresult"]


def test_every_example_of_the_docs_runs() -> None:
    examples = [block.partition("```")[0] for block in DOCS.split("```python\n")[1:]]
    assert len(examples) >= len(HOOKS)
    for index, example in enumerate(examples):
        module = ModuleType(f"example{index}")
        exec(compile(example, f"plugins/README.md, example {index + 1}", "exec"), vars(module))
        found = Plugins([(module.__name__, module)])
        assert found.broken == {}
        assert any(hasattr(value, "gateway_impl") for value in vars(module).values()), example


@pytest.mark.parametrize("plugin", ["echo", "vllm", "onnx", "torch", "playground", "evals"])
def test_the_docs_name_every_option_with_its_default(plugin: str) -> None:
    from importlib import import_module

    from pydantic import BaseModel

    options = import_module("gateway_evals.server.options" if plugin == "evals" else f"gateway_{plugin}.options")
    (model,) = [
        value
        for value in vars(options).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == options.__name__
    ]
    section = DOCS.partition(f"\n### `{plugin}`")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    told = {row[0].strip("| `"): row[1].strip(" `") for row in rows}
    expected = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    assert told == {name: shown(value) for name, value in expected.items()}


def shown(value: object) -> str:
    """A default as YAML has it; none at all is a dash."""
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else '""' if value == "" else str(value)


def test_a_failing_watcher_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    async def request_finished(record: RequestRecord) -> None:
        raise ZeroDivisionError("in a plugin")

    with caplog.at_level(logging.ERROR):
        asyncio.run(loaded(request_finished).watch("request_finished", record=RECORD))
    assert "request_finished failed" in caplog.text
    assert "in a plugin" in caplog.text
