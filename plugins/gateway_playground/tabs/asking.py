"""One answer at a time for one person's tab, which they can stop. Knows no page."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from gateway.tabs import PageClient
from gateway_playground.pace import Paced

UPDATE_S = 0.08
"""Between two updates of what is shown while an answer streams."""


@dataclass(slots=True, eq=False)
class Asking:
    """Kept for one browser tab. Holds no key and nothing that was said."""

    under_way: list[Paced[Any]] = field(default_factory=list[Paced[Any]])
    stopped: bool = False

    def __deepcopy__(self, memo: dict[int, object]) -> Asking:
        # A page that opens gets one of its own.
        return Asking()

    @property
    def busy(self) -> bool:
        return bool(self.under_way)

    def stop(self) -> None:
        """End every answer that streams, here and at the server."""
        self.stopped = True
        for paced in self.under_way:
            paced.stop()

    async def events(
        self, client: PageClient, path: str, key: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        """The chunks of a streamed answer, some at a time. Raises AskError; ends early where it was stopped."""
        if not self.under_way:
            self.stopped = False
        paced: Paced[dict[str, Any]] = Paced(client.events(path, key, {**body, "stream": True}), UPDATE_S)
        self.under_way.append(paced)
        try:
            async with aclosing(paced.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.under_way.remove(paced)


class Watch:
    """Measures one streamed answer."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.first_s: float | None = None
        self.total_s = 0.0
        self.tokens = 0

    def see(self, events: Iterable[Mapping[str, Any]]) -> None:
        self.total_s = time.perf_counter() - self._began
        for event in events:
            if event.get("choices") and self.first_s is None:
                self.first_s = self.total_s
            usage: Mapping[str, Any] = event.get("usage") or {}
            self.tokens = int(usage.get("completion_tokens") or self.tokens)

    def facts(self) -> str:
        """`12 tokens · first after 0.08 s · 0.61 s`."""
        said = [f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"] if self.tokens else []
        if self.first_s is not None:
            said.append(f"first after {self.first_s:.2f} s")
        return " · ".join([*said, f"{self.total_s:.2f} s"])


def path_of(models: Iterable[Mapping[str, Any]] | None, model: str) -> str:
    """Where to ask a model, by the rows of PageContext.models."""
    return next((str(row["path"]) for row in models or () if row["id"] == model), "/v1")
