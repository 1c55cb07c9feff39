"""Tools in requests to vLLM: checked and told to the model as on every engine, and its calls obey the same grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from gateway.openai.calls import FORMATS, Format
from gateway.openai.chat import plain_messages
from gateway.openai.tools import Tools, knows, read_tools, told

TOOLED = re.compile(rb'"(?:tools|tool_choice|tool_calls|parallel_tool_calls)"\s*:|"role"\s*:\s*"tool"')
"""What a body holds that has to do with tools."""


class Terms(NamedTuple):
    """What vLLM understands, for one model."""

    by_guidance: bool = True
    """Whether it takes grammars in llguidance's notation."""
    template: str | None = None
    """The model's chat template."""
    tool_parser: str = "hermes"
    """Its parser of calls, by vLLM's name."""

    @property
    def form(self) -> Format | None:
        """How calls are written, where it is for us to say: a parser of a format that we know, and a grammar."""
        return FORMATS.get(self.tool_parser) if self.by_guidance else None


def offer(request: dict[str, Any], terms: Terms) -> Tools | None:
    """Put a request's tools as vLLM is to read them. Raises as `read_tools` and `told`."""
    if terms.form is None:
        return None
    tools = read_tools(request, "vllm")
    messages: list[Any] = request["messages"] if isinstance(request.get("messages"), list) else []
    if messages and not knows(terms.template, "tools"):
        request["messages"] = told(_plain(messages), tools, terms.template)
    for name in ("tools", "tool_choice", "parallel_tool_calls"):
        request.pop(name, None)
    if tools is not None:
        # With `auto` vLLM leaves the text to the grammar and parses what came; all else is in the grammar.
        request |= {"tools": tools.given, "tool_choice": "auto"}
    return tools


def _plain(messages: Sequence[Any]) -> list[dict[str, Any]]:
    return plain_messages([cast(dict[str, Any], each) for each in messages if isinstance(each, dict)], "vllm")
