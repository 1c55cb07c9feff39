"""The onnx backend: ties conversion, graph, batch and engine to the gateway's lifecycle."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

from gateway.backend import Backend, BackendContext, no_adapters, silent
from gateway.errors import AdapterError, Unavailable
from gateway.openai import build_app, engine_info
from gateway.openai.tokenizer import HuggingFaceTokenizer
from gateway.types import AdapterFiles, ASGIApp, ModelCard
from gateway_onnx.batch import Batch
from gateway_onnx.continuous import BatchLimits, ContinuousBatch
from gateway_onnx.conversion import converted
from gateway_onnx.engine import OnnxEngine
from gateway_onnx.genai import GenaiBatch
from gateway_onnx.graph import DecoderGraph, lora_session
from gateway_onnx.lora_files import read_lora
from gateway_onnx.options import Plan, parse_options, plan
from gateway_onnx.scoring import Scorer
from gateway_onnx.session import LoraSession


class OnnxBackend(Backend):
    """One model on ONNX Runtime. Raises ConfigError at once where its options are wrong."""

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        parse_options(context)
        self._info = engine_info(context, "onnx")
        self._plan: Plan | None = None
        self._engine: OnnxEngine | None = None
        self._lora: LoraSession | None = None
        self._app: ASGIApp | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._load)
        self._app = build_app(self._started, self._info)

    def _load(self) -> None:
        context = self.context
        made = self._plan = plan(context)
        room = context.spec.adapters is not None
        folder = converted(context, made, silent)
        # The folder it was converted from is the whole truth; the converted one holds what the builder thought of.
        tokenizer = HuggingFaceTokenizer(context.model_path or folder)
        length = _context_length(folder)
        length = min(length, context.spec.max_model_len or length)
        streams = made.options.max_batch_size + made.options.max_waiting
        eos = tokenizer.eos_token_ids
        lora = None
        if room:
            lora = self._lora = lora_session(folder, threads=made.threads, spinning=made.options.spinning)
        engine = OnnxEngine(
            lambda: _batch(folder, made, length, eos, lora), tokenizer, length, max_streams=streams,
            scores_prompts=made.batching == "rows",
        )  # fmt: skip
        self._engine = engine
        engine.open()

    async def stop(self) -> None:
        if self._engine is not None:
            await asyncio.to_thread(self._engine.close)

    async def check_health(self) -> None:
        self._started.check()

    @property
    def app(self) -> ASGIApp:
        if self._app is None:
            raise Unavailable("the onnx backend has not started")
        return self._app

    @property
    def engine(self) -> OnnxEngine:
        """The engine under the app, for whoever wants tokens without HTTP; only after `start`."""
        return self._started

    def running(self) -> int:
        return self._engine.running() if self._engine is not None else 0

    def card(self) -> ModelCard:
        engine, made = self._started, self._plan
        if made is None:
            raise Unavailable("the onnx backend has not started")
        template = engine.tokenizer.chat_template
        capabilities = ["completions", "tokenize"]
        if template is not None:
            capabilities.append("chat")
        if made.provider == "cpu":
            capabilities += ["echo", "logprobs", "prompt_logprobs"]
        if self.context.spec.adapters is not None:
            capabilities.append("adapters")
        return ModelCard(
            name=self.context.name,
            backend="onnx",
            max_model_len=engine.max_model_len,
            dtype=made.dtype,
            digest=self.context.digest,
            template_digest=hashlib.sha256(template.encode()).hexdigest() if template is not None else "",
            capabilities=tuple(capabilities),
            root=str(self.context.model_path or ""),
        )

    async def load_adapter(self, adapter: AdapterFiles) -> None:
        """Read beside the steps, and the graph that takes adapters opened there with the first; placed between two."""
        room = self.context.spec.adapters
        if room is None or self._lora is None:
            raise no_adapters(self.context)
        if adapter.rank > room.max_rank:
            where = f"models.{self.context.name}.adapters.max_rank"
            raise AdapterError(f"{adapter.id}: its rank {adapter.rank} is more than {room.max_rank} ({where})")
        matrices = await asyncio.to_thread(read_lora, adapter.path)
        await asyncio.to_thread(self._lora.open)
        await self._started.load(adapter.id, matrices)

    async def unload_adapter(self, id: str) -> None:
        if self._engine is not None:
            await self._engine.unload(id)

    @property
    def _started(self) -> OnnxEngine:
        if self._engine is None:
            raise Unavailable("the onnx backend has not started")
        return self._engine


def _batch(folder: Path, made: Plan, length: int, eos: frozenset[int], lora: LoraSession | None) -> Batch:
    options = made.options

    def graph() -> DecoderGraph:
        return DecoderGraph(folder, threads=made.threads, spinning=options.spinning, lora=lora)

    if made.batching == "rows":
        limits = BatchLimits(options.max_batch_size, options.prefill_chunk, options.cache_gb * 2**30, length, eos)
        return ContinuousBatch(graph(), limits)

    def scorer() -> Scorer:
        return Scorer(graph(), length, options.prefill_chunk)

    return GenaiBatch(folder, made, length, eos, scorer if made.provider == "cpu" else None)


def _context_length(folder: Path) -> int:
    config: Any = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    return int(config["model"]["context_length"])
