"""The playground: a page that chats with what the gateway serves. Imports in milliseconds; Gradio only when built."""

from __future__ import annotations

from collections.abc import Callable

from gateway.apps import AppContext, AppOffer
from gateway.hookspecs import hookimpl
from gateway.types import ASGIApp


def _build(context: AppContext) -> ASGIApp:
    from gateway_playground.app import build

    return build(context)


@hookimpl
def register_apps(register: Callable[[AppOffer], None]) -> None:
    register(AppOffer(name="playground", build=_build, memory_gb=0.4))
