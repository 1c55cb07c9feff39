"""Sampling fields: what is sent, what is not, and what is told of a number that is none."""

from __future__ import annotations

import pytest

from gateway.tabs import AskError
from gateway_playground.sampling import NUMBERS, PRESETS, parameters, preset

NONE = [""] * len(NUMBERS)


def test_what_is_empty_is_not_sent():
    assert parameters(0.7, 10, NONE, "\n") == {"temperature": 0.7, "max_tokens": 10}
    assert parameters(0.7, 10, [None] * len(NUMBERS), "") == {"temperature": 0.7, "max_tokens": 10}


def test_everything_that_is_written_is_sent():
    written = ["0.9", " 40 ", "0,05", "-0.5", "1", "1.1", "-7"]
    assert parameters(0, 5, written, "END\n\n two ") == {
        "temperature": 0, "max_tokens": 5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "presence_penalty": -0.5,
        "frequency_penalty": 1.0, "repetition_penalty": 1.1, "seed": -7, "stop": ["END", " two "],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("top_p", "much", "Top p is a number, not “much”"),
        ("top_p", "1.5", "Top p is a number of at least 0 and at most 1, not 1.5"),
        ("top_p", "nan", "at least 0"),
        ("top_k", "2.5", "Top k is a whole number, not “2.5”"),
        ("seed", "1e3", "Seed is a whole number"),
        ("repetition_penalty", "-1", "at least 0"),
    ],
)
def test_what_is_no_such_number_is_told(name: str, text: str, says: str):
    with pytest.raises(AskError, match=says):
        parameters(0, 1, [text if number.name == name else "" for number in NUMBERS], "")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fill_fields_that_can_be_read(name: str):
    temperature, texts = preset(name)
    assert parameters(temperature, 1, texts, "") == {**PRESETS[name], "max_tokens": 1}
