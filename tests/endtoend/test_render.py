"""What `gateway render` writes is taken by Ray's own `serve deploy`, on a Ray that knows nothing of `gateway serve`."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from gateway.serve.settings import free_ports
from tests.running import run

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
KEY = "sk-rendered"


@dataclass
class Ray:
    """A cluster of one node, as its administrator starts it."""

    dashboard: str
    http_port: int
    environment: dict[str, str]


@pytest.fixture
def ray() -> Iterator[Ray]:
    gcs, dashboard, agent, client, http, stats, metrics, agent_grpc, agent_metrics = free_ports(9)
    # Paths of Unix sockets are short: not below pytest's own folders.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        environment = {
            **os.environ,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }
        head = subprocess.Popen(
            [
                BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2",
                "--node-ip-address=127.0.0.2", f"--port={gcs}", f"--temp-dir={folder}",
                "--include-dashboard=true", "--dashboard-host=127.0.0.2", f"--dashboard-port={dashboard}",
                f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={agent_grpc}",
                f"--metrics-export-port={agent_metrics}", f"--ray-client-server-port={client}",
                "--object-store-memory=200000000",
            ],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield Ray(f"http://127.0.0.2:{dashboard}", http, environment)
        finally:
            parent = psutil.Process(head.pid)
            below = parent.children(recursive=True)
            head.terminate()
            _, alive = psutil.wait_procs([*below, parent], timeout=8)
            # HAProxy is nobody's child: Ray leaves it behind. It is known by its files.
            alive += [each for each in psutil.process_iter(["cmdline"]) if _speaks_of(folder, each)]
            for process in alive:
                process.kill()
            _, alive = psutil.wait_procs(alive, timeout=5)
            assert not alive


@pytest.mark.proof
def test_serve_deploy_takes_it_and_both_doors_answer(ray: Ray, tmp_path: Path) -> None:
    config = {"server": {"port": ray.http_port}, "models": {"parrot": {"backend": "echo"}}}
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(config))
    rendered = run("render", str(tmp_path / "gateway.yaml"), env={"GATEWAY_API_KEYS": KEY})
    assert rendered.returncode == 0, rendered.stderr
    (tmp_path / "serve.yaml").write_text(rendered.stdout)
    deadline = time.monotonic() + 120
    while True:
        deployed = subprocess.run(
            [BIN / "serve", "deploy", str(tmp_path / "serve.yaml"), "-a", ray.dashboard],
            capture_output=True, text=True, timeout=60, env=ray.environment,
        )  # fmt: skip
        if deployed.returncode == 0:
            break
        # The dashboard takes its time; whatever else it says is shown at the end.
        assert time.monotonic() < deadline, deployed.stderr
        time.sleep(1)
    asked = {"model": "parrot", "messages": [{"role": "user", "content": "Hello there"}]}
    with httpx.Client(base_url=f"http://127.0.0.1:{ray.http_port}", trust_env=False, timeout=10) as client:
        for path in ("/v1/chat/completions", "/m/parrot/v1/chat/completions"):
            answer = _answered(client, path, asked, deadline)
            assert answer["choices"][0]["message"]["content"] == "Hello there"
            assert _refused(client, path, asked, deadline) == 401


def _speaks_of(folder: str, process: psutil.Process) -> bool:
    return any(folder in word for word in process.info["cmdline"] or ())


def _answered(
    client: httpx.Client, path: str, asked: object, deadline: float
) -> dict[str, list[dict[str, dict[str, str]]]]:
    said = ""
    while time.monotonic() < deadline:
        try:
            answer = client.post(path, json=asked, headers={"authorization": f"Bearer {KEY}"})
        except httpx.TransportError as error:
            said = str(error)
        else:
            if answer.status_code == 200:
                return answer.json()
            said = f"{answer.status_code} {answer.text[:200]}"
        time.sleep(0.5)
    raise AssertionError(f"{path} never answered: {said}")


def _refused(client: httpx.Client, path: str, asked: object, deadline: float) -> int:
    """The status without a key. While a second application is being deployed, an address that has answered already
    can be unknown to Serve's proxies for a moment (404): that much is waited for, and nothing else."""
    while (status := client.post(path, json=asked).status_code) == 404 and time.monotonic() < deadline:
        time.sleep(0.5)
    return status
