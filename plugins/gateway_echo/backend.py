"""The echo backend's life: made from options, started at once. All that a backend with a typed engine has to do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.backend import Backend, BackendContext, no_adapters
from gateway.errors import AdapterError, Unavailable
from gateway.openai import build_app, engine_info
from gateway.types import AdapterFiles, ASGIApp, ModelCard
from gateway_echo.engine import EchoEngine
from gateway_echo.options import EchoOptions

CAPABILITIES = ("chat", "completions", "echo", "logprobs", "tokenize")


class EchoBackend(Backend):
    """Says what it is told."""

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self._options = EchoOptions.parse(context.spec.options, context.name)
        self._engine = EchoEngine(self._options, context.spec.max_model_len or 32768)
        info = engine_info(context, "echo")
        self._app = build_app(self._engine, info, health=lambda: {"running": self.running()})

    async def start(self) -> None:
        if self._options.fail == "start":
            raise Unavailable("the echo backend was told not to start")

    async def stop(self) -> None:
        """Nothing is held: no thread, no process, no memory."""

    @property
    def app(self) -> ASGIApp:
        return self._app

    def card(self) -> ModelCard:
        return ModelCard(
            name=self.context.name,
            backend="echo",
            max_model_len=self._engine.max_model_len,
            dtype="bytes",
            digest=self.context.digest,
            capabilities=CAPABILITIES if self.context.spec.adapters is None else (*CAPABILITIES, "adapters"),
            root="echo",
        )

    def running(self) -> int:
        return self._engine.running

    async def load_adapter(self, adapter: AdapterFiles) -> None:
        if self.context.spec.adapters is None:
            raise no_adapters(self.context)
        await asyncio.sleep(self._options.load_ms / 1000)
        if self._options.fail == "load":
            raise AdapterError(f"{adapter.id}: the echo backend was told to take no adapter")
        try:
            settings: Any = json.loads((adapter.path / "adapter_config.json").read_text())
            says: str = settings.get("says", adapter.id)
        except (OSError, ValueError, AttributeError) as error:
            raise AdapterError(f"{adapter.id}: {adapter.path} holds no adapter_config.json: {error}") from error
        self._engine.adapters[adapter.id] = f"{says}: ".encode()

    async def unload_adapter(self, id: str) -> None:
        self._engine.adapters.pop(id, None)
