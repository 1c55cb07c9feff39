"""Adapters in vLLM: room made for them at start, loaded and let go through its own list of served models. Each id is an
adapter of its own to vLLM, whose prefix cache is keyed by it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from gateway.errors import AdapterError, ConfigError
from gateway.types import AdapterFiles

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from gateway.config import AdaptersSpec

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `max_lora_rank`."""
_EXTENSION = "gateway_vllm.lora_kernels.Extension"


def room_for(spec: AdaptersSpec | None, name: str, chosen: Collection[str], *, cpu: bool) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs. All residents are in the engine's own slots, so that going from one to another
    costs nothing. `chosen`: names in `engine_args`. Raises ConfigError where those say the same."""
    if spec is None:
        return {}
    room: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": spec.max_resident,
        "max_cpu_loras": spec.max_resident,
        "max_lora_rank": next(rank for rank in _RANKS if rank >= spec.max_rank),
    }
    if cpu:
        room["worker_extension_cls"] = _EXTENSION
    for argument in room:
        if argument in chosen:
            raise ConfigError(
                f"models.{name}.options.engine_args.{argument}: is set by models.{name}.adapters; leave it out"
            )
    return room


class Adapters:
    """What is loaded in one engine."""

    def __init__(self, engine: AsyncLLM, models: Any) -> None:
        """`models`: the app's OpenAIServingModels."""
        self._engine = engine
        self._models = models
        self._cpu = False

    async def start(self, *, cpu: bool) -> None:
        """Before the first request."""
        self._cpu = cpu
        if cpu:
            await self._engine.collective_rpc("gateway_group_adapters")  # pyright: ignore[reportUnknownMemberType]

    async def load(self, adapter: AdapterFiles) -> None:
        """Raises AdapterError with vLLM's own reason."""
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        if self._cpu and _adapts_the_last_layer(adapter):
            raise AdapterError(f"vllm serves no adapter of lm_head on a CPU: train {adapter.id} without it")
        request = LoadLoRAAdapterRequest(lora_name=adapter.id, lora_path=str(adapter.path))
        said = await self._models.load_lora_adapter(request)
        if not isinstance(said, str):
            raise AdapterError(f"vllm refuses {adapter.id}: {' '.join(said.error.message.split())[:500]}")

    async def unload(self, id: str) -> None:
        """vLLM forgets the name by itself, and the matrices when it is told."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        request = self._models.lora_requests.get(id)
        if request is not None:
            await self._models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=id))
            await self._engine.remove_lora(request.lora_int_id)


def _adapts_the_last_layer(adapter: AdapterFiles) -> bool:
    import json

    try:
        with (adapter.path / "adapter_model.safetensors").open("rb") as file:
            header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, ValueError, MemoryError) as error:
        raise AdapterError(f"{adapter.id}: {adapter.path} cannot be read as an adapter: {error}") from error
    return any(".lm_head." in name for name in header)
