"""The playground: a page of tabs for what the gateway serves. Imports in milliseconds; Gradio only when built."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from gateway.apps import AppContext, AppOffer
from gateway.hookspecs import hookimpl
from gateway.tabs import PageContext, TabOffer
from gateway.types import ASGIApp

TABS = (
    ("chat", "Chat", 10),
    ("compare", "Compare", 20),
    ("inside", "Look inside", 30),
    ("structured", "Structured", 40),
    ("adapters", "Adapters", 50),
    ("evaluations", "Evaluations", 60),
    ("operations", "Operations", 70),
)
"""Name (a module of `gateway_playground.tabs`), title and order."""


def _build(context: AppContext) -> ASGIApp:
    from gateway_playground.app import build

    return build(context)


def _builder(name: str) -> Callable[[PageContext], None]:
    def build(context: PageContext) -> None:
        import_module(f"gateway_playground.tabs.{name}").build(context)

    return build


@hookimpl
def register_apps(register: Callable[[AppOffer], None]) -> None:
    register(AppOffer(name="playground", build=_build, memory_gb=0.4))


@hookimpl
def register_tabs(register: Callable[[TabOffer], None]) -> None:
    for name, title, order in TABS:
        register(TabOffer(name, title, order, _builder(name)))
