"""Plugins that may refuse or rewrite a request before it is routed."""

from __future__ import annotations

from gateway.ingress.record import Layer
from gateway.ingress.request import GatewayRequest
from gateway.plugins import Plugins
from gateway.types import Receive, Scope, Send


class Guard:
    """Asks every plugin's `guard_request` in order; the first that raises a GatewayError ends the request."""

    def __init__(self, layer: Layer, plugins: Plugins) -> None:
        self._layer = layer
        self._plugins = plugins

    async def __call__(self, request: GatewayRequest, scope: Scope, receive: Receive, send: Send) -> None:
        if request.fields:
            await self._plugins.guard("guard_request", request=request)
        await self._layer(request, scope, receive, send)
