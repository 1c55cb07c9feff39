"""What a request may not ask for, by its values, and how it is then to be sampled. Knows no engine but its limits.

Where a field would change the answer and no engine here can honour it, asking for it is an error, never a silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from gateway.engine import Sampling
from gateway.errors import ContextOverflow, InvalidRequest, Unsupported
from gateway.openai.requests import ChatRequest, CompletionRequest, GenerateRequest

MAX_LOGPROBS = 20
"""Alternatives per token, as OpenAI's chat endpoint and vLLM limit them."""
MAX_SEQUENCES = 1024
"""Sequences in one request: prompts × n."""
MAX_STOPS = 256
"""Stop strings in one request."""
MAX_STOP_LENGTH = 1024
"""Characters of a stop string: what could become one is held back and looked at again with every token."""
MAX_TOKEN_IDS = 1024
"""Tokens that one request biases, allows or stops at."""

_SHARED_REFUSED: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("length_penalty", (1,)),
    ("typical_p", (1,)),
    ("bad_words", ([],)),
    ("best_of", (1,)),
    ("use_beam_search", (False,)),
    ("logits_processors", ([],)),
    ("truncate_prompt_tokens", ()),
    ("prompt_embeds", ()),
    ("include_stop_str_in_output", (False,)),
    ("skip_special_tokens", (True,)),
    ("return_token_ids", (False,)),
    ("return_tokens_as_token_ids", (False,)),
)
REFUSED: dict[type[GenerateRequest], tuple[tuple[str, tuple[object, ...]], ...]] = {
    ChatRequest: (
        *_SHARED_REFUSED,
        ("echo", (False,)),
        ("functions", ([],)),
        ("function_call", ("none", "auto")),
        ("modalities", (["text"],)),
        ("audio", ()),
        ("documents", ([],)),
        ("chat_template", ()),
        ("web_search_options", ()),
        ("include_reasoning", (True,)),
    ),
    CompletionRequest: (*_SHARED_REFUSED, ("suffix", ("",))),
}
"""Fields that would change the answer, each with the values that would not. `null` never does."""

_VALUES: dict[type[GenerateRequest], Callable[[GenerateRequest], tuple[Any, ...]]] = {
    kind: attrgetter(*(name for name, _ in fields)) for kind, fields in REFUSED.items()
}
"""All of them at once: most requests hold none."""

_USUAL = frozenset(
    {"model", "messages", "stream", "stream_options", "temperature", "top_p", "top_k", "seed", "max_tokens",
     "max_completion_tokens", "ignore_eos", "chat_template_kwargs", "add_generation_prompt"}
)  # fmt: skip
"""What `check` and `fit` see to in every request, and what needs no check."""
_unusual = attrgetter(*(name for name in ChatRequest.__struct_fields__ if name not in _USUAL))


def is_plain(request: ChatRequest) -> bool:
    """Whether it asks for nothing but text, as most do: no tools, grammars, stops, copies, scores, penalties, and
    nothing that is refused."""
    values = _unusual(request)
    return values.count(None) == len(values)


def refuse_unsupported(request: GenerateRequest, engine: str) -> None:
    """Raise Unsupported, naming engine and feature, where the request asks for what would be ignored."""
    values = _VALUES[type(request)](request)
    if values.count(None) == len(values):
        return
    for (name, harmless), value in zip(REFUSED[type(request)], values, strict=True):
        if value is not None and value not in harmless:
            raise Unsupported(f"the {engine} engine does not support `{name}`", param=name)


def check(request: GenerateRequest, logprobs: int | None) -> None:
    """Raise InvalidRequest, naming the field, where a value is out of its range."""
    if request.temperature is not None and not 0 <= request.temperature < math.inf:
        raise InvalidRequest("`temperature` must be 0 or more", param="temperature")
    if request.top_p is not None and not 0 < request.top_p <= 1:
        raise InvalidRequest("`top_p` must be above 0 and at most 1", param="top_p")
    if request.top_k is not None and not -1 <= request.top_k < 2**31:
        raise InvalidRequest("`top_k` must be 1 or more, or 0 or -1 for no limit", param="top_k")
    if request.seed is not None and not -(2**63) <= request.seed < 2**63:
        raise InvalidRequest("`seed` must be a 64-bit integer", param="seed")
    if logprobs is not None and not 0 <= logprobs <= MAX_LOGPROBS:
        param = "logprobs" if isinstance(request, CompletionRequest) else "top_logprobs"
        raise InvalidRequest(f"`{param}` must be 0 to {MAX_LOGPROBS}", param=param)
    if request.prompt_logprobs is not None:
        if not 0 <= request.prompt_logprobs <= MAX_LOGPROBS:
            raise InvalidRequest(f"`prompt_logprobs` must be 0 to {MAX_LOGPROBS}", param="prompt_logprobs")
        if request.stream:
            raise InvalidRequest("`prompt_logprobs` cannot be streamed", param="prompt_logprobs")


_RULES = attrgetter(
    "logit_bias", "presence_penalty", "frequency_penalty", "repetition_penalty", "min_p", "min_tokens",
    "stop_token_ids", "allowed_token_ids",
)  # fmt: skip
_NO_RULES = (None,) * 8


def sampling(
    request: GenerateRequest, max_tokens: int, logprobs: int | None, copy: int = 0, *, vocabulary: int = 2**31
) -> Sampling:
    """How to sample the `copy`-th of a prompt's choices; of a checked request.

    `vocabulary`: how many token ids there are. Raises InvalidRequest, naming the field, for a penalty out of its range.
    """
    plain = Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=max(0, request.top_k or 0),
        # Generators take no negative seeds. Copies differ, and the first is what n=1 would give.
        seed=None if request.seed is None else (request.seed + copy) & (2**63 - 1),
        logprobs=logprobs,
        ignore_eos=bool(request.ignore_eos),
    )
    return plain if _RULES(request) == _NO_RULES else _with_rules(request, plain, vocabulary)


def _with_rules(request: GenerateRequest, plain: Sampling, vocabulary: int) -> Sampling:
    def number(name: str, least: float, most: float, default: float) -> float:
        value: float | None = getattr(request, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"`{name}` must be {least:g} to {most:g}", param=name)
        return default if value is None else value

    def ids(name: str, given: Sequence[int]) -> tuple[int, ...]:
        if len(given) > MAX_TOKEN_IDS:
            raise InvalidRequest(f"`{name}` may hold at most {MAX_TOKEN_IDS} tokens", param=name)
        if given and not 0 <= min(given) <= max(given) < vocabulary:
            raise InvalidRequest(f"`{name}`: token ids must be 0 to {vocabulary - 1}", param=name)
        return tuple(given)

    try:
        bias = {int(token): value for token, value in (request.logit_bias or {}).items()}
    except ValueError:
        raise InvalidRequest("`logit_bias` is told by token ids", param="logit_bias") from None
    ids("logit_bias", list(bias))
    if not all(-100 <= value <= 100 for value in bias.values()):
        raise InvalidRequest("`logit_bias` must be -100 to 100", param="logit_bias")
    if request.repetition_penalty is not None and request.repetition_penalty < 1e-3:
        raise InvalidRequest("`repetition_penalty` must be above 0", param="repetition_penalty")
    if request.allowed_token_ids == []:
        raise InvalidRequest("`allowed_token_ids` must hold at least one token", param="allowed_token_ids")
    least = 0 if request.min_tokens is None else request.min_tokens
    if not 0 <= least <= plain.max_tokens:
        raise InvalidRequest(f"`min_tokens` must be 0 to `max_tokens`, {plain.max_tokens} here", param="min_tokens")
    return msgspec.structs.replace(
        plain,
        logit_bias=bias or None,
        presence_penalty=number("presence_penalty", -2, 2, 0.0),
        frequency_penalty=number("frequency_penalty", -2, 2, 0.0),
        repetition_penalty=number("repetition_penalty", 0, 1e3, 1.0),
        min_p=number("min_p", 0, 1, 0.0),
        min_tokens=least,
        stop_token_ids=ids("stop_token_ids", request.stop_token_ids or ()),
        allowed_token_ids=None
        if request.allowed_token_ids is None
        else ids("allowed_token_ids", request.allowed_token_ids),
    )


def stops(request: GenerateRequest) -> tuple[str, ...]:
    """The stop strings; () without any."""
    if not request.stop:
        if request.stop == "":
            raise InvalidRequest("`stop` must not be an empty string", param="stop")
        return ()
    found = (request.stop,) if isinstance(request.stop, str) else tuple(dict.fromkeys(request.stop))
    if "" in found:
        raise InvalidRequest("`stop` must not hold an empty string", param="stop")
    if len(found) > MAX_STOPS:
        raise InvalidRequest(f"`stop` may hold at most {MAX_STOPS} strings", param="stop")
    if max(map(len, found)) > MAX_STOP_LENGTH:
        raise InvalidRequest(f"a stop string may have at most {MAX_STOP_LENGTH} characters", param="stop")
    return found


def copies(request: GenerateRequest, prompts: int) -> int:
    """How many choices each prompt gets."""
    n = 1 if request.n is None else request.n
    if n < 1:
        raise InvalidRequest("`n` must be 1 or more", param="n")
    if n * prompts > MAX_SEQUENCES:
        raise InvalidRequest(f"prompts × n may be at most {MAX_SEQUENCES}", param="n" if n > 1 else "prompt")
    return n


def fit(prompt: Sequence[int], max_tokens: int | None, room: int, vocabulary: int | None, param: str) -> int:
    """Tokens that may be made: `max_tokens`, or all that the context of `room` tokens leaves where None.

    `vocabulary`: None where the ids are the tokenizer's own, and need no check.
    Raises ContextOverflow where they do not fit, InvalidRequest where the prompt is empty or holds unknown ids.
    """
    length = len(prompt)
    if not length:
        raise InvalidRequest("the prompt is empty: at least one token is needed", param=param)
    if vocabulary is not None and not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise InvalidRequest(f"token ids must be 0 to {vocabulary - 1}", param=param)
    wanted = 1 if max_tokens is None else max_tokens
    if length + wanted > room:
        raise ContextOverflow(
            f"this model's context is {room} tokens: the prompt has {length} and {wanted} more were asked for",
            param=param,
        )
    return room - length if max_tokens is None else max_tokens
