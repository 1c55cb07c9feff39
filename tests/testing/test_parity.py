"""Parity: what is read of a model, and how two readings are set beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.parity import Reading, check_tokens, compare, load_prompts, read, tokenize


def test_texts_that_part_are_compared_up_to_there() -> None:
    one = Reading([1, 2, 3], [-1.0, -2.0], ["g", "h", "i"], [-0.1, -0.2, -0.3])
    other = Reading([1, 2, 3], [-1.0, -2.5], ["g", "i", "i"], [-0.2, -0.9, -0.9])
    pair = compare("a", "b", ["x", "y"], [one, one], [other, one])
    assert (pair.identical, pair.earliest) == (0.5, 1)
    assert [row.divergence for row in pair.prompts] == [1, None]
    assert [row.compared for row in pair.prompts] == [1, 3]
    assert pair.prompt_max == 0.5
    assert pair.prompt_mean == pytest.approx(0.5 / 4)
    # Of the first prompt only the token before they part, of the second all.
    assert pair.made_max == pytest.approx(0.1)
    assert pair.made_mean == pytest.approx(0.1 / 4)


def test_a_text_that_ends_earlier_parts_there() -> None:
    long, short = Reading([1], [], ["g", "h"], [-1.0, -1.0]), Reading([1], [], ["g"], [-1.0])
    pair = compare("a", "b", ["x"], [long], [short])
    assert pair.prompts[0].divergence == 1
    assert pair.prompt_max is None


def test_other_tokens_are_another_model() -> None:
    with pytest.raises(ConfigError, match="a and b read 'x' as different tokens"):
        compare("a", "b", ["x"], [Reading([1], [], [], [])], [Reading([2], [], [], [])])
    check_tokens(["x", "y"], {"a": [[1], [2]], "b": [[1], [2]]})
    with pytest.raises(ConfigError, match="a and c read 'y' as different tokens"):
        check_tokens(["x", "y"], {"a": [[1], [2]], "b": [[1], [2]], "c": [[1], [3]]})


def test_ids_tell_tokens_of_one_text_apart_where_both_tell_them() -> None:
    seven, eight, silent = (Reading([1], [], ["a"], [-1.0], ids) for ids in ([7], [8], None))
    assert compare("a", "b", ["x"], [seven], [eight]).earliest == 0
    assert compare("a", "b", ["x"], [seven], [silent]).earliest is None


def test_our_prompts_are_there_and_others_are_checked(tmp_path: Path) -> None:
    assert len(load_prompts()) == 20
    path = tmp_path / "prompts.jsonl"
    for line, reason in (
        ('{"prompt": 1}', "prompts.jsonl:1: "),
        ("{}", "one of `prompt` and `messages`"),
        ('{"text": "a"}', "unknown field"),
        ("", "holds no prompt"),
    ):
        path.write_text(line)
        with pytest.raises(ConfigError, match=reason):
            load_prompts(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_prompts(tmp_path / "nowhere")


async def test_a_model_is_read_and_equals_itself(echo: Any) -> None:
    prompts = load_prompts()[-7:]
    seen: list[str] = []
    async with echo() as served:
        readings = await read(served, prompts, await tokenize(served, prompts), 8, seen.append)
        for prompt, reading in zip(prompts, readings, strict=True):
            asked = {"messages": prompt.messages} if prompt.messages else {"prompt": prompt.prompt}
            assert list(reading.prompt) == (await served.post("/tokenize", **asked))["tokens"]
    assert seen == [prompt.label() for prompt in prompts]
    assert all(len(one.scores) == len(one.prompt) - 1 and len(one.texts) == 8 for one in readings)
    pair = compare("a", "b", seen, readings, readings)
    assert (pair.identical, pair.prompt_max, pair.made_max) == (1.0, 0.0, 0.0)
