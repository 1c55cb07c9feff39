"""Reads `prompt` in each of its forms, and turns text into ids without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, cast

from gateway.engine import Tokenizer
from gateway.errors import ContextOverflow, InvalidRequest
from gateway.openai.requests import Text

LONG_TEXT = 20_000
"""Characters beyond which tokenizing goes to a thread: about ten milliseconds of a fast tokenizer."""


class Prompt(NamedTuple):
    """One prompt: its ids, and its text where it came as text."""

    ids: list[int]
    text: str | None


async def encode(
    tokenizer: Tokenizer, text: str, *, add_special_tokens: bool, room: int | None = None, param: str = "prompt"
) -> list[int]:
    """Ids of a text of any length.

    Raises ContextOverflow, without tokenizing it, where it could not be `room` tokens if each were the longest one.
    """
    if len(text) <= LONG_TEXT:
        return tokenizer.encode(text, add_special_tokens=add_special_tokens)
    longest: int | None = getattr(tokenizer, "longest_token", None)
    if room is not None and longest is not None and len(text) > room * longest:
        message = f"this model's context is {room} tokens: {len(text)} characters are more than would ever fit"
        raise ContextOverflow(message, param=param)
    return await asyncio.to_thread(tokenizer.encode, text, add_special_tokens=add_special_tokens)


async def read_prompts(
    prompt: Text | None, tokenizer: Tokenizer, *, add_special_tokens: bool, room: int | None = None
) -> list[Prompt]:
    """One or many prompts, in order. Ids are used as they are. Raises InvalidRequest for what is none of the forms,
    ContextOverflow for a text that is longer than any of `room` tokens."""
    if isinstance(prompt, str):
        return [Prompt(await encode(tokenizer, prompt, add_special_tokens=add_special_tokens, room=room), prompt)]
    if not prompt:
        raise InvalidRequest("`prompt` is missing or empty", param="prompt")
    if all(isinstance(item, int) for item in prompt):
        return [Prompt(cast(list[int], prompt), None)]
    if all(isinstance(item, str) for item in prompt):
        return [
            Prompt(await encode(tokenizer, text, add_special_tokens=add_special_tokens, room=room), text)
            for text in cast(list[str], prompt)
        ]
    if all(isinstance(item, list) for item in prompt):
        return [Prompt(ids, None) for ids in cast(Sequence[list[int]], prompt)]
    raise InvalidRequest("`prompt` must be a string, strings, token ids, or lists of token ids", param="prompt")
