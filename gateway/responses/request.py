"""What a Responses request asks of a chat completion. What no engine can do is refused by name; sampling fields that
the API does not know pass through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from gateway.errors import InvalidRequest, Unsupported

_IGNORED = frozenset(
    {"metadata", "user", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "include"}
    | {"stream_options", "max_tool_calls"}
)
"""Fields that change no answer here."""
_REFUSED = frozenset({"conversation", "prompt", "n", "best_of", "context_management"})
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = frozenset({"input_text", "output_text", "text", "reasoning_text", "summary_text"})


class ResponseRequest(msgspec.Struct):
    """POST /v1/responses."""

    input: str | list[dict[str, Any]] | None = None
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    top_logprobs: int | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None


_NAMES = frozenset(ResponseRequest.__struct_fields__)


def read_request(fields: Mapping[str, msgspec.Raw]) -> ResponseRequest:
    """Raises InvalidRequest and Unsupported, naming the field."""
    values: dict[str, Any] = {}
    for name in _NAMES & fields.keys():
        try:
            values[name] = msgspec.json.decode(fields[name])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"`{name}` is not understood: {error}", param=name) from None
    for name in sorted(_REFUSED & fields.keys()):
        if bytes(fields[name]) != b"null":
            raise Unsupported(f"this gateway does not support `{name}`", param=name)
    try:
        asked = msgspec.convert(values, ResponseRequest)
    except msgspec.ValidationError as error:
        said = str(error)
        param = said.rpartition("`$.")[2].partition("[")[0].rstrip("`") if "`$." in said else None
        raise InvalidRequest(said, param=param) from None
    if not asked.input:
        raise InvalidRequest("`input` is needed: text, or at least one item", param="input")
    if asked.max_output_tokens is not None and asked.max_output_tokens < 1:
        raise InvalidRequest("`max_output_tokens` must be 1 or more", param="max_output_tokens")
    if asked.truncation not in (None, "disabled"):
        raise Unsupported("this gateway does not support `truncation`: nothing is left out", param="truncation")
    if asked.top_logprobs:
        raise Unsupported("this gateway does not support `top_logprobs` in responses", param="top_logprobs")
    if asked.background and asked.stream:
        raise Unsupported("this gateway does not support `stream` for a response in the background", param="stream")
    if asked.background and asked.store is False:
        raise InvalidRequest("a response in the background is one that is stored", param="store")
    return asked


def items_of(asked: ResponseRequest) -> list[dict[str, Any]]:
    """Its input as items."""
    if isinstance(asked.input, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": asked.input}]}]
    return asked.input or []


def chat_of(
    asked: ResponseRequest, fields: Mapping[str, msgspec.Raw], before: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The chat completion's fields. `before`: the items of the conversation that this continues. Raises as
    `read_request`."""
    chat: dict[str, Any] = {
        name: value for name, value in fields.items() if name not in _NAMES and name not in _IGNORED | _REFUSED
    }
    messages = _messages([*before, *items_of(asked)])
    if asked.instructions:
        if messages and messages[0]["role"] == "system":
            messages[0] = {"role": "system", "content": f"{asked.instructions}\n\n{messages[0]['content']}"}
        else:
            messages.insert(0, {"role": "system", "content": asked.instructions})
    chat["messages"] = messages
    for name in ("model", "temperature", "top_p", "parallel_tool_calls"):
        if (value := getattr(asked, name)) is not None:
            chat[name] = value
    if asked.max_output_tokens is not None:
        chat["max_completion_tokens"] = asked.max_output_tokens
    if asked.tools:
        chat["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None and asked.tools:
        chat["tool_choice"] = _tool_choice(asked.tool_choice)
    if (form := _format(asked.text)) is not None:
        chat["response_format"] = form
    if asked.reasoning and (effort := asked.reasoning.get("effort")) is not None:
        chat["reasoning_effort"] = effort
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def _messages(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        param = f"input[{index}]"
        kind = item.get("type", "message")
        if kind == "message":
            role = item.get("role")
            if role not in _ROLES:
                raise InvalidRequest(
                    "a message's `role` is user, assistant, system or developer", param=f"{param}.role"
                )
            messages.append({"role": _ROLES[role], "content": _text(item.get("content"), f"{param}.content")})
        elif kind == "function_call":
            call = _call(item, param)
            last = messages[-1] if messages else {}
            if last.get("role") == "assistant":
                last.setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        elif kind == "function_call_output":
            call_id = item.get("call_id")
            if not isinstance(call_id, str):
                raise InvalidRequest("a call's output needs its `call_id`", param=f"{param}.call_id")
            content = _text(item.get("output"), f"{param}.output")
            messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        elif kind != "reasoning":
            # Earlier thoughts are not shown to models again; all else would be lost in silence.
            raise Unsupported(f"this gateway does not support items of type {str(kind)[:100]!r}", param=f"{param}.type")
    return messages


def _text(content: Any, param: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest("text, or a list of parts, is needed", param=param)
    texts: list[str] = []
    for index, part in enumerate(cast(list[Any], content)):
        fields = cast(dict[str, Any], part) if isinstance(part, dict) else {}
        kind, text = fields.get("type", "text"), fields.get("text", fields.get("refusal"))
        if kind not in _TEXTS and kind != "refusal":
            raise Unsupported(
                f"this gateway does not support parts of type {str(kind)[:100]!r}", param=f"{param}[{index}]"
            )
        if not isinstance(text, str):
            raise InvalidRequest("a text part needs `text`", param=f"{param}[{index}].text")
        texts.append(text)
    return "\n".join(texts)


def _call(item: Mapping[str, Any], param: str) -> dict[str, Any]:
    name, call_id, arguments = item.get("name"), item.get("call_id"), item.get("arguments")
    if not isinstance(name, str) or not isinstance(call_id, str) or not isinstance(arguments, str):
        raise InvalidRequest("a function call needs `call_id`, `name` and `arguments`", param=param)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool(tool: Mapping[str, Any], param: str) -> dict[str, Any]:
    kind = tool.get("type")
    if kind != "function":
        raise Unsupported(f"this gateway does not support tools of type {str(kind)[:100]!r}", param=f"{param}.type")
    kept = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in kept if tool.get(name) is not None}}


def _tool_choice(choice: str | dict[str, Any]) -> Any:
    if isinstance(choice, str):
        return choice
    if choice.get("type") == "function" and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise Unsupported(
        "this gateway supports a `tool_choice` of none, auto, required or a function", param="tool_choice"
    )


def _format(text: Mapping[str, Any] | None) -> dict[str, Any] | None:
    given: Any = (text or {}).get("format")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise InvalidRequest("`text.format` must be an object", param="text.format")
    form = cast(dict[str, Any], given)
    if form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}
