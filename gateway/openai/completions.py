"""POST /v1/completions: prompts in, text out, and with `echo` the scores of the prompts themselves."""

from __future__ import annotations

from typing import Any

from gateway.engine import EngineInfo, Generation, TextEngine, Tokenizer, TokenLogprob
from gateway.errors import InvalidRequest
from gateway.openai.answer import together
from gateway.openai.checks import check, copies, fit, refuse_unsupported, sampling, stops
from gateway.openai.choice import Choice, Piece, score
from gateway.openai.grammar_request import asked_grammar, constraints
from gateway.openai.prompts import Prompt, read_prompts
from gateway.openai.requests import CompletionRequest
from gateway.openai.writer import COMPLETION, Writer

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for completions."""


async def begin_completion(
    request: CompletionRequest, engine: TextEngine, info: EngineInfo, model: bytes, adapter: str | None = None
) -> tuple[list[Choice], Writer]:
    """The choices of a request, prompts × n in order, and its answer's writer. `adapter`: which of the engine's is to
    compute it. Raises InvalidRequest and its kin."""
    refuse_unsupported(request, info.engine)
    check(request, request.logprobs)
    ends = stops(request)
    max_tokens = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    if max_tokens < (0 if request.echo else 1):
        allowed = "0 or more" if request.echo else "1 or more (0 needs `echo`)"
        raise InvalidRequest(f"`max_tokens` must be {allowed}", param="max_tokens")
    tokenizer = engine.tokenizer
    # The number is checked before the work: tokenizing a thousand prompts is not free.
    n = copies(request, len(request.prompt) if isinstance(request.prompt, list) and not _is_ids(request.prompt) else 1)
    grammar = asked_grammar(request, info.engine)
    special = request.add_special_tokens is not False
    room = engine.max_model_len
    prompts = await read_prompts(request.prompt, tokenizer, add_special_tokens=special, room=room)
    for prompt in prompts:
        fit(prompt.ids, max_tokens, engine.max_model_len, tokenizer.vocab_size, "prompt")
    make_constraint = await constraints(grammar, tokenizer, info.engine)
    top = max(
        (k for k in (request.logprobs if request.echo else None, request.prompt_logprobs) if k is not None),
        default=None,
    )
    # An engine that can computes a prompt once, for its scores and for what comes after it.
    joined = top is not None and n == 1 and max_tokens > 0 and getattr(engine, "scores_prompts", False)
    # Checked before the prompts are scored, and once for all of them.
    vocabulary = tokenizer.vocab_size
    hows = [sampling(request, max_tokens, request.logprobs, copy, vocabulary=vocabulary) for copy in range(n)]
    scores: list[list[TokenLogprob | None]] | None = None
    if top is not None and not joined:
        scores = await together([score(prompt.ids, top, engine, adapter) for prompt in prompts])
    counted = sum([len(prompt.ids) for prompt in prompts])
    writer = Writer(COMPLETION, request, model, counted, tokenizer, n)
    name = writer.id.decode()
    choices: list[Choice] = []
    for position, prompt in enumerate(prompts):
        for copy in range(n):
            index = position * n + copy
            generation = Generation(
                f"{name}-{index}", prompt.ids, hows[copy], make_constraint(), top if joined else None, adapter
            )
            prefix = Piece(_echoed(prompt, tokenizer)) if request.echo else None
            choice = Choice(index, generation, tokenizer, ends, prefix)
            if scores is not None:
                choice.take_prompt(scores[position])
            choices.append(choice)
    return choices, writer


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


def _echoed(prompt: Prompt, tokenizer: Tokenizer) -> str:
    return tokenizer.decode(prompt.ids, skip_special_tokens=False) if prompt.text is None else prompt.text
