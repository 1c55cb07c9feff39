"""Tokens as the API tells them and as the page shows them."""

from __future__ import annotations

import pytest

from gateway.tabs import AskError
from gateway_playground.columns import differences, leaderboard
from gateway_playground.tokens import Token, boundaries, choices, heat_map, of_chat, of_echo, prefix, summary

ATTACK = "<img src=x onerror=alert(1)>\"'"


def test_a_heat_map_escapes_text_and_tips():
    shown = heat_map([Token(ATTACK, -0.01, ((ATTACK, -0.01),))], pickable=True)
    assert "<img" not in shown and 'class="token heat-9"' in shown and 'data-token="0"' in shown
    assert "\"'" not in shown.replace("&quot;", "").replace("&#x27;", "")
    assert "<img" not in boundaries([ATTACK], [7])


def test_halves_of_a_character_are_put_together():
    halves = [Token("�", -1, (), b"\xc3"), Token("�", -1, (), b"\xa9"), Token("!", -1)]
    assert prefix(halves) == "é!"


def test_an_answer_without_logprobs_is_told():
    for read in (of_chat, of_echo):
        with pytest.raises(AskError, match="gives no log-probabilities"):
            read({"choices": [{"logprobs": None}]})


def test_likelihood_is_summed_over_what_has_one():
    tokens = of_echo(
        {"choices": [{"logprobs": {
            "tokens": ["a", "b", "c"], "token_logprobs": [None, -1.0, -3.0],
            "top_logprobs": [None, {"x": -2.0, "b": -1.0}, {"c": -3.0}],
        }}]}
    )  # fmt: skip
    assert "log-likelihood -4.000 · 2 scored tokens · -2.000 per token · perplexity 7.39" in summary(tokens)
    assert [text for _, text in choices(tokens[1])] == ["b", "x"]
    assert "nothing stands before it" in summary(tokens[:1])


def test_word_differences_are_marked_and_escaped():
    assert differences("the red <b>", "the blue <b>") == "the <del>red</del><ins>blue</ins> &lt;b&gt;"
    assert differences("same", "same") == "same"


def test_a_leaderboard_escapes_names():
    row = {"rank": 1, "model": ATTACK, "rating": 1010.4, "low": 900.0, "high": 1100.0, "votes": 3}
    shown = leaderboard([row], 1)
    assert "<img" not in shown and "1010" in shown and "1 vote;" in shown
