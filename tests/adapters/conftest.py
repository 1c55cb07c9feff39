"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.registry import Registry
from gateway.adapters.version import AdapterVersion
from gateway.store import Store


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
