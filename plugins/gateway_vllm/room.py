"""Answers that cannot fit into the context: vLLM cuts `max_tokens` to what is left of it in silence, where every other
engine refuses. The only room that changes a function of vLLM's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import ModuleType


def refuse_what_cannot_fit() -> None:
    """Let vLLM's chats and completions refuse it too. Once or often, before or after the app is made."""
    from vllm.entrypoints.openai.chat_completion import serving as chat
    from vllm.entrypoints.openai.completion import serving as completion

    for module in (chat, completion):
        _guard(module)


def _guard(module: ModuleType) -> None:
    count: Callable[..., int] = module.get_max_tokens
    if not hasattr(count, "__wrapped__"):
        module.__dict__["get_max_tokens"] = strictly(count)


def strictly(count: Callable[..., int]) -> Callable[..., int]:
    """vLLM's `get_max_tokens`, which raises ValueError, as for a prompt that is too long, where it would cut."""

    @wraps(count)
    def counted(max_model_len: int, max_tokens: int | None, input_length: int, *rest: object, **more: object) -> int:
        room = count(max_model_len, max_tokens, input_length, *rest, **more)
        if max_tokens is not None and more.get("truncate_prompt_tokens") is None:
            left = max_model_len - input_length
            if max_tokens > left:
                raise ValueError(
                    f"This model's maximum context length is {max_model_len} tokens: {input_length} of the prompt "
                    f"leave no room for max_tokens={max_tokens}."
                )
        return room

    return counted
