"""A conversation in which a person plays the tools: what was said, and which calls wait for a result. Knows no page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from gateway_playground.tabs.structured.schema import SchemaProblem, decoded


@dataclass(slots=True)
class ToolCall:
    """One call that a model made, growing while it streams."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    """JSON, as the model wrote it so far."""


@dataclass(slots=True)
class Said:
    """One answer of the model: text, calls, or both."""

    text: str = ""
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    finish_reason: str = ""

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one chunk of a streamed chat completion."""
        for choice in cast("list[dict[str, Any]]", event.get("choices") or []):
            delta: dict[str, Any] = choice.get("delta") or {}
            self.text += delta.get("content") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            for part in cast("list[dict[str, Any]]", delta.get("tool_calls") or []):
                index = int(part.get("index") or 0)
                while len(self.calls) <= index:
                    self.calls.append(ToolCall())
                call = self.calls[index]
                function: dict[str, Any] = part.get("function") or {}
                call.id = part.get("id") or call.id
                call.name += function.get("name") or ""
                call.arguments += function.get("arguments") or ""

    def message(self) -> dict[str, Any]:
        """As the next request repeats it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in self.calls
            ]
        return message


@dataclass(slots=True)
class Play:
    """The conversation of one person with a model that may call tools."""

    messages: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    waiting: list[ToolCall] = field(default_factory=list[ToolCall])
    """Calls without a result, in the model's order; the person is asked for the first."""

    def ask(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def answered(self, said: Said) -> None:
        self.messages.append(said.message())
        self.waiting = list(said.calls)

    def result(self, text: str) -> None:
        """What the tool gave for the first call that waits."""
        call = self.waiting.pop(0)
        self.messages.append({"role": "tool", "tool_call_id": call.id, "content": text})

    def take_back(self) -> str:
        """Take the last question or results back, after an answer that failed; the question's text, "" where it was
        a result (which stays, to be sent again)."""
        if self.messages and self.messages[-1]["role"] == "user":
            return str(self.messages.pop()["content"])
        return ""


def read_tools(text: str) -> list[dict[str, Any]]:
    """`tools` of a request from what a person typed. Raises SchemaProblem that names the tool."""
    tools = decoded(text, "The list of tools")
    if not isinstance(tools, list) or not tools:
        raise SchemaProblem('The tools are not a JSON list: begin with [{"type": "function", "function": {…}}].')
    for position, tool in enumerate(cast("list[Any]", tools), 1):
        function: Any = cast("dict[str, Any]", tool).get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(cast("dict[str, Any]", function).get("name"), str):
            raise SchemaProblem(f'Tool {position} has no "function" with a "name".')
    return cast("list[dict[str, Any]]", tools)
