"""Names become targets, in the order in which they are asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import plugins, routing
from gateway.config import parse
from gateway.errors import ModelNotFound
from gateway.types import Target

CONFIG = {
    "models": {"a": {"backend": "echo"}, "b": {"backend": "echo"}},
    "routes": {
        "in-order": {"targets": ["b", "a"]},
        "drawn": {"policy": "weighted", "targets": [{"model": "a", "weight": 3}, {"model": "b", "weight": 1}]},
    },
}
RNG = random.Random(1)


def table(**changes: object) -> routing.RouteTable:
    return routing.table(parse({**CONFIG, **changes}), plugins.load().policy)


def test_a_model_is_its_own_target() -> None:
    assert table().targets("b", RNG) == (Target("b"),)


def test_a_route_by_first_keeps_its_order() -> None:
    assert [target.model for target in table().targets("in-order", RNG)] == ["b", "a"]


def test_no_name_is_the_default() -> None:
    assert table().targets("", RNG) == (Target("a"),)
    assert [target.model for target in table(default_model="in-order").targets("", RNG)] == ["b", "a"]


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match="no model 'c' here; there are: a, b, in-order, drawn"):
        table().targets("c", RNG)
    with pytest.raises(ModelNotFound) as caught:
        table().targets("x" * 100_000, RNG)
    assert len(caught.value.message) < 300


def test_weighted_draws_by_weight_and_keeps_the_rest_as_fallbacks() -> None:
    rng, routes = random.Random(7), table()
    orders = [tuple(target.model for target in routes.targets("drawn", rng)) for _ in range(400)]
    counts = Counter(orders)
    assert set(counts) == {("a", "b"), ("b", "a")}
    # Three in four; 400 draws are within 5 standard deviations (0.02 each) of it.
    assert counts["a", "b"] / 400 == pytest.approx(0.75, abs=0.11)


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=8), st.integers())
def test_weighted_loses_nobody_whatever_the_weights(weights: list[float], seed: int) -> None:
    targets = [Target(str(index), weight) for index, weight in enumerate(weights)]
    ordered = routing.weighted(targets, random.Random(seed))
    assert sorted(target.model for target in ordered) == sorted(target.model for target in targets)
