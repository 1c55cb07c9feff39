"""A local Ray with Serve on it: started, given applications, watched until they are ready, and taken down whole."""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedClassDecorator=false

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from gateway.config import GatewayConfig
from gateway.errors import ConfigError, GatewayError
from gateway.serve.applications import ServeApp
from gateway.serve.instance import Instance
from gateway.serve.library import import_serve
from gateway.serve.node import by_itself
from gateway.serve.settings import Session

if TYPE_CHECKING:
    from gateway.serve.states import ApplicationState

Progress = Callable[[Mapping[str, str]], None]
"""Told, about once a second, the state of every application by name: `DEPLOYING`, `RUNNING`, `DEPLOY_FAILED`, …"""


_NODE = "127.0.0.2"
"""The address of a gateway's Ray: loopback, but not 127.0.0.1, which Ray would replace by one that others can reach."""


@dataclass(slots=True)
class Cluster:
    """The Ray of one gateway. Everything it starts is a child of this process, and ends with `stop`."""

    folder: Path
    address: str = ""

    def stop(self, *, within_s: float = 12.0) -> None:
        """End every process that was started, kindly and then not, and remove the temporary files."""
        import ray
        from ray import serve

        deadline = time.monotonic() + within_s
        children = _descendants()
        if ray.is_initialized():
            # Ray reports every process that ends as a failure; those are the ones that we end.
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                # Serve is told, so that replicas stop their engines; it is not waited for longer than there is time.
                _at_most(within_s / 2, serve.shutdown)
                children |= _descendants()
                _at_most(max(1.0, deadline - time.monotonic() - 2), ray.shutdown)
        children |= _descendants()
        end(children, deadline)
        shutil.rmtree(self.folder, ignore_errors=True)


def start(config: GatewayConfig, session: Session) -> Cluster:
    """Start Ray and Serve for one gateway. Raises ConfigError where Ray does not start, after taking down what had."""
    cluster = Cluster(session.folder)
    import_serve()
    _quieten()
    import ray
    from ray import serve

    try:
        with by_itself():
            ray.init(
                address="local",
                namespace="serve",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                configure_logging=True,
                _temp_dir=str(session.folder),
                _node_ip_address=_NODE,
                object_store_memory=200 * 1024 * 1024,
            )
        cluster.address = ray.get_runtime_context().gcs_address
        serve.start(http_options={"host": config.server.host, "port": config.server.port, "keep_alive_timeout_s": 600})
    except BaseException as error:
        cluster.stop()
        if isinstance(error, Exception) and not isinstance(error, GatewayError):
            # Ray raises bare exceptions, most of them because a machine is too busy for its timeouts.
            said = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"Ray could not start: {said} Is this machine very busy or out of memory? Try again."
            ) from error
        raise
    return cluster


@contextlib.contextmanager
def joined(instance: Instance) -> Generator[None]:
    """Inside the block this process is a driver of a running gateway's Ray."""
    import_serve()
    _quieten()
    import ray

    ray.init(
        address=instance.ray_address,
        namespace="serve",
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _node_ip_address=_NODE,
    )
    try:
        yield
    finally:
        # Not left to the end of Python, where Ray first waits half a second for its logs.
        ray.shutdown()


def deploy(apps: Iterable[ServeApp]) -> None:
    """Create or change applications, all at once; returns before they are ready."""
    from ray import serve

    from gateway.serve.build import build

    targets = [serve.RunTarget(build(app), name=app.name, route_prefix=app.route_prefix) for app in apps]
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)


def remove(names: Iterable[str]) -> None:
    """Delete applications; requests under way are answered first."""
    from ray import serve

    for name in names:
        serve.delete(name)


def running() -> set[str]:
    """Names of the applications that exist."""
    from gateway.serve.states import application_states

    return set(application_states())


def wait(names: Iterable[str], *, within_s: float, progress: Progress) -> None:
    """Until all these applications run. Raises ConfigError with the replica's own error where one cannot."""
    from gateway.serve.states import application_states

    wanted = list(names)
    deadline = time.monotonic() + within_s
    while True:
        found = application_states()
        states = {name: found[name].status if name in found else "NOT_STARTED" for name in wanted}
        progress(states)
        for name in wanted:
            if states[name] in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ConfigError(f"{name} could not start: {_why(found[name])}")
        if all(state == "RUNNING" for state in states.values()):
            return
        if time.monotonic() > deadline:
            late = ", ".join(f"{name} is {state}" for name, state in states.items() if state != "RUNNING")
            raise ConfigError(f"not ready after {within_s:.0f} s: {late}")
        time.sleep(0.25)


def _why(application: ApplicationState) -> str:
    """The last line of the replica's traceback: what the backend itself said."""
    messages = (*application.deployment_messages, application.message)
    text = next((message for message in messages if message.strip()), "no reason was given")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [
        line for line in lines if "Error: " in line or "Exception: " in line or line.startswith("gateway.errors.")
    ]
    return (errors[-1] if errors else lines[-1]).removeprefix("gateway.errors.")


def _quieten() -> None:
    """Serve tells on standard error what our progress bars show. It sets its logs up when it is imported."""
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def end(processes: Iterable[psutil.Process], deadline: float) -> None:
    """Terminate processes, then kill what is left. Each was found to be ours; pids that were reused are left alone."""
    alive = [process for process in processes if process.is_running()]
    for process in alive:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(alive, timeout=max(0.5, deadline - time.monotonic()))
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=2)


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _at_most(seconds: float, call: Callable[[], object]) -> None:
    """Run a blocking call of Ray's in a thread and go on after `seconds`: what it has not ended is ended by pid."""
    import threading

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(max(0.1, seconds))
