"""What clients may ask, as typed structs: decoded once, leniently to unknown fields. Knows no engine."""

from __future__ import annotations

import json
import math
import re
from typing import Any, TypeVar, cast

import msgspec

from gateway.errors import InvalidRequest

Text = str | list[str | int | list[int] | dict[str, Any]]
"""`prompt` as clients send it: a string, strings, ids, lists of ids, or (for `/tokenize`) messages."""


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerateRequest(msgspec.Struct):
    """The fields that chat and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    n: int | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: int | None = None
    # Grammars, each in its own shape; see grammar_request.
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None
    logit_bias: dict[str, float] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    allowed_token_ids: list[int] | None = None
    # What no engine of ours honours; see checks.REFUSED.
    length_penalty: Any = None
    typical_p: Any = None
    bad_words: Any = None
    best_of: Any = None
    use_beam_search: Any = None
    logits_processors: Any = None
    truncate_prompt_tokens: Any = None
    prompt_embeds: Any = None
    include_stop_str_in_output: Any = None
    skip_special_tokens: Any = None
    return_token_ids: Any = None
    return_tokens_as_token_ids: Any = None


class ChatRequest(GenerateRequest):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = msgspec.field(default_factory=list[dict[str, Any]])
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    echo: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    documents: Any = None
    chat_template: Any = None
    continue_final_message: bool | None = None
    web_search_options: Any = None
    reasoning_effort: str | None = None
    include_reasoning: Any = None


class CompletionRequest(GenerateRequest):
    """POST /v1/completions."""

    prompt: Text | None = None
    logprobs: int | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None
    suffix: Any = None


class TokenizeRequest(msgspec.Struct):
    """POST /tokenize."""

    prompt: Text | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool | None = None
    tools: Any = None
    tool_choice: Any = None


class DetokenizeRequest(msgspec.Struct):
    """POST /detokenize."""

    tokens: list[int]


R = TypeVar("R", bound=msgspec.Struct)
_PATH = re.compile(r"(?: - at `\$\.?(.+)`|missing required field `(.+)`)")


def decode(decoder: msgspec.json.Decoder[R], body: bytes) -> R:
    """A request from its bytes. Raises InvalidRequest that names the field, whatever the bytes are."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error))
        param = (found[1] or found[2]) if found else None
        raise InvalidRequest(str(error), param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}", param=_not_a_number(body)) from error
    except RecursionError as error:
        raise InvalidRequest("the body is nested too deeply") from error


def _not_a_number(body: bytes) -> str | None:
    """The top-level field that holds NaN or Infinity: Python clients write these, JSON has no such numbers."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    for name, value in cast(dict[str, Any], data).items():
        if isinstance(value, float) and not math.isfinite(value):
            return name
    return None
