"""POST /v1/completions: prompts in, text out, and with `echo` the scores of the prompts themselves."""

from __future__ import annotations

from typing import Any

from gateway.engine import EngineInfo, Generation, TextEngine
from gateway.errors import BackendFailed, GatewayError, InvalidRequest
from gateway.openai.answer import together
from gateway.openai.choice import Choice, Piece, engine_failed
from gateway.openai.grammar_request import asked_grammar, constraints
from gateway.openai.logprobs import score_prompt
from gateway.openai.prompts import Prompt, read_prompts
from gateway.openai.requests import CompletionRequest, check, copies, fit, refuse_unsupported, sampling, stops
from gateway.openai.writer import COMPLETION, Writer

DEFAULT_MAX_TOKENS = 16
"""OpenAI's default for completions."""


async def begin_completion(
    request: CompletionRequest, engine: TextEngine, info: EngineInfo, model: bytes
) -> tuple[list[Choice], Writer]:
    """The choices of a request, prompts × n in order, and its answer's writer. Raises InvalidRequest and its kin."""
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
    prompts = await read_prompts(request.prompt, tokenizer, add_special_tokens=special)
    for prompt in prompts:
        fit(prompt.ids, max_tokens, engine.max_model_len, tokenizer.vocab_size, "prompt")
    make_constraint = await constraints(grammar, tokenizer, info.engine)
    prefixes = await together([_echo(prompt, request, engine) for prompt in prompts]) if request.echo else None
    counted = sum([len(prompt.ids) for prompt in prompts])
    writer = Writer(COMPLETION, request, model, counted, tokenizer, n)
    name = writer.id.decode()
    choices: list[Choice] = []
    for position, prompt in enumerate(prompts):
        for copy in range(n):
            index = position * n + copy
            how = sampling(request, max_tokens, request.logprobs, copy, vocabulary=tokenizer.vocab_size)
            prefix = prefixes[position] if prefixes is not None else None
            generation = Generation(f"{name}-{index}", prompt.ids, how, make_constraint())
            choices.append(Choice(index, generation, tokenizer, ends, prefix))
    return choices, writer


def _is_ids(prompt: list[Any]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


async def _echo(prompt: Prompt, request: CompletionRequest, engine: TextEngine) -> Piece:
    """The prompt as the answer shows it: its text, and its scores where log-probabilities are asked."""
    tokenizer = engine.tokenizer
    text = tokenizer.decode(prompt.ids, skip_special_tokens=False) if prompt.text is None else prompt.text
    if request.logprobs is None:
        return Piece(text)
    try:
        scores = await engine.score(prompt.ids, request.logprobs)
    except GatewayError:
        raise
    except Exception as error:
        raise engine_failed(error) from error
    if len(scores) != len(prompt.ids):
        raise BackendFailed(f"the engine gave {len(scores)} scores for {len(prompt.ids)} tokens")
    return Piece(text, score_prompt(prompt.ids, scores, tokenizer))
