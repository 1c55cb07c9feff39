"""The `gateway` command: reads arguments, calls the rooms that do the work, imports nothing heavy before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway import __version__
from gateway.adapter_commands import adapters
from gateway.overview import Overview

DEFAULT_CONFIG = Path("deployments/local.yaml")
"""Used where `gateway serve` is given none; outside a checkout, the copy that ships in the package."""

app = typer.Typer(
    name="gateway",
    cls=Overview,
    help="One gateway in front of many models: vLLM, ONNX Runtime and PyTorch behind one OpenAI-compatible endpoint.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
new = typer.Typer(help="Write the beginnings of something that works.", no_args_is_help=True)
app.add_typer(new, name="new")
app.add_typer(adapters, name="adapters")

Config = Annotated[
    Path | None, typer.Argument(help="A config file; default: the one for this machine.", show_default=False)
]
RequiredConfig = Annotated[Path, typer.Argument(help="A config file.")]
Port = Annotated[int | None, typer.Option(help="Which gateway, where several run on this machine.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Url = Annotated[str, typer.Option("--url", envvar="GATEWAY_URL", help="The gateway's address.")]
Key = Annotated[
    str, typer.Option("--api-key", envvar="GATEWAY_API_KEY", help="A key, where keys are on.", show_default=False)
]

LOCAL_URL = "http://127.0.0.1:8000"


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """One gateway in front of many models."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve(
    config: Config = None,
    host: Annotated[str | None, typer.Option(help="Instead of the config's server.host.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Instead of the config's server.port.", show_default=False)] = None,
) -> None:
    """Serve every model of a config on this machine until Ctrl-C."""
    from gateway.serve import launch

    launch.serve(config or default_config(), host=host, port=port)


@app.command()
def apply(config: RequiredConfig, port: Port = None) -> None:
    """Change a running gateway: add, change and remove models and routes without dropping a request."""
    from gateway.serve import launch

    launch.apply(config, port=port)


@app.command()
def check(config: RequiredConfig, as_json: AsJson = False) -> None:
    """Find every error of a config at once, each with its YAML path. Starts nothing."""
    from gateway import config as configs
    from gateway import console, plugins
    from gateway.errors import ConfigError
    from gateway.serve import preflight

    try:
        # Also the sound parts of a config with errors are asked about, so that one look finds all there is.
        parsed, problems = configs.examine(configs.read(config))
        problems += preflight.check(parsed, plugins.load())
    except ConfigError as error:
        problems = error.message.splitlines()
    else:
        problems = [f"{config}: {problem}" for problem in problems]
    if as_json:
        console.print_json({"ok": not problems, "errors": problems})
    elif not problems:
        console.out().print(f"[green]✓[/] {config} can be served")
    if problems:
        if not as_json:
            console.fail("\n".join(problems))
        raise typer.Exit(1)


@app.command()
def render(
    config: RequiredConfig,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
) -> None:
    """Write a Ray Serve config file for `serve deploy` and KubeRay. It holds hashes of keys, never a key."""
    from gateway.serve import rendering

    text = rendering.render(config)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8")


@app.command()
def models(url: Url = LOCAL_URL, api_key: Key = "", as_json: AsJson = False) -> None:
    """List what a running gateway serves."""
    from gateway import console
    from gateway.client import get_json

    rows = get_json(f"{url}/v1/models", api_key)["data"]
    if as_json:
        return console.print_json(rows)
    return console.table(
        "",
        ["model", "backend", "dtype", "context", "up", "address"],
        [
            [
                row["id"],
                row["gateway"].get("backend") or f"route to {', '.join(row['gateway'].get('targets', []))}",
                row["gateway"].get("dtype", ""),
                str(row["max_model_len"] or ""),
                "yes" if row["gateway"]["up"] else "[red]no[/]",
                row["gateway"]["url"],
            ]
            for row in rows
        ],
    )


@app.command()
def plugins(as_json: AsJson = False) -> None:
    """List what is installed, what each plugin offers, and why one cannot be loaded."""
    from gateway import console
    from gateway import plugins as registry

    found = registry.load()
    rows = [
        (shelf.kind, name, shelf.brought_by[name])
        for shelf in (found.backends, found.sources, found.adapter_sources, found.policies, found.apps, found.tabs)
        for name in sorted(shelf.offers)
    ]
    if as_json:
        return console.print_json(
            {
                "offers": [{"kind": kind, "name": name, "plugin": plugin} for kind, name, plugin in rows],
                "broken": found.broken,
            }
        )
    console.table("", ["kind", "name", "plugin"], rows)
    for name, reason in found.broken.items():
        console.err().print(f"[red]{name} could not be loaded:[/] ", end="")
        console.err().print(reason, markup=False)
    return None


@app.command()
def status(port: Port = None, api_key: Key = "", as_json: AsJson = False) -> None:
    """Show the gateway that runs on this machine, how its models are, and what failed last."""
    from gateway.serve.telling import tell

    tell(port, api_key, as_json=as_json)


@app.command()
def conformance(
    url: Annotated[str, typer.Argument(help="The server's OpenAI root.", envvar="GATEWAY_URL")] = f"{LOCAL_URL}/v1",
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="A served model; again for more; default: all.")
    ] = None,
    api_key: Key = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="A group of features, or one; again for more.")
    ] = None,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="Features that are tried at the same time on each model.")
    ] = 1,
    as_json: AsJson = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
) -> None:
    """Check what a running server promises, feature by feature: pass, refused or fail."""
    from gateway.testing.conformance.command import conformance as check_server

    if not check_server(url, model or [], api_key, only or [], at_once, as_json=as_json, markdown=markdown):
        raise typer.Exit(1)


@app.command()
def parity(
    models: Annotated[str, typer.Option("--models", help="Served models, with commas; the first is the measure.")],
    url: Url = LOCAL_URL,
    api_key: Key = "",
    prompts: Annotated[
        Path | None, typer.Option(help="A file of prompts, one JSON object a line; default: ours.", show_default=False)
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Greedy tokens for each prompt.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Compare what engines make of one model: where greedy texts part, and how far log-probabilities lie apart."""
    from gateway.parity.command import parity as compare

    compare(url, models, api_key, prompts, max_tokens, as_json=as_json)


@new.command("plugin")
def new_plugin(
    name: Annotated[
        str, typer.Argument(help="What the backend is called in a config: lower case, `-` or `_` between words.")
    ],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where to write it; default: ./gateway-NAME.")] = None,
) -> None:
    """Write a backend plugin that works: a package, its entry point, and a test that uses the shipped contract."""
    from gateway import console, scaffold

    written = scaffold.write_plugin(name, folder)
    console.out().print(
        f"[green]✓[/] wrote {written}\n\n  pip install -e '{written}[test]'\n  pytest {written}\n", soft_wrap=True
    )


def default_config() -> Path:
    """The config for this machine: the checkout's, or the one in the installed package."""
    if DEFAULT_CONFIG.exists():
        return DEFAULT_CONFIG
    from importlib.resources import files

    return Path(str(files("gateway") / "deployments" / "local.yaml"))


def main() -> Any:
    """Entry point: plugins add their commands, and errors of ours end as one clear line."""
    from gateway.commands import add_plugin_commands
    from gateway.errors import GatewayError

    add_plugin_commands(app)
    try:
        return app()
    except GatewayError as error:
        from gateway import console

        console.fail(error)
