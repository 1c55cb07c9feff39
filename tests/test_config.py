"""Configs: what is written short, every way to fail, and that nothing secret is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewayConfig, examine, load, parse
from gateway.errors import ConfigError

ONE = {"models": {"a": {"backend": "echo"}}}


def problems(path: Path, text: str) -> list[str]:
    """What is wrong with a config of this text, without the file's name."""
    file = path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file)
    lines = caught.value.message.splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    return [line.removeprefix(f"{file}: ") for line in lines]


def test_the_shipped_configs_load() -> None:
    folder = Path(__file__).parents[1] / "deployments"
    assert load(folder / "local.yaml").routes["chat"].targets[0].model == "smollm2"
    assert load(folder / "echo.yaml").models["echo-slow"].options == {"delay_ms": 50}


def test_targets_may_be_names_alone() -> None:
    short = parse({**ONE, "routes": {"r": {"targets": ["a", {"model": "a", "weight": 2}]}}})
    long = parse({**ONE, "routes": {"r": {"targets": [{"model": "a"}, {"model": "a", "weight": 2.0}]}}})
    assert short == long


def test_the_first_model_is_the_default() -> None:
    assert parse({"models": {"z": {"backend": "echo"}, "a": {"backend": "echo"}}}).default_target == "z"
    assert parse({**ONE, "default_model": "r", "routes": {"r": {"targets": ["a"]}}}).default_target == "r"


def test_an_app_is_mounted_under_its_name_or_where_it_says() -> None:
    config = parse({**ONE, "apps": {"page": {"app": "playground"}, "b": {"app": "playground", "route_prefix": "/c"}}})
    assert [config.prefix_of(name) for name in config.apps] == ["/page", "/c"]


@pytest.mark.parametrize(
    "text,line",
    [
        ("models: {a: {backend: echo}}\nmodles: {}", "modles: unknown setting"),
        ("models: {a: {backend: echo, resources: {cpu: 1}}}", "models.a.resources.cpu: unknown setting"),
        (
            "models: {a: {backend: echo}}\nroutes: {r: {targets: [{model: a, wait: 1}]}}",
            "routes.r.targets[0].wait: unknown",
        ),
        ("models: {a: {}}", "models.a.backend: Field required"),
        ("models: {}", "models: "),
        ("server: {}", "models: Field required"),
        ("models: {a: {backend: echo}}\nserver: {port: 99999}", "server.port: "),
        ("models: {a: {backend: echo, sha256: abc}}", "models.a.sha256: "),
        ("models: {a: {backend: echo, dtype: int3}}", "models.a.dtype: "),
        ("models: {a b: {backend: echo}}", "models.a b: a name is letters"),
        ("models: {a: {backend: echo}}\nroutes: {r: {targets: []}}", "routes.r.targets: "),
        ("models: {a: {backend: echo}}\nroutes: {r: {targets: a}}", "routes.r.targets: "),
        (
            "models: {a: {backend: echo}}\nroutes: {r: {targets: [b]}}",
            "routes.r.targets[0].model: no model 'b'; models: a",
        ),
        ("models: {a: {backend: echo}}\nroutes: {a: {targets: [a]}}", "routes.a: a model has this name already"),
        ("models: {a: {backend: echo}}\ndefault_model: b", "default_model: no model or route 'b'"),
        ("models: {a: {backend: echo}}\napps: {v1: {app: x}}", "apps.v1.route_prefix: /v1 belongs to the gateway"),
        (
            "models: {a: {backend: echo}}\napps: {b: {app: x}, c: {app: x, route_prefix: /b}}",
            "apps.c.route_prefix: /b is taken by apps.b",
        ),
        ("models: {a: {backend: echo}}\napps: {b: {app: x, route_prefix: page}}", "apps.b.route_prefix: "),
        ("models: {a: {backend: echo}}\nmodels: {b: {backend: echo}}", "is not YAML: 'models' stands twice in line 2"),
        ("models:\n  a: {backend: echo}\n  a: {backend: onnx}", "is not YAML: 'a' stands twice in line 3, column 3"),
        ("models: {a: {backend: echo, options: {1: 2, 1: 3}}}", "is not YAML: 1 stands twice"),
        ("models: [", "is not YAML: "),
        ("models: *nowhere", "is not YAML: found undefined alias"),
        ("models: !!python/object:os.system {}", "is not YAML: could not determine a constructor"),
        ("models: {? [a, b] : c}", "is not YAML: found unhashable key in line 1, column 12"),
        ("when: 2026-99-99", "is not YAML: "),
        ("a: \x07", "is not YAML: special characters are not allowed"),
        ("[" * 5000, "is nested too deeply"),
        ("- a", "expected a mapping with `models:`, found list"),
        ("echo", "expected a mapping with `models:`, found str"),
        ("", "expected a mapping with `models:`, found nothing"),
    ],
)
def test_every_mistake_is_named_by_its_place(tmp_path: Path, text: str, line: str) -> None:
    (found,) = problems(tmp_path, text)
    assert found.startswith(line)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        server: {prot: 1}
        models:
          a: {backend: echo, replicas: 0}
          b: {backend: echo}
        routes:
          b: {targets: [a, c]}
          r: {targets: [{model: a, weight: 0}]}
        apps:
          health: {app: page}
        default_model: nobody
        """,
    )
    assert [line.split(": ")[0] for line in found] == [
        "server.prot",
        "models.a.replicas",
        "routes.r.targets[0].weight",
        "routes.b",
        "routes.b.targets[1].model",
        "default_model",
        "apps.health.route_prefix",
    ]


def test_the_sound_parts_of_a_config_with_mistakes_are_kept() -> None:
    config, found = examine({"models": {"a": {"backend": "echo"}, "b": {}}, "apps": [], "server": {"port": 0}})
    assert list(config.models) == ["a"]
    assert config.apps == {}
    assert len(found) == 3
    assert examine(None)[1]
    assert examine(ONE) == (GatewayConfig.model_validate(ONE), [])


def test_a_merged_mapping_may_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "models:\n  a: &a {backend: echo, replicas: 2}\n  b: &b {<<: *a, backend: onnx}\n  c: {<<: *b, replicas: 3}\n"
    )
    models = load(file).models
    assert [(spec.backend, spec.replicas) for spec in models.values()] == [("echo", 2), ("onnx", 2), ("onnx", 3)]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text .* at byte 3"):
        load(tmp_path / "latin.yaml")


SECRET = "sk-very-secret"


@pytest.mark.parametrize(
    "text",
    [
        f"server: {{api_keys: {SECRET}}}",
        f"server: {{api_keys: [[{SECRET}]]}}",
        f"server: {{api_keys: {{a: {SECRET}}}}}",
        f"server: {{api_keys: [{SECRET}], port: no}}",
        f"server:\n  api_keys: [{SECRET}\nmodels: {{}}",
        f"server:\n  api_keys: ['{SECRET}]\n",
        f'server: {{api_keys: ["{SECRET}\\q"]}}',
        f"server: {{api_keys: [{SECRET}]}}: x",
        f"server: {SECRET}",
    ],
)
def test_no_error_repeats_a_key(tmp_path: Path, text: str) -> None:
    assert SECRET not in "\n".join(problems(tmp_path, text))
