"""Bradley-Terry: known strengths are found again, intervals cover them, and odd battles are no crash."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.arena.strength import MIDDLE, Battle, strengths

TRUE = {"a": 1150.0, "b": 1000.0, "c": 850.0}


def drawn(seed: int, count: int = 600) -> Counter[Battle]:
    rng = random.Random(seed)
    battles: Counter[Battle] = Counter()
    for _ in range(count):
        one, other = rng.sample(sorted(TRUE), 2)
        chance = 1 / (1 + 10 ** ((TRUE[other] - TRUE[one]) / 400))
        battles[(one, other, float(rng.random() < chance))] += 1
    return battles


def test_the_order_and_the_distances_are_found():
    found = strengths(drawn(1, 6000))
    assert [one.name for one in found] == ["a", "b", "c"]
    for one in found:
        assert one.low < one.rating < one.high
        assert one.rating == pytest.approx(TRUE[one.name], abs=25)


def test_intervals_cover_what_is_true_about_as_often_as_they_say():
    covered = [
        one.low <= TRUE[one.name] <= one.high for seed in range(40) for one in strengths(drawn(seed), rounds=200)
    ]
    assert 0.88 <= sum(covered) / len(covered) <= 1


def test_two_sides_agree_with_the_closed_form():
    # 30 of 40: odds of three to one are 400 log10(3) = 190.8 points; the prior draws it in a little.
    first, second = strengths({("x", "y", 1): 30, ("y", "x", 1): 10})
    assert first.rating - second.rating == pytest.approx(190.8, abs=3)
    assert first.rating + second.rating == pytest.approx(2 * MIDDLE)
    assert (first.wins, first.losses, first.ties, first.battles) == (30, 10, 0, 40)


def test_few_votes_that_agree_are_no_certainty():
    def width(votes: int) -> float:
        first, _ = strengths({("x", "y", 1): votes})
        return first.high - first.low

    assert width(1) > 500
    assert width(1) > width(5) > width(50) > 50


def test_a_tie_is_half_a_win_for_each():
    assert [one.rating for one in strengths({("x", "y", 0.5): 7})] == pytest.approx([MIDDLE, MIDDLE])
    halves = strengths({("x", "y", 0.5): 20, ("x", "y", 1): 20})
    wins = strengths({("x", "y", 1): 30, ("x", "y", 0): 10})
    assert halves[0].rating == pytest.approx(wins[0].rating)


def test_who_never_lost_and_who_never_met_have_ratings_too():
    found = strengths({("x", "y", 1): 5, ("v", "w", 1): 1})
    ratings = {one.name: one.rating for one in found}
    assert ratings["x"] > ratings["v"] > ratings["w"] > ratings["y"]
    assert all(0 < rating < 2000 for rating in ratings.values())


def test_no_battles_are_no_strengths_and_odd_ones_are_refused():
    assert strengths({}) == []
    for battle, count in ((("x", "x", 1.0), 1), (("x", "y", 0.3), 1), (("x", "y", 1.0), -1)):
        with pytest.raises(ValueError, match="no battle"):
            strengths({battle: count})


def test_the_same_votes_give_the_same_board():
    assert strengths(drawn(3)) == strengths(drawn(3))
