"""`gateway adapters`: reads arguments, calls the rooms that do the work, imports nothing heavy before.

Works on the registry itself, so also while no gateway runs; one that runs sees every change within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from gateway.adapters.registry import Registry
    from gateway.adapters.verify import Base
    from gateway.adapters.version import AdapterVersion
    from gateway.config import GatewayConfig

T = TypeVar("T")

adapters = typer.Typer(
    help="Fine-tuned adapters: add, verify, promote, roll back, remove, and what plugins add.", no_args_is_help=True
)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The gateway's config; default: the one for this machine.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Name = Annotated[str, typer.Argument(help="NAME, BASE:NAME, NAME@VERSION or NAME@ALIAS.")]
Alias = Annotated[str, typer.Option("--alias", help="The name that stands for a version; a bare name follows `prod`.")]


@adapters.command()
def add(
    source: Annotated[
        str, typer.Argument(help="A folder, hf:ORG/NAME, package:DISTRIBUTION/FOLDER, s3://…, or a plugin's scheme.")
    ],
    base: Annotated[str, typer.Option("--base", help="The model of the config that it was made for.")],
    name: Annotated[str, typer.Option("--name", help="What clients call it, after `BASE:`.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Bring an adapter, hold it against its base, and register it as the newest version of its name."""
    from gateway import console, plugins
    from gateway.adapters import intake
    from gateway.cache import cache_root

    parsed = _config(config)
    with console.progress() as bars:
        report = console.reporter(bars, f"{base}:{name}")
        found = _base(parsed, base, report)
        report("bringing and verifying", 0.5)
        find = plugins.load().adapter_source
        version = _with(
            parsed,
            lambda registry: intake.add(registry, source, name=name, base=found, find=find, cache=cache_root()),
        )
        report("registered", 1.0)
    if as_json:
        return console.print_json(_told(version))
    console.out().print(
        f"[green]✓[/] {base}:{version.label} is registered (rank {version.rank}, {version.digest[:12]})"
    )
    if parsed.models[base].adapters is None:
        console.out().print(f"{base} takes no adapters yet: `adapters: {{}}` under models.{base} turns them on")
    return None


@adapters.command("list")
def list_(config: Config = None, as_json: AsJson = False) -> None:
    """List every version with its aliases, state and verdict."""
    from gateway import console

    catalog = _with(_config(config), lambda registry: registry.catalog())
    if as_json:
        return console.print_json(
            [{**_told(version), "aliases": catalog.aliases_of(version)} for version in catalog.versions]
        )
    return console.table(
        "",
        ["adapter", "aliases", "rank", "state", "verdict", "digest", "source"],
        [
            [
                f"{version.base}:{version.label}",
                ", ".join(catalog.aliases_of(version)),
                str(version.rank),
                _state(version),
                str(version.verdict.get("verdict", "")),
                version.digest[:12],
                version.source,
            ]
            for version in catalog.versions
        ],
    )


@adapters.command()
def verify(name: Name, config: Config = None, as_json: AsJson = False) -> None:
    """Hold a registered adapter against its base again, and let models that refused it try again."""
    from gateway import console, plugins
    from gateway.adapters.intake import files_of
    from gateway.adapters.version import read_reference
    from gateway.cache import cache_root
    from gateway.errors import AdapterError

    parsed = _config(config)

    async def work(registry: Registry) -> tuple[AdapterVersion, str]:
        version = await registry.find(read_reference(name))
        base = await asyncio.to_thread(_base, parsed, version.base)
        problem = ""
        try:
            if version.base_digest != base.digest:
                raise AdapterError(
                    f"was made for weights {version.base_digest[:12]}, {base.name} has {base.digest[:12]}"
                )
            await asyncio.to_thread(files_of, version, base, plugins.load().adapter_source, cache_root())
        except AdapterError as error:
            problem = error.message
        await registry.set_state(version, "failed" if problem else "verified", problem)
        await registry.clear_places(version)
        return version, problem

    version, problem = _with(parsed, work)
    if as_json:
        console.print_json({"adapter": f"{version.base}:{version.label}", "ok": not problem, "problem": problem})
    elif problem:
        console.fail(f"{version.base}:{version.label} {problem}")
    else:
        console.out().print(f"[green]✓[/] {version.base}:{version.label} fits")
    if problem:
        raise typer.Exit(1)


@adapters.command()
def promote(
    name: Annotated[str, typer.Argument(help="NAME@VERSION, or BASE:NAME@VERSION.")],
    alias: Alias = "prod",
    force: Annotated[bool, typer.Option("--force", help="Also one that did worse than its base.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias stand for a version. One that an evaluation found worse than its base is refused."""
    from gateway import console
    from gateway.adapters.version import read_reference
    from gateway.errors import AdapterError

    reference = read_reference(name)
    if reference.version is None:
        raise AdapterError(f"which version of {name}? Say {reference.name}@3, for example; `gateway adapters list`")

    async def work(registry: Registry) -> AdapterVersion:
        version = await registry.find(reference)
        await registry.promote(version, alias, force=force)
        return version

    version = _with(_config(config), work)
    if as_json:
        return console.print_json({"alias": alias, **_told(version)})
    return console.out().print(f"[green]✓[/] {version.base}:{version.name}@{alias} is version {version.version}")


@adapters.command()
def rollback(
    name: Annotated[str, typer.Argument(help="NAME, or BASE:NAME.")],
    alias: Alias = "prod",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let an alias stand for the version that it stood for before."""
    from gateway import console
    from gateway.adapters.version import read_reference

    async def work(registry: Registry) -> AdapterVersion:
        version = await registry.find(read_reference(name))
        return await registry.rollback(version.base, version.name, alias)

    version = _with(_config(config), work)
    if as_json:
        return console.print_json({"alias": alias, **_told(version)})
    return console.out().print(f"[green]✓[/] {version.base}:{version.name}@{alias} is version {version.version} again")


@adapters.command()
def remove(
    name: Annotated[str, typer.Argument(help="NAME for all its versions, or NAME@VERSION.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Take an adapter away: models let it go once its requests have ended."""
    from gateway import console
    from gateway.adapters.version import read_reference
    from gateway.errors import AdapterError

    reference = read_reference(name)
    if reference.alias:
        raise AdapterError(f"{name}: an alias cannot be removed; name a version, or promote another one")

    async def work(registry: Registry) -> list[AdapterVersion]:
        version = await registry.find(reference)
        return await registry.remove(version.base, version.name, reference.version)

    gone = _with(_config(config), work)
    if as_json:
        return console.print_json([_told(version) for version in gone])
    return console.out().print(f"[green]✓[/] removed {', '.join(f'{v.base}:{v.label}' for v in gone)}")


def _config(path: Path | None) -> GatewayConfig:
    from gateway.cli import default_config
    from gateway.config import load

    return load(path or default_config())


def _with(config: GatewayConfig, work: Callable[[Registry], Coroutine[Any, Any, T]]) -> T:
    """Do something with the registry of a config's store."""
    from gateway.adapters.registry import Registry
    from gateway.state import default_url
    from gateway.store import Store

    async def run() -> T:
        store = Store(config.server.store or default_url())
        try:
            return await work(Registry(store))
        finally:
            await store.close()

    return asyncio.run(run())


def _base(config: GatewayConfig, name: str, report: Callable[[str, float], None] | None = None) -> Base:
    """A model of the config as adapters are held against it. Blocks. Raises AdapterError where there is none."""
    from gateway import plugins
    from gateway.adapters.verify import Base
    from gateway.backend import silent
    from gateway.errors import AdapterError
    from gateway.serve.contexts import context_of

    spec = config.models.get(name)
    if spec is None:
        raise AdapterError(f"the config has no model {name!r}; there are: {', '.join(config.models)}")
    context = context_of(name, spec, plugins.load(), report or silent)
    room = spec.adapters.max_rank if spec.adapters is not None else None
    return Base(name, context.digest, context.model_path, room)


def _told(version: AdapterVersion) -> dict[str, Any]:
    import msgspec

    return {"id": f"{version.base}:{version.label}", **msgspec.to_builtins(version)}


def _state(version: AdapterVersion) -> str:
    from rich.markup import escape

    if version.state == "failed":
        return f"[red]failed[/]: {escape(version.reason)}"
    told = [
        f"{place.model} ready" if place.state == "ready" else f"{place.model} [red]failed[/]: {escape(place.reason)}"
        for place in version.places
    ]
    return "\n".join([version.state, *told])
