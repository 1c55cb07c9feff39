"""POST /v1/chat/completions: from messages to a prompt and its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from gateway.engine import EngineInfo, Generation, TextEngine
from gateway.errors import InvalidRequest, Unsupported
from gateway.openai.choice import Choice
from gateway.openai.grammar_request import asked_grammar, constraints
from gateway.openai.prompts import encode
from gateway.openai.requests import ChatRequest, check, copies, fit, refuse_unsupported, sampling, stops
from gateway.openai.writer import CHAT, Writer


async def begin_chat(
    request: ChatRequest, engine: TextEngine, info: EngineInfo, model: bytes
) -> tuple[list[Choice], Writer]:
    """The choices of a request and the writer of its answer. Raises InvalidRequest and its kin."""
    refuse_unsupported(request, info.engine)
    if request.top_logprobs is not None and not request.logprobs and request.top_logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs: true`", param="top_logprobs")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    check(request, logprobs)
    ends = stops(request)
    n = copies(request, 1)
    grammar = asked_grammar(request, info.engine)
    max_tokens = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if max_tokens is not None and max_tokens < 1:
        param = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        raise InvalidRequest(f"`{param}` must be 1 or more", param=param)
    tokenizer = engine.tokenizer
    text = tokenizer.render_chat(
        plain_messages(request.messages, info.engine),
        **template_kwargs(request.chat_template_kwargs, request.add_generation_prompt),
    )
    # The template wrote the special tokens already.
    prompt = await encode(tokenizer, text, add_special_tokens=False)
    room = fit(prompt, max_tokens, engine.max_model_len, None, "messages")
    make_constraint = await constraints(grammar, tokenizer, info.engine)
    writer = Writer(CHAT, request, model, len(prompt), tokenizer, n)
    name = writer.id.decode()
    choices = [
        Choice(
            index,
            Generation(
                f"{name}-{index}",
                prompt,
                sampling(request, room, logprobs, index, vocabulary=tokenizer.vocab_size),
                make_constraint(),
            ),
            tokenizer,
            ends,
        )
        for index in range(n)
    ]
    return choices, writer


def template_kwargs(given: Mapping[str, Any] | None, add_generation_prompt: bool | None) -> dict[str, Any]:
    """What the chat template is told beside the messages."""
    kwargs = dict(given or {})
    if not kwargs.keys().isdisjoint(("messages", "self")):
        raise InvalidRequest("`chat_template_kwargs` must not hold `messages` or `self`", param="chat_template_kwargs")
    if add_generation_prompt is not None:
        kwargs["add_generation_prompt"] = add_generation_prompt
    return kwargs


def plain_messages(messages: Sequence[dict[str, Any]], engine: str) -> list[dict[str, Any]]:
    """Messages as templates know them: a role, and content as one string; everything else as it came."""
    if not messages:
        raise InvalidRequest("`messages` must hold at least one message", param="messages")
    plain: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise InvalidRequest("a message needs a `role`", param=f"messages[{index}].role")
        content = message.get("content")
        if isinstance(content, str):
            plain.append(message)
        elif content is None:
            plain.append({**message, "content": ""})
        elif isinstance(content, list):
            parts = cast(list[Any], content)
            plain.append({**message, "content": _joined(parts, f"messages[{index}].content", engine)})
        else:
            raise InvalidRequest("`content` must be a string or a list of parts", param=f"messages[{index}].content")
    return plain


def _joined(parts: Sequence[Any], param: str, engine: str) -> str:
    # With line feeds, as vLLM joins them: the same request means the same prompt on every engine.
    texts: list[str] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise InvalidRequest("a content part must be an object", param=f"{param}[{index}]")
        fields = cast(dict[str, Any], part)
        kind = fields.get("type", "text")
        if kind not in ("text", "input_text"):
            raise Unsupported(
                f"the {engine} engine does not support content parts of type {kind!r}", param=f"{param}[{index}]"
            )
        text = fields.get("text")
        if not isinstance(text, str):
            raise InvalidRequest("a text part needs `text`", param=f"{param}[{index}].text")
        texts.append(text)
    return "\n".join(texts)
