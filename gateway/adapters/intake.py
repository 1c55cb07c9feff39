"""How an adapter comes in: brought from its source, held against its base, written into the registry; and how a
registered one comes onto this machine again. Blocks where it says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.adapters.registry import Registry
from gateway.adapters.sources import AdapterSourceOffer, Kept, absolute, bring, find_kept
from gateway.adapters.verify import Base, verify
from gateway.adapters.version import AdapterVersion, check_name
from gateway.errors import AdapterError
from gateway.types import AdapterFiles

Find = Callable[[str], AdapterSourceOffer]
"""A source's offer by its scheme: `Plugins.adapter_source`."""


async def add(
    registry: Registry,
    source: str,
    *,
    name: str,
    base: Base,
    find: Find,
    cache: Path,
    metrics: Mapping[str, Any] | None = None,
    wanted: bool = False,
) -> AdapterVersion:
    """Bring an adapter, verify it, and register it as the newest version of its name.

    What is the newest version already is not added again. Raises AdapterError that lists every problem; then nothing
    is registered.
    """
    check_name(name)
    source = absolute(source)
    kept, rank = await asyncio.to_thread(bring_and_verify, source, base, find, cache)
    same = [v for v in (await registry.catalog()).versions if (v.base, v.name) == (base.name, name)]
    if same and (same[-1].digest, same[-1].base_digest) == (kept.digest, base.digest):
        if metrics:
            await registry.set_metrics(same[-1], metrics)
        if wanted and not same[-1].wanted:
            await registry.set_wanted(same[-1], wanted)
        return same[-1]
    return await registry.add(
        base=base.name, name=name, base_digest=base.digest, digest=kept.digest, source=source, rank=rank,
        metrics=metrics, wanted=wanted,
    )  # fmt: skip


def bring_and_verify(source: str, base: Base, find: Find, cache: Path) -> tuple[Kept, int]:
    """The local copy and its largest rank. Blocks. Raises AdapterError."""
    kept = bring(source, find=find, cache=cache)
    try:
        return kept, verify(kept.path, base)
    except AdapterError as error:
        raise AdapterError(f"{source} {error.message}") from error


def files_of(version: AdapterVersion, base: Base, find: Find, cache: Path) -> AdapterFiles:
    """A registered version as a backend loads it, fetched again where this machine has no copy. Blocks.

    Raises AdapterError where it cannot be had, is no longer what was registered, or does not fit.
    """
    kept = find_kept(version.digest, cache) or bring(version.source, find=find, cache=cache)
    if kept.digest != version.digest:
        raise AdapterError(
            f"{version.source} is no longer what was registered as {version.label}: its digest is {kept.digest[:12]}, "
            f"{version.digest[:12]} was registered. Add it again, as a new version"
        )
    rank = verify(kept.path, base)
    return AdapterFiles(id=version.id, path=kept.path, digest=kept.digest, rank=rank)
