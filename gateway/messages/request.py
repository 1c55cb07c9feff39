"""What a Messages request asks of a chat completion. What no engine can do is refused by name; sampling fields that
Anthropic does not know pass through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from gateway.errors import InvalidRequest, Unsupported

_IGNORED = frozenset({"metadata", "thinking", "service_tier", "cache_control", "betas", "context_management"})
"""Fields that change no answer here."""
_REFUSED = frozenset({"mcp_servers", "container", "output_format", "n", "best_of"})
"""Fields that would change an answer, and `n`: a message is one."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class _Tool(msgspec.Struct):
    name: str
    input_schema: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])
    description: str | None = None
    type: str | None = None
    strict: bool | None = None


class _ToolChoice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Messages(msgspec.Struct):
    messages: list[dict[str, Any]]
    max_tokens: int | None = None
    model: str | None = None
    system: str | list[dict[str, Any]] | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: dict[str, Any] | None = None


_NAMES = frozenset(_Messages.__struct_fields__)


def chat_of(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """The chat completion's fields. Raises InvalidRequest and Unsupported, naming the field."""
    asked = _read(fields)
    if asked.max_tokens is None:
        raise InvalidRequest("`max_tokens` is needed", param="max_tokens")
    for name in _REFUSED & fields.keys():
        raise Unsupported(f"this gateway does not support `{name}`", param=name)
    chat: dict[str, Any] = {
        name: value for name, value in fields.items() if name not in _NAMES and name not in _IGNORED
    }
    chat["max_tokens"] = asked.max_tokens
    chat |= _conversation(asked)
    for name in ("model", "temperature", "top_p", "top_k"):
        value = getattr(asked, name)
        if value is not None:
            chat[name] = value
    if asked.stop_sequences:
        chat["stop"] = asked.stop_sequences
    if asked.stream:
        # With usage in every chunk the first event can say how long the prompt is.
        chat["stream"] = True
        chat["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    if asked.tool_choice is not None:
        chat |= _tool_choice(asked.tool_choice)
    if asked.output_config is not None:
        chat |= _response_format(asked.output_config)
    return chat


def tokenize_of(fields: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """`count_tokens` as `/tokenize` understands it. Raises as `chat_of`."""
    asked = _read(fields)
    body = _conversation(asked)
    return body if asked.model is None else {**body, "model": asked.model}


def _read(fields: Mapping[str, msgspec.Raw]) -> _Messages:
    values: dict[str, Any] = {}
    for name in _NAMES & fields.keys():
        try:
            values[name] = msgspec.json.decode(fields[name])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"`{name}` is not understood: {error}", param=name) from None
    try:
        asked = msgspec.convert(values, _Messages)
    except msgspec.ValidationError as error:
        said = str(error)
        param = said.rpartition("`$.")[2].rstrip("`") if "`$." in said else None
        if said.startswith("Object missing required field"):
            param = said.split("`")[1]
        raise InvalidRequest(said, param=param) from None
    if not asked.messages:
        raise InvalidRequest("`messages` must hold at least one message", param="messages")
    return asked


def _conversation(asked: _Messages) -> dict[str, Any]:
    """`messages` and `tools`; a last message of the assistant's is one to be continued."""
    messages: list[dict[str, Any]] = []
    if asked.system:
        system = asked.system if isinstance(asked.system, str) else _texts(asked.system, "system")
        messages.append({"role": "system", "content": system})
    for index, message in enumerate(asked.messages):
        messages += _message(message, f"messages[{index}]")
    body: dict[str, Any] = {"messages": messages}
    if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if asked.tools:
        body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(asked.tools)]
    return body


def _message(message: dict[str, Any], param: str) -> list[dict[str, Any]]:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant", "system"):
        raise InvalidRequest("a message's `role` is `user` or `assistant`", param=f"{param}.role")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    if not isinstance(content, list):
        raise InvalidRequest("`content` must be a string or a list of blocks", param=f"{param}.content")
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for index, item in enumerate(cast(list[Any], content)):
        place = f"{param}.content[{index}]"
        if not isinstance(item, dict):
            raise InvalidRequest("a content block must be an object", param=place)
        block = cast(dict[str, Any], item)
        kind = block.get("type")
        if kind == "text":
            texts.append(_text(block, place))
        elif kind == "tool_use" and role == "assistant":
            calls.append(_call(block, place))
        elif kind == "tool_result" and role == "user":
            results.append(_result(block, place))
        elif kind not in ("thinking", "redacted_thinking"):
            # Earlier thoughts are not shown to models again; all else would be lost in silence.
            raise Unsupported(f"this gateway does not support content blocks of type {kind!r} here", param=place)
    found = results
    if texts or calls or not results:
        # As one text with line feeds between blocks, as parts are joined on every engine.
        spoken: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
        if calls:
            spoken["tool_calls"] = calls
        found = [*results, spoken]
    return found


def _text(block: Mapping[str, Any], param: str) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise InvalidRequest("a text block needs `text`", param=f"{param}.text")
    return text


def _texts(blocks: Sequence[Any], param: str) -> str:
    texts: list[str] = []
    for index, block in enumerate(blocks):
        if not isinstance(block, dict) or cast(dict[str, Any], block).get("type") != "text":
            raise Unsupported("only text blocks are understood here", param=f"{param}[{index}]")
        texts.append(_text(cast(dict[str, Any], block), f"{param}[{index}]"))
    return "\n".join(texts)


def _call(block: Mapping[str, Any], param: str) -> dict[str, Any]:
    name, call_id = block.get("name"), block.get("id")
    if not isinstance(name, str) or not isinstance(call_id, str):
        raise InvalidRequest("a tool_use block needs `id` and `name`", param=param)
    arguments = msgspec.json.encode(block.get("input", {})).decode()
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _result(block: Mapping[str, Any], param: str) -> dict[str, Any]:
    call_id, content = block.get("tool_use_id"), block.get("content", "")
    if not isinstance(call_id, str):
        raise InvalidRequest("a tool_result block needs `tool_use_id`", param=f"{param}.tool_use_id")
    if isinstance(content, list):
        content = _texts(cast(list[Any], content), f"{param}.content")
    if not isinstance(content, str):
        raise InvalidRequest("a tool result is a string or text blocks", param=f"{param}.content")
    # A chat's messages have no field for it, and a model that is not told takes the error for a result.
    content = f"Error: {content}" if block.get("is_error") is True else content
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _response_format(config: dict[str, Any]) -> dict[str, Any]:
    """`output_config`, whose `format` is a schema that the answer is held to."""
    for name, value in config.items():
        if name != "format" and value is not None:
            raise Unsupported(f"this gateway does not support `output_config.{name}`", param=f"output_config.{name}")
    form: Any = config.get("format")
    if form is None:
        return {}
    param = "output_config.format"
    if not isinstance(form, dict) or cast(dict[str, Any], form).get("type") != "json_schema":
        raise InvalidRequest("`output_config.format` must be of type json_schema", param=param)
    schema = cast(dict[str, Any], form).get("schema")
    if not isinstance(schema, dict):
        raise InvalidRequest("`output_config.format` needs a `schema`, an object", param=f"{param}.schema")
    told = {"name": "answer", "strict": True, "schema": cast(dict[str, Any], schema)}
    return {"response_format": {"type": "json_schema", "json_schema": told}}


def _tool(tool: _Tool, param: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise Unsupported(f"this gateway does not support tools of type {tool.type!r}", param=f"{param}.type")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: _ToolChoice) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if choice.disable_parallel_tool_use:
        found["parallel_tool_calls"] = False
    if choice.type == "tool":
        if not choice.name:
            raise InvalidRequest("a `tool_choice` of type `tool` needs `name`", param="tool_choice.name")
        return {**found, "tool_choice": {"type": "function", "function": {"name": choice.name}}}
    if choice.type not in _CHOICES:
        raise InvalidRequest("`tool_choice.type` is auto, any, tool or none", param="tool_choice.type")
    return {**found, "tool_choice": _CHOICES[choice.type]}
