"""`gateway serve` and `gateway apply`: prepare models, start or change what runs, wait until every model answers."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
from rich.progress import Progress

from gateway import console, plugins
from gateway.config import GatewayConfig, ModelSpec, load
from gateway.errors import ConfigError
from gateway.plugins import Plugins
from gateway.serve import instance, preflight
from gateway.serve.applications import applications
from gateway.serve.settings import QUIET, open_session

KEYS_VARIABLE = "GATEWAY_API_KEYS"

READY_WITHIN_S = 600.0
"""A large model on a slow disk takes minutes; what cannot start at all says so much earlier."""


def serve(path: Path, *, host: str | None = None, port: int | None = None) -> None:
    """Serve a config until a signal comes. Raises ConfigError; whatever happens, nothing that was started is left."""
    began = time.monotonic()
    # Taken out before Ray starts: replicas inherit the environment, and need no more than hashes.
    keys = os.environ.pop(KEYS_VARIABLE, "").split(",")
    os.environ.update(QUIET)
    config = _overridden(load(path), host, port)
    found = plugins.load()
    preflight.require(config, found)
    from gateway.ingress.auth import hash_keys

    key_hashes = hash_keys([*config.server.api_keys, *keys])
    preflight.require_host(config, key_hashes)
    preflight.require_port(config.server.host, config.server.port)
    preflight.require_memory(config.models.values())
    stop = threading.Event()
    _obey_signals(stop)
    try:
        prepare(config.models, found)
        _run(config, path, key_hashes, hash_keys(keys), began, stop)
    except _Interrupted:
        console.err().print("\nStopped before it was ready.")
        raise SystemExit(130) from None


def _run(
    config: GatewayConfig, path: Path, key_hashes: list[str], environment_hashes: list[str], began: float,
    stop: threading.Event,
) -> None:  # fmt: skip
    session = open_session(config)
    from gateway.serve import cluster

    with console.progress() as bars:
        report = console.reporter(bars, "Ray")
        report("starting", 0.2)
        ray = cluster.start(config, session)
        # Ray has put its own handler of SIGTERM, which prints a trace, in the place of ours.
        _obey_signals(stop)
        report("", 1.0)
        try:
            running = instance.Instance(
                pid=os.getpid(),
                host=config.server.host,
                port=config.server.port,
                ray_address=ray.address,
                folder=str(session.folder),
                environment=session.environment,
                key_hashes=environment_hashes,
                config=str(path.absolute()),
            )
            apps = applications(config, key_hashes)
            cluster.deploy(apps)
            _wait_for([app.name for app in apps], bars)
            _first_tokens(config, running.url)
        except BaseException:
            ray.stop()
            raise
    try:
        instance.write(running)
        _announce(config, running.url, protected=bool(key_hashes), seconds=time.monotonic() - began)
        _stay(stop, ray.folder)
    except _Interrupted:
        console.err().print("\nStopping …")
    finally:
        instance.forget(config.server.port)
        ray.stop()


def apply(path: Path, *, port: int | None = None) -> None:
    """Make a running gateway serve this config: models are added and changed, then routes, then models are removed."""
    config = load(path)
    running = instance.find(port)
    if (config.server.host, config.server.port) != (running.host, running.port):
        raise ConfigError(
            f"server: the gateway listens on {running.host}:{running.port}, the config says {config.server.host}:"
            f"{config.server.port}; that takes a restart of `gateway serve`"
        )
    found = plugins.load()
    preflight.require(config, found)
    from gateway.ingress.auth import hash_keys

    given = [key for key in os.environ.pop(KEYS_VARIABLE, "").split(",") if key.strip()]
    environment_hashes = hash_keys(given) if given else running.key_hashes
    key_hashes = list(dict.fromkeys([*hash_keys(config.server.api_keys), *environment_hashes]))
    preflight.require_host(config, key_hashes)
    os.environ.update(QUIET)
    prepare(config.models, found)
    os.environ.update(running.environment)
    from gateway.serve import cluster

    apps = applications(config, key_hashes)
    with cluster.joined(running), console.progress() as bars:
        before = cluster.running()
        # Whoever routes to a model must find it: models first, then the routes, and only then are old models removed.
        models = [app for app in apps if app.builder == "model"]
        cluster.deploy(models)
        _wait_for([app.name for app in models], bars)
        rest = [app for app in apps if app.builder != "model"]
        cluster.deploy(rest)
        _wait_for([app.name for app in rest], bars)
        gone = before - {app.name for app in apps}
        cluster.remove(sorted(gone))
        _first_tokens(config, running.url)
    running.config = str(path.absolute())
    running.key_hashes = environment_hashes
    instance.write(running)
    added = sorted({app.name for app in apps} - before)
    console.out().print(
        f"[green]✓[/] {running.url} now serves {path}"
        + (f"; added {', '.join(added)}" if added else "")
        + (f"; removed {', '.join(sorted(gone))}" if gone else ""),
        soft_wrap=True,
    )


def prepare(models: Mapping[str, ModelSpec], found: Plugins) -> None:
    """Resolve and convert what the models need, once, with a bar for each. Raises SourceError."""
    from gateway.serve.contexts import context_of

    with console.progress() as bars:
        for name, spec in models.items():
            if spec.source is None:
                continue
            report = console.reporter(bars, name)
            context = context_of(name, spec, found, report)
            offer = found.backend(spec.backend)
            if offer.prepare is not None:
                offer.prepare(context, report)
            report("prepared", 1.0)


def _overridden(config: GatewayConfig, host: str | None, port: int | None) -> GatewayConfig:
    changes = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    return config.model_copy(update={"server": config.server.model_copy(update=changes)})


def _wait_for(names: list[str], bars: Progress) -> None:
    from gateway.serve import cluster

    reports = {name: console.reporter(bars, name) for name in names}

    def show(states: Mapping[str, str]) -> None:
        for name, state in states.items():
            reports[name](
                "" if state == "RUNNING" else state.lower().replace("_", " "), 1.0 if state == "RUNNING" else 0.3
            )

    cluster.wait(names, within_s=READY_WITHIN_S, progress=show)


def _first_tokens(config: GatewayConfig, url: str) -> None:
    """Until the doors are open and every model has answered one token. Raises ConfigError with what it said instead."""
    from gateway.serve.first_token import first_tokens

    deadline = time.monotonic() + READY_WITHIN_S
    first_tokens(config.models)
    # A connection for each question: HAProxy's process of before a change keeps those it has, and new ones are what
    # people will open. All in one row, since an address that has answered is forgotten for a moment by the next change.
    addresses = [f"{url}/health", *(f"{url}/m/{name}/health" for name in config.models)]
    while True:
        answers = {address: _get(address) for address in addresses}
        if all(answer == 200 for answer in answers.values()):
            return
        if time.monotonic() > deadline:
            said = ", ".join(f"{address}: {answer}" for address, answer in answers.items() if answer != 200)
            raise ConfigError(f"not every address answers: {said}")
        time.sleep(0.1)


def _get(address: str) -> int | str:
    try:
        return httpx.get(address, trust_env=False, timeout=10).status_code
    except httpx.TransportError as error:
        return str(error)


def _announce(config: GatewayConfig, url: str, *, protected: bool, seconds: float) -> None:
    first = next(iter(config.models))
    question = {"role": "user", "content": "What is the capital of France?"}
    body = json.dumps({"model": first, "temperature": 0, "messages": [question]})
    key = f' -H "Authorization: Bearer ${KEYS_VARIABLE}"' if protected else ""
    curl = f"curl -s {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"
    print_ = console.out().print
    print_(f"\n[green]✓[/] Ready after {seconds:.0f} s. Ctrl-C stops it.\n")
    print_(f"  Endpoint     {url}/v1")
    for name in config.apps:
        print_(f"  {name.capitalize():<12} {url}{config.prefix_of(name)}")
    print_(f"  Models       {', '.join([*config.models, *config.routes])}\n")
    print_(curl, soft_wrap=True, markup=False)
    print_()


def _stay(stop: threading.Event, folder: Path) -> None:
    while not stop.wait(1.0):
        if not folder.exists():
            raise ConfigError(f"{folder} was removed while the gateway ran")


class _Interrupted(BaseException):
    """A signal asked us to stop; raised in the main thread wherever it is."""


def _obey_signals(stop: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: _interrupt(stop))


def _interrupt(stop: threading.Event) -> None:
    if stop.is_set():
        # A second Ctrl-C must not interrupt the clean-up: it is bounded in time.
        return
    stop.set()
    raise _Interrupted
