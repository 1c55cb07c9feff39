"""What a backend without an HTTP surface offers: a typed engine that `gateway.openai.build_app` dresses as an API.

An engine speaks token ids. Chat templates, detokenizing, stop strings, JSON and streams belong to `gateway.openai`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from gateway.errors import Unsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FinishReason = Literal["stop", "length"]
"""`stop`: the engine met an end token. `length`: `max_tokens` were made."""


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are chosen. Fields are validated before an engine sees them."""

    max_tokens: int
    """At least 1; prompt plus max_tokens fits the context."""
    temperature: float = 1.0
    """0 is greedy: the largest logit, the lowest id among equals."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no limit."""
    seed: int | None = None
    """With a seed, the same request gives the same tokens whatever runs beside it."""
    logprobs: int | None = None
    """None: no log-probabilities. k ≥ 0: that of each token, and its k best alternatives."""
    ignore_eos: bool = False
    """Go on past end tokens until `max_tokens`."""
    min_p: float = 0.0
    """Tokens less likely than this share of the likeliest one's probability, after temperature, are not drawn."""
    min_tokens: int = 0
    """No end token and no stop token before so many tokens are made."""
    stop_token_ids: tuple[int, ...] = ()
    """These end the sequence as end tokens do, also with `ignore_eos`."""
    logit_bias: Mapping[int, float] | None = None
    """Added to the logits of these tokens."""
    presence_penalty: float = 0.0
    """Taken from the logit of every token that was generated."""
    frequency_penalty: float = 0.0
    """Taken from it once for each time that it was."""
    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of all tokens of the prompt and the answer."""
    allowed_token_ids: tuple[int, ...] | None = None
    """Only these are chosen; None: all."""


class Constraint(Protocol):
    """What the next token of one sequence may be: a grammar and the place reached in it. Used by one thread at a time,
    the engine's; quick (tens of microseconds) and free of the interpreter's lock."""

    def allow(self, mask: NDArray[np.int32]) -> None:
        """Fill `mask` `[ceil(vocabulary / 32)]`: bit `i % 32` of word `i // 32` is 1 where token `i` may come next.
        Ids beyond the tokenizer's are 0."""
        ...

    def accept(self, token_id: int) -> None:
        """The token that was chosen, one that `allow` allowed. Called once for every token."""
        ...


class Generation(msgspec.Struct, frozen=True):
    """One sequence to be continued. A request with `n` choices is `n` of these, with seeds of their own."""

    id: str
    prompt: Sequence[int]
    """Token ids, at least one; used as they are: the engine adds no BOS."""
    sampling: Sampling
    constraint: Constraint | None = None
    """What its tokens must obey; an end token is among the allowed ones where the text may end."""
    prompt_logprobs: int | None = None
    """k ≥ 0: the first delta brings the prompt's scores with k alternatives, as `score` would. Asked only of engines
    that have `scores_prompts = True`: they compute a prompt once for both."""
    adapter: str | None = None
    """Id of the adapter that computes it, one that the backend has loaded; None: the base alone."""


_RULES: tuple[tuple[str, object], ...] = (
    ("logit_bias", None),
    ("presence_penalty", 0),
    ("frequency_penalty", 0),
    ("repetition_penalty", 1),
    ("min_tokens", 0),
    ("allowed_token_ids", None),
)
_rules = attrgetter(*(name for name, _ in _RULES))
_NO_RULES = tuple(harmless for _, harmless in _RULES)


def changes_logits(generation: Generation) -> bool:
    """Whether anything but the model decides over its logits."""
    return generation.constraint is not None or _rules(generation.sampling) != _NO_RULES


def refuse_rules(generation: Generation, engine: str) -> None:
    """For engines that leave logits as they are: raise Unsupported, naming the first field that asks for more."""
    if not changes_logits(generation) and not generation.sampling.stop_token_ids:
        return
    name = "response_format"
    if generation.constraint is None:
        asked = zip(_RULES, _rules(generation.sampling), strict=True)
        name = next((name for (name, harmless), value in asked if value != harmless), "stop_token_ids")
    raise Unsupported(f"the {engine} engine does not support `{name}`", param=name)


class TokenLogprob(msgspec.Struct, frozen=True):
    """Natural-log probability of one token from the model's own distribution (before grammars, biases, penalties,
    temperature, top_p and top_k), as OpenAI and vLLM report it, with the best alternatives of that position."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob), best first: exactly `Sampling.logprobs` entries; the chosen token may not be among them."""
    rank: int | None = None
    """Of a prompt's token: 1 for the likeliest, one more for each token that is likelier."""


class Delta(msgspec.Struct, frozen=True):
    """What became ready since the last one. An engine ahead of its reader joins tokens; it never waits to do so."""

    token_ids: Sequence[int]
    """New tokens in order; an end token that stopped the sequence is included, so that it is counted."""
    logprobs: Sequence[TokenLogprob] | None = None
    """One for each token, where asked."""
    finish_reason: FinishReason | None = None
    """Set on the last delta only."""
    cached_tokens: int = 0
    """Prompt tokens that came from a cache."""
    prompt_logprobs: Sequence[TokenLogprob | None] | None = None
    """In the first delta, where the generation asked."""


class DecodeStream(Protocol):
    """Turns tokens of one sequence into text as they come; holds back what is half of a UTF-8 character."""

    def step(self, token_ids: Sequence[int]) -> str:
        """The text that these tokens complete; may be "". Special tokens give no text."""
        ...

    def flush(self) -> str:
        """What was held back, with U+FFFD where bytes make no character."""
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. All calls are quick enough for the event loop, except `encode` of long texts."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None
    eos_token_ids: frozenset[int]
    """Every id that ends a sequence."""
    vocab_size: int

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str: ...

    def token_text(self, token_id: int) -> str:
        """One token alone, as `logprobs` shows it, special tokens spelled out."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The raw bytes of one token: halves of UTF-8 characters as they are."""
        ...

    def decode_stream(self) -> DecodeStream: ...

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **template_kwargs: Any) -> str:
        """The prompt text of a conversation by the model's own chat template, sandboxed.

        `template_kwargs`: `add_generation_prompt` (default True), `tools`, and whatever `chat_template_kwargs` brought.
        Raises InvalidRequest where the template refuses the messages.
        """
        ...


@runtime_checkable
class TextEngine(Protocol):
    """Prompt ids in, token deltas out. Requests in flight together are computed together."""

    tokenizer: Tokenizer
    max_model_len: int

    def generate(self, generation: Generation) -> AsyncIterator[Delta]:
        """Continue one sequence. Closing the iterator (`aclose`, cancellation) stops the computation within a second.

        Raises Unsupported for what this engine cannot do, Unavailable where it is full or dead.
        """
        ...

    async def score(self, prompt: Sequence[int], top: int) -> list[TokenLogprob | None]:
        """Log-probability of every prompt token given those before it: one entry a token, the first None.

        `top` alternatives at each position. Raises Unsupported where the engine cannot.
        """
        ...


class AdapterEngine(TextEngine, Protocol):
    """A TextEngine that computes adapters beside its base. One without adapters needs to know nothing of this."""

    adapters: Collection[str]
    """Ids that are loaded now: what a `Generation.adapter` may be. The app looks here at each request."""

    async def score(self, prompt: Sequence[int], top: int, adapter: str | None = None) -> list[TokenLogprob | None]:
        """As above, by one of `adapters`; None: by the base alone."""
        ...


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine's backend tells `build_app` about the model, for answers and `/v1/models`."""

    name: str
    """The model's name in the config."""
    engine: str
    """The backend's name, for errors that must name the engine."""
    created: int = 0
    """Unix time."""
    tool_parser: str = "hermes"
    """How the model writes calls of tools: one of `gateway.openai.calls.FORMATS`."""
    reasoning_parser: str | None = None
    """How it marks its thoughts: one of `gateway.openai.reasoning.MARKS`; None: it has none."""
    extra: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    """What else its own row of `/v1/models` says."""
