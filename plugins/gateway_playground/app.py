"""The playground as one ASGI app under a prefix: the page, its headers, and what of Gradio is shut. Knows no Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gateway.apps import AppContext
from gateway.errors import NotFound
from gateway.types import ASGIApp, Message, Receive, Scope, Send
from gateway_playground import options as playground_options
from gateway_playground.library import import_gradio

SHUT = ("/gradio_api/upload", "/gradio_api/proxy=", "/gradio_api/runs", "/gradio_api/deep_link", "/monitoring")
"""Pages of Gradio's that this page has no use for, and that write files, ask other hosts or tell about other users."""

POLICY = b"; ".join(
    [
        b"default-src 'self'",
        # Gradio's page starts from inline scripts and turns handlers' code into functions.
        b"script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        b"style-src 'self' 'unsafe-inline'",
        b"img-src 'self' data: blob:",
        b"font-src 'self' data:",
        b"worker-src 'self' blob:",
        b"object-src 'none'",
        b"base-uri 'self'",
        b"form-action 'self'",
        b"frame-ancestors 'self'",
    ]
)
"""Content-Security-Policy: whatever a model writes, the browser asks no other host for anything."""

ICON = (
    b'<link rel="icon" href="data:image/svg+xml,%3Csvg '
    b"xmlns=%27http://www.w3.org/2000/svg%27 viewBox=%270 0 32 32%27%3E"
    b"%3Crect width=%2732%27 height=%2732%27 rx=%278%27 fill=%27%236366f1%27/%3E"
    b'%3Cpath d=%27M8 10h16v10H15l-5 4v-4H8z%27 fill=%27white%27/%3E%3C/svg%3E">'
)
"""In the page itself: a browser would else ask the gateway's root for /favicon.ico, where there is none."""

HEADERS = [
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


def build(context: AppContext) -> ASGIApp:
    """The page for one gateway. Raises ConfigError for options that it does not know."""
    options = playground_options.read(context.options)
    import_gradio()
    import gradio as gr
    from fastapi import FastAPI

    from gateway_playground.client import GatewayClient
    from gateway_playground.page import build_page, look

    client = GatewayClient(context.base_url, options.read_timeout_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        await client.aclose()

    outer = FastAPI(lifespan=lifespan, openapi_url=None)
    gr.mount_gradio_app(  # pyright: ignore[reportUnknownMemberType]
        outer,
        build_page(options, client, context.tabs),
        path="/",
        footer_links=[],
        # Gradio would keep every run's inputs in the browser's database, the key among them.
        run_history=False,
        show_error=False,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        max_file_size=1,
        **look(),
    )
    return guarded(outer)


def guarded(app: ASGIApp) -> ASGIApp:
    """Shuts the pages in SHUT and puts HEADERS on every answer."""

    async def playground(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path.startswith(SHUT):
            refusal = NotFound("no such page")
            await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers()})
            await send({"type": "http.response.body", "body": refusal.to_json()})
            return

        page = _Page(send)
        await app(scope, receive, page.send if path in ("", "/") else page.with_headers)

    return playground


class _Page:
    """One answer on its way out."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = bytearray()

    async def with_headers(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *HEADERS]
        await self._send(message)

    async def send(self, message: Message) -> None:
        """The same for the page itself, which is small: held until it is whole, and given its icon."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                body = bytes(self._body).replace(b"<head>", b"<head>" + ICON, 1)
                kept = [header for header in self._start["headers"] if header[0].lower() != b"content-length"]
                self._start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
                await self.with_headers(self._start)
                await self._send({"type": "http.response.body", "body": body})
