"""What is known before anything starts: each problem has its YAML path and says what to do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from gateway import plugins
from gateway.backend import Backend, BackendContext, BackendOffer
from gateway.config import ModelSpec, ResourceSpec, parse
from gateway.errors import ConfigError
from gateway.hookspecs import hookimpl
from gateway.plugins import Plugins
from gateway.serve import preflight


def check(data: dict[str, Any], found: Plugins | None = None) -> list[str]:
    return preflight.check(parse({"models": {"a": {"backend": "echo"}}, **data}), found or plugins.load())


def offering(offer: BackendOffer) -> Plugins:
    module = ModuleType("mine")
    module.register_backends = hookimpl(lambda register: register(offer))  # type: ignore[attr-defined]
    return Plugins([("mine", module)])


def refuse(context: BackendContext) -> Backend:
    raise ConfigError(f"models.{context.name}.options.a: first\nsecond")


def test_a_config_that_can_be_served_has_no_problems() -> None:
    assert check({"routes": {"r": {"targets": ["a"]}}, "apps": {"page": {"app": "playground"}}}) == []
    preflight.require(parse({"models": {"a": {"backend": "echo"}}}), plugins.load())


def test_every_problem_is_told_at_once() -> None:
    data = {
        "models": {
            "a": {"backend": "ecko"},
            "b": {"backend": "echo", "options": {"speed": 1}},
            "c": {"backend": "torch"},
            "d": {"backend": "echo", "source": "s4:bucket"},
        },
        "routes": {"r": {"policy": "best", "targets": ["b"]}},
        "apps": {"page": {"app": "plaground"}},
    }
    found = check(data)
    assert [line.split(": ")[0] for line in found] == [
        "models.a.backend",
        "models.b.options.speed",
        "models.c.source",
        "models.d.source",
        "routes.r.policy",
        "apps.page.app",
    ]
    assert "there are: echo, onnx, torch, vllm" in found[0]
    assert "hf, package, path" in found[3]
    assert "first, weighted" in found[4]
    with pytest.raises(ConfigError) as caught:
        preflight.require(parse(data), plugins.load())
    assert caught.value.message.splitlines() == found


def test_a_path_with_a_colon_is_still_a_path() -> None:
    assert check({"models": {"a": {"backend": "echo", "source": "/models/with:colon"}}}) == []


@pytest.mark.parametrize("module", ["no_such_wheel", "no_such_wheel.inner"])
def test_a_missing_wheel_is_named(module: str) -> None:
    found = offering(BackendOffer("mine", refuse, requires=("json", module)))
    (problem,) = check({"models": {"a": {"backend": "mine"}}}, found)
    assert problem.startswith(f"models.a.backend: mine needs {module}, which is not installed: ")
    assert "json" not in problem


def test_what_a_backend_says_of_its_options_bears_one_path() -> None:
    found = offering(BackendOffer("mine", refuse, needs_source=False))
    problems = check({"models": {"a": {"backend": "mine"}}}, found)
    assert problems == ["models.a.options.a: first", "models.a.options: second"]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_in_use_is_named(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"port {taken} on 127.0.0.1 is in use: .*--port"):
        preflight.require_port("127.0.0.1", taken)


def test_a_free_port_is_left_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    preflight.require_port("127.0.0.1", port)
    preflight.require_port("127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on {host}:8000: "):
        preflight.require_port(host, 8000)


def test_more_memory_than_is_free_is_refused() -> None:
    def specs(gb: float, replicas: int) -> list[ModelSpec]:
        return [ModelSpec(backend="echo", replicas=replicas, resources=ResourceSpec(memory_gb=gb))]

    preflight.require_memory(specs(0.001, 1))
    with pytest.raises(ConfigError, match=r"too little memory: 100001\.2 GiB are needed and .* GiB are free"):
        preflight.require_memory(specs(100_000, 1))
    with pytest.raises(ConfigError, match="too little memory: 100001"):
        preflight.require_memory(specs(100, 1000))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "gateway.example"])
def test_without_keys_only_this_machine_may_come(host: str) -> None:
    config = parse({"models": {"a": {"backend": "echo"}}, "server": {"host": host}})
    with pytest.raises(ConfigError, match="GATEWAY_API_KEYS"):
        preflight.require_host(config, [])
    preflight.require_host(config, ["0" * 64])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_this_machine_needs_no_keys(host: str) -> None:
    preflight.require_host(parse({"models": {"a": {"backend": "echo"}}, "server": {"host": host}}), [])
