"""A backend: an ASGI app with a lifecycle. Knows nothing of Ray; runs wherever somebody starts it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cache import cache_root
from gateway.errors import Unsupported
from gateway.types import AdapterFiles, ASGIApp, ModelCard

if TYPE_CHECKING:
    from gateway.config import ModelSpec


Report = Callable[[str, float], None]
"""Progress of long work: (what is being done, the share done from 0 to 1). Cheap; may be called from a thread."""


def silent(what: str, share: float) -> None:
    """A Report for nobody."""


@dataclass(frozen=True, slots=True)
class BackendContext:
    """Everything a backend is given when it is made."""

    name: str
    """The model's name in the config: what requests carry as `model`, what answers carry."""
    spec: ModelSpec
    model_path: Path | None
    """The model as a local folder in Hugging Face's layout (safetensors, tokenizer, chat template), already verified;
    None for a model without a source."""
    digest: str = ""
    """sha256 of the source the folder was made from; "" without one."""
    cache: Path = field(default_factory=cache_root)
    """Where a backend keeps what it converted, under names that begin with the digest."""


def no_adapters(context: BackendContext) -> Unsupported:
    """What a backend says that has none, or whose config makes no room for them."""
    wish = "" if context.spec.adapters is not None else f"; one that can is told to by `models.{context.name}.adapters`"
    return Unsupported(f"the {context.spec.backend} engine of {context.name} takes no adapters{wish}", param="model")


class Backend(ABC):
    """One model being served. Made cheaply (no heavy imports at module level), then started in the model's replica."""

    def __init__(self, context: BackendContext) -> None:
        self.context = context

    @abstractmethod
    async def start(self) -> None:
        """Load the model; then `app` answers. Blocking work belongs in threads: health checks share this loop."""

    @abstractmethod
    async def stop(self) -> None:
        """Release everything: threads, child processes, memory. Called once, also after a failed start."""

    async def check_health(self) -> None:  # noqa: B027 (a backend that cannot break has nothing to say)
        """Raise if this backend can no longer answer; its replica is then replaced. Cheap: called every few seconds."""

    @property
    @abstractmethod
    def app(self) -> ASGIApp:
        """Answers `/v1/…`, `/tokenize`, …; only after `start`. Gets `lifespan` too, and may ignore it."""

    @abstractmethod
    def card(self) -> ModelCard:
        """The model's facts; only after `start`."""

    @abstractmethod
    def running(self) -> int:
        """How many generations are in the engine now, waiting or being computed. Cheap; falls within a second of a
        client's leaving, which is how the backend contract sees that nobody computes for the departed."""

    async def load_adapter(self, adapter: AdapterFiles) -> None:
        """Bring an adapter beside the base; then the app answers to `adapter.id` as `model`. Requests go on meanwhile.

        Raises Unsupported where this backend has no adapters, AdapterError where it cannot be loaded; then nothing of
        it is left. Asked only where `spec.adapters` is set, once for each id, and for one at a time.
        """
        raise no_adapters(self.context)

    async def unload_adapter(self, id: str) -> None:
        """Release an adapter. Called after its last request has ended."""
        raise no_adapters(self.context)


BackendFactory = Callable[[BackendContext], Backend]
Prepare = Callable[[BackendContext, Report], None]
"""Convert a model once, ahead of its start, so that people see a progress bar; must be atomic and repeatable."""


@dataclass(frozen=True, slots=True)
class BackendOffer:
    """What a plugin registers: a name, a factory, and what can be prepared before a replica starts."""

    name: str
    factory: BackendFactory
    prepare: Prepare | None = None
    needs_source: bool = True
    """Whether a model of this backend must name its weights."""
    requires: tuple[str, ...] = ()
    """Modules that must be importable, checked before anything starts without importing them ("vllm")."""
