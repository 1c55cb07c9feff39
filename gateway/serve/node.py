"""Ray's node without the processes that serve nobody here."""

# Ray's own annotations are partial.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

COMPANIONS = {
    "start_api_server": "dashboard.py",
    "start_monitor": "monitor.py",
    "start_log_monitor": "log_monitor.py",
}
"""Methods of Ray's node, and the program that each one starts."""


@contextmanager
def by_itself() -> Generator[None]:
    """Start a Ray inside this block, and it is its core alone.

    Ray starts beside it a dashboard (without its pages where they are not wanted, for reports of usage), a monitor that
    orders more machines, and one that reads all logs ten times a second for drivers that print them. Each is a Python
    of its own: together 0.2 GB, a hundredth of a core for good, and two seconds of every start, since Ray waits for its
    dashboard. Ray has no setting for that. (Internal API: kept in this one place.)
    """
    from ray._private.node import Node

    kept = {name: getattr(Node, name) for name in COMPANIONS}
    for name in COMPANIONS:
        setattr(Node, name, _start_nothing)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


def _start_nothing(*_: object, **__: object) -> None:
    """In the place of a method in `COMPANIONS`."""
