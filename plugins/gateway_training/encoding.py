"""From rows to tokens: the prompt as the gateway writes it for this model, and which tokens are the answer's.

An answer begins where the prompt of a request would end, so that training sees the very tokens that serving sees.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gateway.errors import ConfigError, InvalidRequest
from gateway.openai.tokenizer import HuggingFaceTokenizer
from gateway_training.options import TrainingOptions
from gateway_training.rows import BadRow, ChatRow, Rows, TextRow


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model reads it."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    """For each token, whether it is part of an answer: the loss is over these alone. Never the first."""

    @property
    def first(self) -> int:
        """Place of the first learned token."""
        return self.learned.index(True)


def encode(rows: Rows, tokenizer: HuggingFaceTokenizer, options: TrainingOptions) -> list[Example]:
    """Examples in the file's order. Rows that the template refuses, or that are too long, join the bad ones."""
    examples: list[Example] = []
    usable: list[tuple[int, ChatRow | TextRow]] = []
    for line, row in rows.good:
        try:
            example = _encode(row, tokenizer, options.as_chat)
            if len(example.ids) > options.max_length:
                raise ValueError(f"has {len(example.ids)} tokens, more than --max-length {options.max_length}")
        except (InvalidRequest, ValueError) as error:
            rows.bad.append(BadRow(line, str(error)))
            continue
        examples.append(example)
        usable.append((line, row))
    rows.good = usable
    return examples


def _encode(row: ChatRow | TextRow, tokenizer: HuggingFaceTokenizer, as_chat: bool) -> Example:
    if isinstance(row, TextRow):
        if not as_chat:
            return _text(row, tokenizer)
        turns = [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}]
        return _chat(turns, None, tokenizer)
    turns = [message.model_dump(exclude_unset=True) for message in row.messages]
    return _chat(turns, row.tools, tokenizer)


def _text(row: TextRow, tokenizer: HuggingFaceTokenizer) -> Example:
    prompt = tokenizer.encode(row.prompt)
    if not prompt:
        prompt = _end(tokenizer)
    answer = tokenizer.encode(row.completion, add_special_tokens=False) + _end(tokenizer)
    return Example((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


def _chat(turns: Sequence[dict[str, Any]], tools: list[Any] | None, tokenizer: HuggingFaceTokenizer) -> Example:
    ids: list[int] = []
    learned: list[bool] = []
    written = ""
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant" or turn.get("weight") == 0:
            continue
        if place == 0:
            raise ValueError("messages: the first one is an answer to nothing")
        prompt = tokenizer.render_chat(turns[:place], tools=tools)
        whole = tokenizer.render_chat(turns[: place + 1], tools=tools, add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise ValueError("messages: the model's chat template writes this answer where no prompt ends")
        if not prompt.startswith(written):
            # The template rewrote what went before (left out a thought): what was learned there, no request shows.
            ids, learned, written = [], [], ""
        before = tokenizer.encode(prompt[len(written) :], add_special_tokens=False)
        answer, written = _answer(whole, len(prompt), tokenizer)
        ids += before + answer
        learned += [False] * len(before) + [True] * len(answer)
    if not any(learned):
        raise ValueError("messages: no answer has a weight above 0: there is nothing to learn")
    return Example(tuple(ids), tuple(learned))


def _answer(whole: str, start: int, tokenizer: HuggingFaceTokenizer) -> tuple[list[int], str]:
    """The tokens of an answer and its end, and the text up to there: what a template writes after it is no answer."""
    for mark in (tokenizer.token_text(token_id) for token_id in sorted(tokenizer.eos_token_ids)):
        place = whole.rfind(mark, start) if mark else -1
        if place >= 0 and not whole[place + len(mark) :].strip():
            written = whole[: place + len(mark)]
            return tokenizer.encode(written[start:], add_special_tokens=False), written
    return tokenizer.encode(whole[start:], add_special_tokens=False) + _end(tokenizer), whole


def _end(tokenizer: HuggingFaceTokenizer) -> list[int]:
    if not tokenizer.eos_token_ids:
        raise ConfigError("the model names no end token: an adapter could not learn where answers end")
    own = tokenizer.encode(tokenizer.eos_token, add_special_tokens=False) if tokenizer.eos_token else []
    return own if len(own) == 1 else [min(tokenizer.eos_token_ids)]


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(to learn from, to measure on), by seed. Rows that say the same are never on both sides.

    Raises ConfigError where one side would be empty.
    """
    groups: dict[bytes, list[Example]] = {}
    for example in examples:
        groups.setdefault(hashlib.sha256(repr(example.ids).encode()).digest(), []).append(example)
    keys = sorted(groups)
    random.Random(seed).shuffle(keys)  # noqa: S311 (no secret)
    measured: list[Example] = []
    apart: set[bytes] = set()
    for key in keys[:-1]:
        if len(measured) >= max(1, round(share * len(examples))):
            break
        measured += groups[key]
        apart.add(key)
    learned = [example for key, group in groups.items() if key not in apart for example in group]
    if not measured:
        raise ConfigError("one different row is too few to learn from and to measure on: name more rows")
    return learned, measured


@lru_cache(maxsize=2)
def order(count: int, epoch: int, seed: int) -> list[int]:
    """The order of all rows in one epoch: known from the seed alone, so that a resumed training goes on in it."""
    return random.Random(f"{seed}:{epoch}").sample(range(count), count)  # noqa: S311 (no secret)


def batch_of(step: int, count: int, options: TrainingOptions) -> list[int]:
    """Places of the rows of one step, counted from 0."""
    size = min(options.batch_size, count)
    a_round = -(-count // size)
    epoch, place = divmod(step, a_round)
    return order(count, epoch, options.seed)[place * size : (place + 1) * size]
