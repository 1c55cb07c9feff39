"""The torch backend: a model folder in, the OpenAI surface out. Weights are read from safetensors alone, code never."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.backend import Backend, BackendContext, no_adapters
from gateway.engine import TextEngine, Tokenizer
from gateway.errors import AdapterError, ConfigError, Unavailable
from gateway.importing import importing
from gateway.openai import build_app, engine_info
from gateway.types import AdapterFiles, ASGIApp, ModelCard
from gateway_torch.engine import TorchEngine
from gateway_torch.options import read_options

if TYPE_CHECKING:
    from gateway_torch.model import LanguageModel
    from gateway_torch.scheduler import Scheduler

SPIN_COUNT = "10000"
"""How long a compute thread that waits for another keeps its core. With OpenMP's own 300,000 one busy process beside
the engine brought two cores from 218 tokens a second to almost none; without any, a quiet machine loses 40 %."""

CAPABILITIES = ("chat", "completions", "echo", "logprobs", "prompt_logprobs", "tokenize")


class TorchBackend(Backend):
    """Loads in `start`, in the thread that computes."""

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self._options = read_options(context.name, context.spec.options)
        if context.spec.dtype == "int4":
            raise ConfigError(
                f"models.{context.name}.dtype: the torch backend has no int4; it has bfloat16 and float32"
            )
        self._info = engine_info(context, "torch")
        self._scheduler: Scheduler | None = None
        self._engine: TorchEngine | None = None
        self._app: ASGIApp | None = None
        self._card: ModelCard | None = None
        self._config: Any = None

    async def start(self) -> None:
        folder = self.context.model_path
        if folder is None:
            raise ConfigError(f"models.{self.context.name}.source: the torch backend needs weights; name a source")
        tokenizer = await asyncio.to_thread(_tokenizer, folder)
        self._scheduler = await asyncio.to_thread(self._make_scheduler, folder, tokenizer.eos_token_ids)
        model = await self._scheduler.start()
        self._engine = TorchEngine(self._scheduler, tokenizer, model.max_model_len, model.vocab_size)
        self._config = model.config
        template = tokenizer.chat_template or ""
        self._card = ModelCard(
            name=self.context.name,
            backend="torch",
            max_model_len=model.max_model_len,
            dtype=model.dtype,
            digest=self.context.digest,
            template_digest=hashlib.sha256(template.encode()).hexdigest() if template else "",
            capabilities=(
                *(CAPABILITIES if template else CAPABILITIES[1:]),
                *(("adapters",) if self.context.spec.adapters is not None else ()),
            ),
            root=str(folder),
        )
        info = msgspec.structs.replace(self._info, extra={"root": str(folder)})
        self._app = build_app(self._engine, info, health=self._health)

    def _make_scheduler(self, folder: Path, eos: frozenset[int]) -> Scheduler:
        # In a thread: this is where torch is imported, which takes seconds. OpenMP reads its settings then.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
        with importing():
            from gateway_torch.scheduler import Scheduler

        spec = self.context.spec
        options = self._options

        def load() -> LanguageModel:
            from gateway_torch.model import LanguageModel, pick_device

            return LanguageModel(folder, pick_device(options.device), spec.dtype, spec.max_model_len)

        return Scheduler(load, options, spec.resources.threads or len(os.sched_getaffinity(0)), eos)

    async def stop(self) -> None:
        if self._scheduler is not None:
            await self._scheduler.stop()
        self._app = self._engine = self._scheduler = None

    async def check_health(self) -> None:
        self._health()

    def _health(self) -> dict[str, int]:
        if self._scheduler is None or not self._scheduler.healthy:
            raise Unavailable(f"the engine of {self.context.name} has stopped")
        return {"running": self._scheduler.running()}

    @property
    def app(self) -> ASGIApp:
        if self._app is None:
            raise Unavailable(f"{self.context.name} has not started")
        return self._app

    @property
    def engine(self) -> TextEngine:
        """The typed engine under the app; only after `start`."""
        if self._engine is None:
            raise Unavailable(f"{self.context.name} has not started")
        return self._engine

    def card(self) -> ModelCard:
        if self._card is None:
            raise Unavailable(f"{self.context.name} has not started")
        return self._card

    async def load_adapter(self, adapter: AdapterFiles) -> None:
        """Read beside the steps; only placed between two of them."""
        room = self.context.spec.adapters
        if room is None:
            raise no_adapters(self.context)
        if self._scheduler is None or self._engine is None or self._config is None:
            raise Unavailable(f"{self.context.name} has not started")
        if adapter.rank > room.max_rank:
            where = f"models.{self.context.name}.adapters.max_rank"
            raise AdapterError(f"{adapter.id}: its rank {adapter.rank} is more than {room.max_rank} ({where})")
        from gateway_torch.lora_files import read_lora

        matrices = await asyncio.to_thread(read_lora, adapter.path, self._config)
        await self._scheduler.change(lambda model: model.adapters.add(adapter.id, matrices))
        self._engine.adapters.add(adapter.id)

    async def unload_adapter(self, id: str) -> None:
        if self._engine is not None and self._scheduler is not None:
            self._engine.adapters.discard(id)
            # A row that its client has left is let go a step later.
            await self._scheduler.drained(id)
            await self._scheduler.change(lambda model: model.adapters.remove(id))

    def running(self) -> int:
        return self._scheduler.running() if self._scheduler is not None else 0


def _tokenizer(folder: Path) -> Tokenizer:
    from gateway.openai.tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer(folder)
