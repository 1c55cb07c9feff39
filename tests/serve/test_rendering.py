"""A rendered Serve config is what Ray's own schema accepts and its builders build; it holds no key."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import ConfigError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`"),  # in ray's own schema
]

CONFIG = """
server: {port: 8123, api_keys: [sk-config-secret], ingress_replicas: 2, limits: {max_body_mb: 2}}
models:
  a: {backend: echo, replicas: 3, resources: {threads: 2}, options: {delay_ms: 1}}
  b: {backend: echo}
routes:
  r: {targets: [a, b]}
apps:
  page: {app: playground, options: {title: Ours}}
"""


@pytest.fixture
def rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from gateway.serve.rendering import render

    monkeypatch.setenv("GATEWAY_API_KEYS", "sk-environment-secret, ")
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    return render(path)


def test_rays_schema_accepts_it_and_its_builders_build(rendered: str) -> None:
    from ray.serve import Application
    from ray.serve.schema import ServeDeploySchema

    from gateway.serve import build
    from gateway.serve.applications import application_of

    schema = ServeDeploySchema.model_validate(yaml.safe_load(rendered))
    assert [(app.name, app.route_prefix) for app in schema.applications] == [
        (application_of("a"), "/m/a"),
        (application_of("b"), "/m/b"),
        ("gateway", "/"),
        ("app-page", "/page"),
    ]
    assert schema.http_options.port == 8123
    for app in schema.applications:
        module, _, builder = app.import_path.partition(":")
        assert module == build.__name__
        assert isinstance(getattr(build, builder)(app.args), Application)


def test_it_holds_hashes_of_keys_and_no_key(rendered: str) -> None:
    assert "secret" not in rendered
    for application in yaml.safe_load(rendered)["applications"]:
        assert application["args"]["user_config"]["key_hashes"] == [
            hashlib.sha256(key.encode()).hexdigest() for key in ("sk-config-secret", "sk-environment-secret")
        ]


def test_it_says_what_the_config_says(rendered: str) -> None:
    applications: dict[str, Any] = {app["route_prefix"]: app for app in yaml.safe_load(rendered)["applications"]}
    model = applications["/m/a"]
    assert model["args"]["replicas"] == 3
    assert model["args"]["spec"]["options"] == {"delay_ms": 1}
    assert model["args"]["user_config"]["limits"] == {"max_body_mb": 2}
    assert model["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "2"
    assert applications["/"]["args"]["replicas"] == 2
    assert list(applications["/"]["args"]["user_config"]["config"]["routes"]) == ["r"]
    assert applications["/page"]["args"]["context"] == {
        "base_url": "http://127.0.0.1:8123",
        "route_prefix": "/page",
        "options": {"title": "Ours"},
    }
    for application in applications.values():
        assert application["runtime_env"]["env_vars"]["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    "text,problem",
    [
        ("models: {a: {backend: nobody}}", r"models\.a\.backend: no backend"),
        ("models: {a: {backend: echo}}\nserver: {host: 0.0.0.0}", "GATEWAY_API_KEYS"),
        ("models: {}", r"gateway\.yaml: models: "),
    ],
)
def test_what_cannot_be_served_is_not_rendered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    from gateway.serve.rendering import render

    monkeypatch.delenv("GATEWAY_API_KEYS", raising=False)
    (tmp_path / "gateway.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        render(tmp_path / "gateway.yaml")
