"""Adapters on a CPU against the plain formula: each token its own adapter, the base none, slots taken by others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gateway_vllm.lora_kernels import Batch, add_lora_linear  # noqa: E402

SLOTS, RANK, IN = 4, 3, 10
OUT = (6, 4)


def stacks(seed: int = 0) -> tuple[list[Any], list[Any]]:
    generator = torch.Generator().manual_seed(seed)
    down = [torch.randn(SLOTS, 1, RANK, IN, generator=generator) for _ in OUT]
    return down, [torch.randn(SLOTS, 1, size, RANK, generator=generator) for size in OUT]


def plain(y: Any, x: Any, down: list[Any], up: list[Any], slots: list[int], scale: float) -> Any:
    y = y.clone()
    for row, slot in enumerate(slots):
        if slot >= 0:
            y[row] += scale * torch.cat([b[slot, 0] @ (a[slot, 0] @ x[row]) for a, b in zip(down, up, strict=True)])
    return y


def wrapper(batch: Batch, slots: list[int]) -> Any:
    return SimpleNamespace(gateway_batch=batch, sampler_indices=torch.tensor(slots))


@pytest.mark.parametrize("slots", [[0, 1, -1, 3, 1], [2, 2, 2, 2, 2], [-1, -1, -1, 0, -1], [-1] * 5])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_each_token_gets_its_own_adapter(slots: list[int], scale: float) -> None:
    down, up = stacks()
    x, y = torch.randn(5, IN), torch.randn(5, sum(OUT))
    batch = Batch()
    batch.update(torch.tensor(slots), [7, 8, 9, 10])
    expected = plain(y, x, down, up, slots, scale)
    add_lora_linear(wrapper(batch, slots), y, x, down, up, scale, OUT)
    torch.testing.assert_close(y, expected)


def test_tokens_of_the_base_stay_exactly_as_they_are() -> None:
    down, up = stacks()
    y = torch.randn(3, sum(OUT))
    before = y.clone()
    batch = Batch()
    batch.update(torch.tensor([-1, 3, -1]), [7, 8, 9, 10])
    add_lora_linear(wrapper(batch, []), y, torch.randn(3, IN), down, up, 1.0, OUT)
    assert torch.equal(y[[0, 2]], before[[0, 2]])
    assert not torch.equal(y[1], before[1])


def test_a_slot_that_another_adapter_took_is_read_again() -> None:
    down, up = stacks()
    batch, x = Batch(), torch.randn(2, IN)
    batch.update(torch.tensor([0, 1]), [7, 8, None, None])
    batch.layer(down, up)
    for each, other in zip((*down, *up), (*stacks(1)[0], *stacks(1)[1]), strict=True):
        each[1] = other[1]
    batch.update(torch.tensor([1, 1]), [7, 9, None, None])
    y = torch.zeros(2, sum(OUT))
    expected = plain(y, x, down, up, [1, 1], 1.0)
    add_lora_linear(wrapper(batch, []), y, x, down, up, 1.0, OUT)
    torch.testing.assert_close(y, expected)


def test_going_back_and_forth_between_adapters_copies_nothing_again() -> None:
    down, up = stacks()
    batch = Batch()
    for slots in ([0], [1], [0, 1]):
        batch.update(torch.tensor(slots), [7, 8, None, None])
    held = batch.layer(down, up)[0]
    for slots in ([0], [1], [-1], [1, 0]):
        batch.update(torch.tensor(slots), [7, 8, None, None])
        assert batch.layer(down, up)[0] is held


def test_half_precision_adds_to_outputs_of_another_type() -> None:
    down, up = ([each.bfloat16() for each in matrices] for matrices in stacks())
    x, y = torch.randn(2, IN), torch.zeros(2, sum(OUT))
    batch = Batch()
    batch.update(torch.tensor([1, 0]), [7, 8, None, None])
    expected = plain(y, x.bfloat16(), down, up, [1, 0], 1.0)
    add_lora_linear(wrapper(batch, []), y, x, down, up, 1.0, OUT)
    torch.testing.assert_close(y, expected, atol=0.3, rtol=0.05)


def test_room_is_made_for_as_many_adapters_as_may_be_resident() -> None:
    from gateway.config import AdaptersSpec
    from gateway.errors import ConfigError
    from gateway_vllm.adapters import room_for

    assert room_for(None, "m", (), cpu=True) == {}
    room = room_for(AdaptersSpec(max_resident=5, max_rank=20), "m", (), cpu=True)
    assert (room["enable_lora"], room["max_loras"], room["max_cpu_loras"], room["max_lora_rank"]) == (True, 5, 5, 32)
    assert "worker_extension_cls" in room
    assert "worker_extension_cls" not in room_for(AdaptersSpec(), "m", (), cpu=False)
    with pytest.raises(ConfigError, match=r"engine_args\.max_loras: is set by models\.m\.adapters"):
        room_for(AdaptersSpec(), "m", {"max_loras": 3}, cpu=True)
