"""The echo backend's life: made from options, started at once. All that a backend with a typed engine has to do."""

from __future__ import annotations

from gateway.backend import Backend, BackendContext
from gateway.errors import Unavailable
from gateway.openai import build_app, engine_info
from gateway.types import ASGIApp, ModelCard
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
            capabilities=CAPABILITIES,
            root="echo",
        )

    def running(self) -> int:
        return self._engine.running
