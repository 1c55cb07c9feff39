"""What stands in the environment before Ray starts: quiet, apart from other gateways, closed to other users."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.config import ModelSpec, ResourceSpec, parse
from gateway.serve import settings
from gateway.serve.settings import QUIET, environment, free_ports, haproxy_available, replica_environment

CONFIG = parse({"models": {"a": {"backend": "echo"}}, "server": {"drain_s": 2.5}})


def test_two_gateways_share_no_port_and_no_file(tmp_path: Path) -> None:
    assert haproxy_available(), "the lock installs it on Linux"
    one, two = environment(CONFIG, tmp_path / "1"), environment(CONFIG, tmp_path / "2")
    assert one["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    own = [name for name in one if one[name] != two[name]]
    assert {"STATS_PORT", "METRICS_PORT", "SOCKET_PATH", "CONFIG_FILE_LOC"} <= {
        name.removeprefix("RAY_SERVE_HAPROXY_") for name in own
    }
    assert {name for name in one if name.endswith("PORT") and "DIRECT_INGRESS" not in name} <= set(own)
    shared = [value for name, value in one.items() if name not in own and str(tmp_path) in value]
    assert shared == []


def test_throughput_and_draining_are_set(tmp_path: Path) -> None:
    variables = environment(CONFIG, tmp_path)
    assert variables["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] == "2.5"
    assert int(variables["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) > 32 * 1024 * 1024


def test_nobody_is_told() -> None:
    assert QUIET["RAY_USAGE_STATS_ENABLED"] == "0"
    assert QUIET["VLLM_NO_USAGE_STATS"] == "1"
    assert QUIET.items() <= replica_environment(ModelSpec(backend="echo")).items()


def test_a_replica_computes_with_its_threads_or_all() -> None:
    three = replica_environment(ModelSpec(backend="echo", resources=ResourceSpec(threads=3)))
    assert (three["OMP_NUM_THREADS"], three["MKL_NUM_THREADS"]) == ("3", "3")
    assert replica_environment(ModelSpec(backend="echo"))["OMP_NUM_THREADS"] == str(os.cpu_count())


def test_free_ports_differ() -> None:
    ports = list(free_ports(20))
    assert len(set(ports)) == 20


def test_replicas_get_a_block_of_ports_that_nobody_listens_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first block that is tried is another gateway's.
    monkeypatch.setattr(settings, "_shuffled", list)
    with socket.socket() as sock:
        port = next(port for port in range(30000, 30000 + 250) if settings._is_free(port))
        sock.bind(("127.0.0.1", port))
        variables = environment(CONFIG, tmp_path)
    first = int(variables["RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT"])
    last = int(variables["RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT"])
    assert not first <= port < last
    assert 30000 < first < last <= 32768


def test_a_session_is_its_owners_alone_and_leads_short_paths() -> None:
    # In a process of its own: it changes the environment, as it must before ray is imported.
    code = (
        "import os, sys\n"
        "from gateway.config import parse\n"
        "from gateway.serve.settings import open_session\n"
        "session = open_session(parse({'models': {'a': {'backend': 'echo'}}}))\n"
        "assert os.environ['RAY_AUTH_MODE'] == 'token'\n"
        "assert all(os.environ[name] == value for name, value in session.environment.items())\n"
        "assert 'ray' not in sys.modules\n"
        "print(session.folder)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    try:
        token = folder / "token"
        assert token.stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o777 == 0o700
        assert len(token.read_text()) == 64
        assert len(str(folder / "haproxy" / "admin.sock")) < 107
    finally:
        shutil.rmtree(folder)


def test_no_second_ray_is_started_where_the_first_has_ended(tmp_path: Path) -> None:
    """Serve's own callbacks call Ray when a change is heard of by a process that has left it."""
    code = "import psutil, ray\ntry:\n    ray.put(1)\nfinally:\n    print(psutil.Process().children())\n"
    variables = {**os.environ, **environment(CONFIG, tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert "Ray has not been started yet" in done.stderr
    assert done.returncode == 1
    assert done.stdout == "[]\n"
