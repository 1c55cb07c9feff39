"""POST /v1/chat/completions: from messages to a prompt and its choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from gateway.engine import Constraint, EngineInfo, Generation, TextEngine, Tokenizer
from gateway.errors import InvalidRequest, Unsupported
from gateway.openai.calls import FORMATS, CallReader, Format
from gateway.openai.checks import check, copies, fit, is_plain, refuse_unsupported, sampling, stops
from gateway.openai.choice import Choice, score
from gateway.openai.grammar_request import AskedGrammar, asked_grammar, constraints
from gateway.openai.prompts import encode
from gateway.openai.reading import Joined, Reader
from gateway.openai.reasoning import AfterThought, ReasoningReader
from gateway.openai.requests import ChatRequest
from gateway.openai.tools import Tools, calls_grammar, knows, offered, told
from gateway.openai.writer import CHAT, Writer


class _Extras(NamedTuple):
    """What a request asks for beside an answer to its messages."""

    logprobs: int | None = None
    stops: tuple[str, ...] = ()
    copies: int = 1
    tools: Tools | None = None
    form: Format = FORMATS["hermes"]
    """How the model writes calls of tools."""
    grammar: AskedGrammar | None = None
    to_template: Mapping[str, Any] = {}


_NO_EXTRAS = _Extras()


async def begin_chat(
    request: ChatRequest, engine: TextEngine, info: EngineInfo, model: bytes, adapter: str | None = None
) -> tuple[list[Choice], Writer]:
    """The choices of a request and the writer of its answer. `adapter`: which of the engine's is to compute it.

    Raises InvalidRequest and its kin.
    """
    tokenizer = engine.tokenizer
    if is_plain(request):
        check(request, None)
        extras = _NO_EXTRAS
    else:
        extras = _extras(request, tokenizer, info)
    max_tokens = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    if max_tokens is not None and max_tokens < 1:
        param = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
        raise InvalidRequest(f"`{param}` must be 1 or more", param=param)
    messages = told(plain_messages(request.messages, info.engine), extras.tools, tokenizer.chat_template)
    kwargs = template_kwargs(request.chat_template_kwargs, request.add_generation_prompt)
    kwargs |= extras.to_template
    if request.continue_final_message:
        text = _open_ended(messages, kwargs, tokenizer)
    else:
        text = tokenizer.render_chat(messages, **kwargs)
    # The template wrote the special tokens already.
    context = engine.max_model_len
    prompt = await encode(tokenizer, text, add_special_tokens=False, room=context, param="messages")
    room = fit(prompt, max_tokens, context, None, "messages")
    make_constraint = await constraints(extras.grammar, tokenizer, info.engine)
    read = [_reading(extras, info, text, make_constraint(), tokenizer) for _ in range(extras.copies)]
    writer = Writer(CHAT, request, model, len(prompt), tokenizer, extras.copies)
    name = writer.id.decode()
    top = request.prompt_logprobs
    joined = top is not None and extras.copies == 1 and getattr(engine, "scores_prompts", False)
    choices: list[Choice] = []
    for index, (reader, constraint) in enumerate(read):
        how = sampling(request, room, extras.logprobs, index, vocabulary=tokenizer.vocab_size)
        generation = Generation(f"{name}-{index}", prompt, how, constraint, top if joined else None, adapter)
        choices.append(Choice(index, generation, tokenizer, extras.stops, reader=reader))
    if top is not None and not joined:
        choices[0].take_prompt(await score(prompt, top, engine, adapter))
    return choices, writer


def _extras(request: ChatRequest, tokenizer: Tokenizer, info: EngineInfo) -> _Extras:
    """What else this request asks for. Raises InvalidRequest and its kin."""
    refuse_unsupported(request, info.engine)
    if request.top_logprobs is not None and not request.logprobs and request.top_logprobs:
        raise InvalidRequest("`top_logprobs` needs `logprobs: true`", param="top_logprobs")
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    check(request, logprobs)
    ends = stops(request)
    n = copies(request, 1)
    tools = offered(request, info.engine)
    template = tokenizer.chat_template
    # A model whose template knows no tools is told of them in Hermes' words.
    form = FORMATS[info.tool_parser if knows(template, "tools") else "hermes"]
    grammar = asked_grammar(request, info.engine)
    guided = getattr(tokenizer, "guidance", None) is not None or grammar is not None
    if tools is not None and (guided or tools.named or tools.choice == "required"):
        grammar = AskedGrammar(calls_grammar(tools, form, grammar), "tools")
    return _Extras(logprobs, ends, n, tools, form, grammar, _said_to_template(request, tools, template, info.engine))


def _reading(
    extras: _Extras, info: EngineInfo, prompt: str, constraint: Constraint | None, tokenizer: Tokenizer
) -> tuple[Reader | None, Constraint | None]:
    """What tells one choice's text apart, and what its tokens must obey where it thinks first."""
    calls = None if extras.tools is None else CallReader(extras.form)
    if info.reasoning_parser is None:
        return calls, constraint
    thoughts = ReasoningReader(info.reasoning_parser, prompt)
    if constraint is not None and thoughts.inside:
        constraint = AfterThought(constraint, thoughts.end, tokenizer)
    return thoughts if calls is None else Joined(thoughts, calls), constraint


def _said_to_template(request: ChatRequest, tools: Tools | None, template: str | None, engine: str) -> dict[str, Any]:
    """What else of a request the model's template reads. Raises Unsupported for what it would have to and does not."""
    said: dict[str, Any] = {}
    if tools is not None:
        said["tools"] = tools.given
    if (effort := request.reasoning_effort) is not None:
        if knows(template, "reasoning_effort"):
            said["reasoning_effort"] = effort
        elif effort != "none":
            raise Unsupported(
                f"the {engine} engine does not support `reasoning_effort`: this model's chat template knows none",
                param="reasoning_effort",
            )
    return said


def _open_ended(messages: Sequence[dict[str, Any]], kwargs: Mapping[str, Any], tokenizer: Tokenizer) -> str:
    """The conversation up to the last words of its last message, for the model to go on."""
    if kwargs.get("add_generation_prompt", False):
        message = "`continue_final_message` needs `add_generation_prompt: false`: a message is continued or begun"
        raise InvalidRequest(message, param="continue_final_message")
    text = tokenizer.render_chat(messages, **{**kwargs, "add_generation_prompt": False})
    content: str = messages[-1]["content"]
    place = text.rfind(content.strip()) if content.strip() else -1
    if place < 0:
        message = "the chat template does not show the last message as it is, so it cannot be continued"
        raise InvalidRequest(message, param="continue_final_message")
    # Templates may trim what they show; a space at the end stays where the template left it.
    whole = content.lstrip()
    return text[: place + len(whole if text.startswith(whole, place) else content.strip())]


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
