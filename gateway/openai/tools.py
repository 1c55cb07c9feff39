"""The tools that a request offers, how a model is told of them, and what its answer may then be.

Pure functions of a request's fields: the vLLM plugin uses them too, so that every engine reads the same prompt and
obeys the same grammar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from jinja2 import Environment, TemplateError, meta
from jinja2.ext import loopcontrols

from gateway.errors import InvalidRequest, Unsupported
from gateway.openai.calls import FORMATS, Format
from gateway.openai.grammar import Grammar, enforceable, lark

if TYPE_CHECKING:
    from gateway.openai.grammar_request import AskedGrammar
    from gateway.openai.requests import ChatRequest, TokenizeRequest

MAX_TOOLS = 128
"""Tools in one request, as OpenAI limits them."""

_NAME = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_json = msgspec.json.Encoder().encode


class Tools(NamedTuple):
    """What is offered, checked."""

    given: Sequence[dict[str, Any]]
    """As templates know them: `{"type": "function", "function": {"name", "description", "parameters"}}`."""
    choice: str
    """`auto`, `required` or, if `named`, a function's name."""
    named: bool
    parallel: bool
    """Whether one answer may hold several calls."""


def read_tools(fields: Mapping[str, Any], engine: str) -> Tools | None:
    """The tools of a request by its fields `tools`, `tool_choice` and `parallel_tool_calls`; None where the model is to
    hear of none. Raises InvalidRequest, naming the field; Unsupported, naming `engine`, for tools of other kinds."""
    tools, choice, parallel = fields.get("tools"), fields.get("tool_choice"), fields.get("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise InvalidRequest("`parallel_tool_calls` must be true or false", param="parallel_tool_calls")
    if tools is not None and not isinstance(tools, list):
        raise InvalidRequest("`tools` must be a list", param="tools")
    listed = cast(list[Any], tools or [])
    if len(listed) > MAX_TOOLS:
        raise InvalidRequest(f"`tools` may hold at most {MAX_TOOLS} tools", param="tools")
    given = [_tool(tool, f"tools[{index}]", engine) for index, tool in enumerate(listed)]
    names = [tool["function"]["name"] for tool in given]
    for name in names:
        if names.count(name) > 1:
            raise InvalidRequest(f"`tools` holds {name!r} twice", param="tools")
    chosen, named = _choice(choice, names, engine)
    if not given:
        if chosen not in ("auto", "none"):
            raise InvalidRequest("`tool_choice` needs `tools`", param="tool_choice")
        return None
    # Who names a function wants that call, once.
    return None if chosen == "none" and not named else Tools(given, chosen, named, parallel is not False and not named)


def offered(request: ChatRequest | TokenizeRequest, engine: str) -> Tools | None:
    """The same of a decoded request."""
    if request.tools is None and request.tool_choice is None:
        return None
    return read_tools(msgspec.structs.asdict(request), engine)


def _tool(value: Any, param: str, engine: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequest("a tool must be an object", param=param)
    tool = cast(Mapping[str, Any], value)
    if (kind := tool.get("type", "function")) != "function":
        raise Unsupported(
            f"the {engine} engine does not support tools of type {str(kind)[:100]!r}", param=f"{param}.type"
        )
    function = tool.get("function")
    if not isinstance(function, Mapping):
        raise InvalidRequest("a tool needs a `function`", param=f"{param}.function")
    said = cast(Mapping[str, Any], function)
    name, description = said.get("name"), said.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(
            "a function's `name` is 1 to 64 letters, digits and any of `_ - . :`", param=f"{param}.function.name"
        )
    if description is not None and not isinstance(description, str):
        raise InvalidRequest("a function's `description` is a string", param=f"{param}.function.description")
    parameters: Any = said.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    enforceable(parameters, f"{param}.function.parameters")
    return {
        "type": "function",
        "function": {"name": name, "description": description or "", "parameters": parameters},
    }


def _choice(value: Any, names: Sequence[str], engine: str) -> tuple[str, bool]:
    if value is None:
        return "auto", False
    if isinstance(value, str):
        if value in ("auto", "none", "required"):
            return value, False
        raise InvalidRequest("`tool_choice` is none, auto, required or a function", param="tool_choice")
    if isinstance(value, Mapping):
        fields = cast(Mapping[str, Any], value)
        if fields.get("type") not in (None, "function"):
            raise Unsupported(
                f"the {engine} engine does not support a `tool_choice` of type {str(fields['type'])[:100]!r}",
                param="tool_choice.type",
            )
        function = fields.get("function")
        name = cast(Mapping[str, Any], function).get("name") if isinstance(function, Mapping) else None
        if isinstance(name, str) and name in names:
            return name, True
        if isinstance(name, str):
            raise InvalidRequest(f"`tool_choice` names {name[:64]!r}, which is none of `tools`", param="tool_choice")
    raise InvalidRequest(
        '`tool_choice` is none, auto, required or {"type": "function", "function": {"name": …}}', param="tool_choice"
    )


def told(messages: Sequence[dict[str, Any]], tools: Tools | None, template: str | None) -> list[dict[str, Any]]:
    """The messages for a model's chat template. Where the template has no place for tools, they are told to the model,
    like earlier calls and their results, in the words that Hermes' models are trained on."""
    if tools is None and not any("tool_calls" in message or message.get("role") == "tool" for message in messages):
        return list(messages)
    messages = [_decoded(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if knows(template, "tools"):
        return messages
    found: list[dict[str, Any]] = []
    for message in messages:
        if message.get("role") == "tool":
            result = f"<tool_response>\n{message['content']}\n</tool_response>"
            if found and found[-1].get("role") == "user" and found[-1].pop("_results", False):
                result = f"{found.pop()['content']}\n{result}"
            found.append({"role": "user", "content": result, "_results": True})
        elif message.get("tool_calls"):
            calls = [_written(call["function"], FORMATS["hermes"]) for call in message["tool_calls"]]
            content = "\n".join([*([message["content"]] if message["content"] else []), *calls])
            found.append({"role": message["role"], "content": content})
        else:
            found.append(message)
    for message in found:
        message.pop("_results", None)
    if tools is None:
        return found
    first = found[0] if found and found[0].get("role") == "system" else None
    text = _system(tools)
    if first is None:
        return [{"role": "system", "content": text}, *found]
    return [{**first, "content": f"{first['content']}\n\n{text}"}, *found[1:]]


def _system(tools: Tools) -> str:
    lines = "\n".join([json.dumps(tool, ensure_ascii=False) for tool in tools.given])
    return (
        "You can call functions. Their signatures are within <tools></tools>:\n"
        f"<tools>\n{lines}\n</tools>\n"
        "To call one, answer with a JSON object of its name and its arguments within <tool_call></tool_call>:\n"
        '<tool_call>\n{"name": <name>, "arguments": <object of arguments>}\n</tool_call>'
    )


def _written(function: Mapping[str, Any], form: Format) -> str:
    body = json.dumps({"name": function["name"], form.arguments: function["arguments"]}, ensure_ascii=False)
    return f"{form.begin}\n{body}\n{form.end}"


def _decoded(message: dict[str, Any], param: str) -> dict[str, Any]:
    """A message whose earlier calls are as templates know them: arguments as an object, not as its JSON."""
    calls = message.get("tool_calls")
    if calls is None:
        return message
    if not isinstance(calls, list):
        raise InvalidRequest("`tool_calls` must be a list", param=f"{param}.tool_calls")
    found: list[dict[str, Any]] = []
    for index, call in enumerate(cast(list[Any], calls)):
        place = f"{param}.tool_calls[{index}]"
        given: Any = cast(Mapping[str, Any], call).get("function") if isinstance(call, Mapping) else None
        function = cast(dict[str, Any], given) if isinstance(given, dict) else {}
        arguments: Any = function.get("arguments")
        if not isinstance(function.get("name"), str):
            raise InvalidRequest("a tool call needs a `function` with a `name`", param=place)
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError):
                raise InvalidRequest("a call's `arguments` must be JSON", param=f"{place}.function.arguments") from None
        elif arguments is None:
            arguments = {}
        found.append({**call, "function": {**function, "arguments": arguments}})
    return {**message, "tool_calls": found}


@lru_cache(maxsize=64)
def knows(template: str | None, name: str) -> bool:
    """Whether a chat template reads the variable `name`."""
    if template is None or name not in template:
        return False
    environment = Environment(extensions=[loopcontrols], autoescape=False)  # noqa: S701 (parsed, never rendered)
    try:
        return name in meta.find_undeclared_variables(environment.parse(template.replace("generation %}", "raw %}")))
    except TemplateError:
        return True


def calls_grammar(tools: Tools, form: Format, answer: AskedGrammar | None = None) -> Grammar:
    """What an answer may be: calls alone where one is required, and words with calls in them where not. `answer`: what
    it must be where it calls nothing. Raises InvalidRequest where the two cannot be joined."""
    given = [tool for tool in tools.given if not tools.named or tool["function"]["name"] == tools.choice]
    between = json.dumps(form.between)
    free = tools.choice == "auto" and not tools.named
    lines = ["start: " + ("calls" if not free else "calls | answer" if answer else _shape(tools, form))]
    if free and answer is not None:
        if answer.grammar.kind == "lark":
            raise InvalidRequest(f"`{answer.param}` cannot hold a grammar beside `tools`", param=answer.param)
        text = answer.grammar.text
        escaped = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\/", text)
        lines.append(f"answer: %json {text}" if answer.grammar.kind == "json" else f"answer: /{escaped}/")
    before, after = ('"\\n"', f'"\\n{form.end}"') if form.begin else ("", "")
    lines.append(f"one: {before} ({' | '.join([f'f{index}' for index in range(len(given))])}) {after}".rstrip())
    if form.begin:
        lines.append(f'call: "{form.begin}" one')
        if free and answer is None:
            lines.append(f'head[lazy]: /(.|\\n)*/ "{form.begin}"')
            lines.append("tail: TEXT")
            lines.append("TEXT: /(.|\\n)*/")
    else:
        lines.append("call: one")
        if free and answer is None:
            lines.append("TEXT: /[^{\\s](.|\\n)*/")
    lines.append(f"calls: call ({between} call)*" if tools.parallel else "calls: call")
    for index, tool in enumerate(given):
        function = tool["function"]
        schema = _json(enforceable(_object(function["parameters"]), f"tools[{index}].function.parameters")).decode()
        start = json.dumps(f'{{"name": "{function["name"]}", "{form.arguments}": ')
        lines.append(f'f{index}: {start} a{index} "}}"')
        lines.append(f"a{index}: %json {schema}")
    return lark("\n".join(lines) + "\n", "tools")


def _shape(tools: Tools, form: Format) -> str:
    if not form.begin:
        return "calls | TEXT"
    return "(head one)* tail" if tools.parallel else "(head one) | tail"


def _object(schema: Any) -> Any:
    """Arguments are an object, whether or not the schema says so."""
    return schema if "type" in schema or "$ref" in schema or "anyOf" in schema else {**schema, "type": "object"}
