"""What a message asks of a chat."""

from __future__ import annotations

import json

import msgspec

from gateway.messages import chat_of


def test_a_schema_for_the_answer_is_one_for_the_chat() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    asked = {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Where?"}],
        "output_config": {"effort": None, "format": {"type": "json_schema", "schema": schema}},
    }
    chat = chat_of({name: msgspec.Raw(json.dumps(value).encode()) for name, value in asked.items()})
    told = {"name": "answer", "strict": True, "schema": schema}
    assert chat["response_format"] == {"type": "json_schema", "json_schema": told}
    assert "output_config" not in chat
