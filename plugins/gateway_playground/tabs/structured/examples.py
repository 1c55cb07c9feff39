"""Schemas, tools and questions to begin with. Data alone."""

from __future__ import annotations

import json
from typing import Any


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_SCHEMAS: dict[str, tuple[dict[str, Any], str]] = {
    "A person": (
        _object(
            name={"type": "string", "maxLength": 40},
            age={"type": "integer", "minimum": 0, "maximum": 130},
            languages={"type": "array", "items": {"type": "string", "maxLength": 20}, "minItems": 1, "maxItems": 3},
        ),
        "Describe a person: Marie is 34 years old and speaks French and English.",
    ),
    "A sentiment": (
        _object(
            sentiment={"enum": ["positive", "neutral", "negative"]},
            confidence={"type": "number", "minimum": 0, "maximum": 1},
        ),
        "What is the sentiment of this review? The food was cold, but the view made up for it.",
    ),
    "A city": (
        _object(
            city={"type": "string", "maxLength": 40},
            country={"type": "string", "maxLength": 40},
            coastal={"type": "boolean"},
        ),
        "Name a large city, its country, and whether it lies at the sea.",
    ),
}

SCHEMAS: dict[str, tuple[str, str]] = {
    name: (json.dumps(schema, indent=2), question) for name, (schema, question) in _SCHEMAS.items()
}
"""By name: the schema as text, and a question that asks for it."""


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": _object(**properties)}
    return {"type": "function", "function": function}


TOOLS = json.dumps(
    [
        _tool(
            "get_weather",
            "The weather in a city now.",
            city={"type": "string", "maxLength": 40},
            unit={"enum": ["celsius", "fahrenheit"]},
        )
    ],
    indent=2,
)
"""A tool to begin with, as `tools` of a chat request."""

TOOL_QUESTION = "What is the weather in Paris? Use the tool."
