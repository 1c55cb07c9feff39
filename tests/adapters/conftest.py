"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.registry import Registry
from gateway.adapters.version import AdapterVersion
from gateway.store import Store
from tests.adapters.house import House


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    store = Store(f"sqlite:///{tmp_path / 'gateway.db'}")
    yield Registry(store)
    await store.close()


Add = Callable[..., Coroutine[Any, Any, AdapterVersion]]


@pytest.fixture
def add(registry: Registry) -> Add:
    """`await add("support", digest="…")`: one more version."""

    async def more(name: str = "support", digest: str = "d" * 64, base: str = "smollm2", **more: Any) -> AdapterVersion:
        return await registry.add(
            **{"base": base, "name": name, "base_digest": "b" * 64, "digest": digest, "source": "x", "rank": 8, **more}
        )

    return more


@pytest.fixture
async def house(tmp_path: Path, smollm2_folder: Path) -> AsyncIterator[Callable[..., House]]:
    """Make a gateway that keeps up with its registry: `house({"echo": {"adapters": {}}}, replicas=2)`."""
    opened: list[House] = []

    def make(models: dict[str, Any] | None = None, *, replicas: int = 1, start: bool = True) -> House:
        made = House(tmp_path, smollm2_folder, models or {"echo": {"adapters": {}}}, replicas)
        opened.append(made)
        if start:
            made.start()
        return made

    yield make
    for each in opened:
        await each.close()
