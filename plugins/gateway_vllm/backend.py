"""The `vllm` backend: vLLM's own app over an AsyncLLM in this process, its engine in a process of its own.

Knows vLLM's Python API (0.32) and nothing of Ray or HTTP servers; what answers say differently is dialect.py's.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
from argparse import Namespace
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from gateway.backend import Backend, BackendContext, no_adapters
from gateway.errors import ConfigError, GatewayError, Unavailable
from gateway.types import AdapterFiles, ASGIApp, ModelCard
from gateway_vllm import surroundings
from gateway_vllm.adapters import Adapters
from gateway_vllm.dialect import Dialect
from gateway_vllm.library import SERVER, import_vllm
from gateway_vllm.options import engine_arguments, parse_options, server_arguments
from gateway_vllm.reaper import Reaper
from gateway_vllm.room import refuse_what_cannot_fit
from gateway_vllm.tools import Terms

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM

_GRACE_S = 3.0
"""How long the engine's process may take to end by itself; then it is killed."""


class VllmBackend(Backend):
    """One model in vLLM. Raises ConfigError when made with options it does not know."""

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self._options = parse_options(context)
        self.reaper = Reaper()
        self._launch_task: asyncio.Future[tuple[AsyncLLM, Namespace]] | None = None
        self._engine: AsyncLLM | None = None
        self._app: ASGIApp | None = None
        self._adapters: Adapters | None = None
        self._card: ModelCard | None = None
        self._lifespan = AsyncExitStack()
        # vLLM's error handlers ask the HTTP server, which they believe to be their own, to stop.
        self._server = SimpleNamespace(should_exit=False)

    async def start(self) -> None:
        """Start the engine's process, load the model and make the app.

        Raises ConfigError with vLLM's own reason where the model or its settings do not work.
        """
        await asyncio.to_thread(self.reaper.start)
        # Imports, weights and waiting for the engine's process: up to a minute, in which the loop goes on turning.
        # By themselves: modules that fail on this machine leave tracebacks in vLLM's tables, and with them every frame
        # above, which would otherwise hold the engine for good.
        await asyncio.to_thread(import_vllm, *SERVER)
        self._launch_task = asyncio.ensure_future(asyncio.to_thread(self._launch))
        engine, arguments = await asyncio.shield(self._launch_task)
        self._engine = engine
        await engine.reset_mm_cache()
        self._app = Dialect(
            await self._make_app(engine, arguments),
            is_down=self._is_down,
            reasoning=bool(arguments.structured_outputs_config.reasoning_parser),
            terms=Terms(
                by_guidance=arguments.structured_outputs_config.backend in ("auto", "guidance"),
                template=_template(engine, arguments),
                tool_parser=arguments.tool_call_parser,
            ),
        )

    async def stop(self) -> None:
        """End the engine's process, whatever state it is in. Requests in flight are aborted."""
        self._app = self._adapters = None
        try:
            if self._launch_task is not None and not self._launch_task.done():
                # A start that was given up: without its children the thread comes to an end by itself.
                while not self._launch_task.done():
                    await asyncio.to_thread(self.reaper.reap)
                    await asyncio.wait([self._launch_task], timeout=0.2)
                if not self._launch_task.cancelled() and self._launch_task.exception() is None:
                    self._engine = self._launch_task.result()[0]
            await self._lifespan.aclose()
            if self._engine is not None:
                await asyncio.to_thread(self._engine.shutdown, _GRACE_S)
        finally:
            self._engine = self._launch_task = None
            # vLLM's lifespan froze what there was, so that its cycles would never be found.
            gc.unfreeze()
            gc.collect()
            await asyncio.to_thread(self.reaper.close)

    async def check_health(self) -> None:
        """Raises Unavailable when the engine's process has died."""
        if self._is_down():
            raise Unavailable(f"the vllm engine of {self.context.name} has died")

    @property
    def app(self) -> ASGIApp:
        if self._app is None:
            raise Unavailable(f"{self.context.name} has not started")
        return self._app

    def card(self) -> ModelCard:
        if self._card is None:
            raise Unavailable(f"{self.context.name} has not started")
        return self._card

    def running(self) -> int:
        """Sequences that vLLM counts as unfinished, waiting ones included; an aborted one is taken off as the engine is
        told to drop it, which it does before its next step."""
        return self._engine.get_num_unfinished_requests() if self._engine is not None else 0

    async def load_adapter(self, adapter: AdapterFiles) -> None:
        if self._adapters is None:
            raise no_adapters(self.context)
        await self._adapters.load(adapter)

    async def unload_adapter(self, id: str) -> None:
        if self._adapters is None:
            raise no_adapters(self.context)
        await self._adapters.unload(id)

    def _is_down(self) -> bool:
        return self._engine is None or self._engine.errored or self._server.should_exit

    def _launch(self) -> tuple[AsyncLLM, Namespace]:
        """The engine, ready, and the arguments of its app. Blocks; runs in a thread."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import FrontendArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        cpu = current_platform.is_cpu()
        engine_fields = [field.name for field in dataclasses.fields(AsyncEngineArgs)]
        chosen = engine_arguments(self.context, self._options, engine_fields, cpu=cpu)
        frontend = FrontendArgs()
        extra = server_arguments(self.context, self._options, vars(frontend))
        scratch = self.reaper.scratch
        settings = surroundings.engine_environment(
            threads=surroundings.compute_threads(self.context.spec.resources.threads),
            cpu=cpu,
            eager=bool(chosen.get("enforce_eager")),
            scratch=scratch,
            compiled=self.context.cache / f"{self.context.digest or 'model'}-inductor",
        )
        with surroundings.own_children(), surroundings.environment({**self.reaper.environment(), **settings}):
            try:
                arguments = AsyncEngineArgs(**chosen)
                config = arguments.create_engine_config(UsageContext.OPENAI_API_SERVER)
                engine = AsyncLLM.from_vllm_config(
                    config,
                    usage_context=UsageContext.OPENAI_API_SERVER,
                    disable_log_stats=arguments.disable_log_stats,
                )
            except GatewayError:
                raise
            except Exception as error:
                cause = surroundings.root_cause(scratch) or " ".join(str(error).split())
                raise ConfigError(f"models.{self.context.name}: vllm did not start: {cause}") from error
        return engine, Namespace(**{**vars(frontend), **vars(arguments), **extra})

    async def _make_app(self, engine: AsyncLLM, arguments: Namespace) -> ASGIApp:
        from vllm.entrypoints.launchers.api_server.app_state import init_app_state
        from vllm.entrypoints.launchers.app import build_app

        refuse_what_cannot_fit()
        tasks = await engine.get_supported_tasks()
        app: FastAPI = build_app(arguments, tasks, engine.model_config)
        await init_app_state(engine, app.state, arguments, tasks)
        app.state.server = self._server
        if self.context.spec.adapters is not None:
            from vllm.platforms import current_platform

            self._adapters = Adapters(engine, app.state.openai_serving_models)
            await self._adapters.start(cpu=current_platform.is_cpu())
        # vLLM's own lifespan is run by us, in `start` and `stop`: whoever serves `app` may or may not send one.
        await self._lifespan.enter_async_context(app.router.lifespan_context(app))
        self._card = self._describe(engine, arguments, tasks)
        return app

    def _describe(self, engine: AsyncLLM, arguments: Namespace, tasks: tuple[str, ...]) -> ModelCard:
        template = _template(engine, arguments)
        capabilities: list[str] = ["tokenize"]
        if "generate" in tasks:
            capabilities += ["completions", "echo", "logprobs", "prompt_logprobs"]
            capabilities += ["chat"] if template else []
        if self.context.spec.adapters is not None:
            capabilities.append("adapters")
        if "embed" in tasks:
            capabilities.append("embeddings")
        return ModelCard(
            name=self.context.name,
            backend="vllm",
            max_model_len=engine.model_config.max_model_len,
            dtype=str(engine.model_config.dtype).removeprefix("torch."),
            digest=self.context.digest,
            template_digest=hashlib.sha256(template.encode()).hexdigest() if template else "",
            capabilities=tuple(capabilities),
            root=str(self.context.model_path),
        )


def _template(engine: AsyncLLM, arguments: Namespace) -> str | None:
    template: Any = arguments.chat_template or getattr(engine.get_tokenizer(), "chat_template", None)
    return template if isinstance(template, str) else None
