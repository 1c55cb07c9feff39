"""The registry: versions, aliases, promotion and rollback, verdicts, removal, and what several processes see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.registry import Registry
from gateway.adapters.version import Place, read_reference
from gateway.errors import AdapterError, ModelNotFound
from gateway.store import Store


async def test_versions_count_up_and_what_was_told_is_kept(registry: Registry, add: Any) -> None:
    first = await add(metrics={"loss": 1.5})
    second = await add(digest="e" * 64)
    assert [first.version, second.version] == [1, 2]
    assert first.id == "support@1-dddddddddddd"
    found = await registry.find(read_reference("support@1"))
    assert (found.metrics, found.state, found.rank, found.base) == ({"loss": 1.5}, "verified", 8, "smollm2")
    assert (await registry.find(read_reference("smollm2:support"))).version == 2


async def test_two_processes_add_at_once_and_no_number_is_given_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gateway.db'}"
    stores = [Store(url), Store(url)]
    shared = [Registry(store) for store in stores]

    def more(registry: Registry) -> Any:
        return registry.add(base="b", name="n", base_digest="", digest="d", source="s", rank=1)

    added = await asyncio.gather(*(more(registry) for _ in range(8) for registry in shared))
    assert sorted(version.version for version in added) == list(range(1, 17))
    assert await shared[0].revision() == await shared[1].revision() == 16
    for store in stores:
        await store.close()


async def test_every_change_counts_the_revision_up(registry: Registry, add: Any) -> None:
    assert await registry.revision() == 0
    version = await add()
    await registry.promote(version)
    assert await registry.revision() == (await registry.catalog()).revision == 2


async def test_promote_and_rollback(registry: Registry, add: Any) -> None:
    versions = [await add(digest=f"{n}" * 64) for n in range(3)]
    for version in (versions[0], versions[2], versions[2], versions[1]):
        await registry.promote(version)
    assert (await registry.find(read_reference("support"))).version == 2
    assert (await registry.find(read_reference("support@prod"))).version == 2
    assert (await registry.rollback("smollm2", "support")).version == 3
    assert (await registry.rollback("smollm2", "support")).version == 1
    with pytest.raises(AdapterError, match="the first it ever had"):
        await registry.rollback("smollm2", "support")
    with pytest.raises(AdapterError, match="no alias 'beta'"):
        await registry.rollback("smollm2", "support", "beta")
    assert [alias.version for alias in await registry.history("smollm2", "support")] == [1]


async def test_a_rollback_skips_what_was_removed(registry: Registry, add: Any) -> None:
    versions = [await add(digest=f"{n}" * 64) for n in range(3)]
    for version in versions:
        await registry.promote(version)
    await registry.remove("smollm2", "support", 2)
    assert (await registry.rollback("smollm2", "support")).version == 1


async def test_one_that_is_worse_is_promoted_by_force_alone(registry: Registry, add: Any) -> None:
    version = await add()
    await registry.set_verdict(version, {"verdict": "worse", "p": 0.01})
    worse = await registry.find(read_reference("support"))
    with pytest.raises(AdapterError, match="--force"):
        await registry.promote(worse)
    await registry.promote(worse, force=True)
    await registry.set_state(worse, "failed", "wrong shapes")
    with pytest.raises(AdapterError, match="wrong shapes"):
        await registry.promote(await registry.find(read_reference("support")), force=True)


async def test_a_removed_number_is_never_given_again(registry: Registry, add: Any) -> None:
    await registry.promote(await add())
    with pytest.raises(AdapterError, match="promote another one first"):
        await registry.remove("smollm2", "support", 1)
    assert [version.version for version in await registry.remove("smollm2", "support")] == [1]
    with pytest.raises(AdapterError, match="no adapter support"):
        await registry.find(read_reference("support"))
    assert (await add()).version == 2
    assert (await registry.catalog()).aliases == (), "an alias of what was removed is gone with it"


@pytest.mark.parametrize("name", ["", "../up", "a:b", "a@b", "a/b", "x" * 65, ".hidden"])
async def test_names_that_cannot_be_are_refused(add: Any, name: str) -> None:
    with pytest.raises(AdapterError, match="letters, digits"):
        await add(name)


@pytest.mark.parametrize("text", ["", "a:b:c", "@1", "a@", "a@b@c", ":a", "../a", "a b"])
def test_references_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(AdapterError, match="is no adapter's name"):
        read_reference(text)


async def test_an_alias_is_no_number(registry: Registry, add: Any) -> None:
    with pytest.raises(AdapterError, match="a number is a version"):
        await registry.promote(await add(), "3")


async def test_a_name_that_two_bases_have_needs_its_base(registry: Registry, add: Any) -> None:
    await add(base="a", base_digest="1")
    await add(base="b", base_digest="2")
    with pytest.raises(AdapterError, match="say a:support or b:support"):
        await registry.find(read_reference("support"))
    assert (await registry.find(read_reference("b:support"))).base == "b"


async def test_a_bare_name_is_prod_else_the_newest_that_can_answer(registry: Registry, add: Any) -> None:
    versions = [await add(digest=f"{n}" * 64) for n in range(3)]
    await registry.set_place(versions[2], Place("smollm2", "failed", "changes nothing"))

    async def answers(text: str, model: str = "smollm2") -> int:
        return (await registry.catalog()).choose(model, "b" * 64, read_reference(text)).version

    assert await answers("support") == 2
    assert await answers("support", "another-engine") == 3, "what fails on one engine may do on another"
    assert await answers("support@1") == 1
    with pytest.raises(AdapterError, match="changes nothing"):
        await answers("support@3")
    await registry.promote(versions[0])
    assert await answers("support") == 1
    await registry.promote(versions[2])
    with pytest.raises(AdapterError, match="changes nothing"):
        await answers("support")
    for text, told in (("support@9", "it has: 1, 2, 3"), ("support@beta", "it has: @prod"), ("other", "it has: smoll")):
        with pytest.raises(ModelNotFound, match=told):
            await answers(text)
    await registry.clear_places(versions[2])
    assert await answers("support") == 3


async def test_models_with_the_same_weights_serve_it_too(registry: Registry, add: Any) -> None:
    await add("support")
    await add("intents", base="other-engine")
    await add("foreign", base_digest="f" * 64)
    catalog = await registry.catalog()
    assert [version.name for version in catalog.fitting("third-engine", "b" * 64)] == ["intents", "support"]
    digests = {"smollm2": "b" * 64, "other-engine": "b" * 64, "unlike": "c" * 64}
    assert catalog.owners("support", digests, digests) == ["smollm2"]
    assert catalog.owners("foreign", digests, digests) == []
    await registry.remove("smollm2", "support")
    await add("support", base="gone")
    catalog = await registry.catalog()
    assert catalog.owners("support", digests, digests) == ["smollm2", "other-engine"]
