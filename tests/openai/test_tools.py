"""Tools: what is refused, what the model is told, what its answer may be, and how calls are told from words."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.engine import Delta
from gateway.errors import InvalidRequest
from gateway.openai.calls import FORMATS, CallReader
from gateway.openai.grammar import json_schema
from gateway.openai.grammar_request import AskedGrammar
from gateway.openai.guidance import of_bytes
from gateway.openai.reading import Said
from gateway.openai.tools import calls_grammar, knows, read_tools, told

CHAT = "/v1/chat/completions"
HERMES, LLAMA = FORMATS["hermes"], FORMATS["llama3_json"]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
NAMED = {"type": "function", "function": {"name": "now"}}
PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
CLOCK = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def merged(said: Sequence[Said]) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    for kind, text, call in said:
        if found and kind != "name" and found[-1][0] == kind and found[-1][2] == call:
            found[-1] = (kind, found[-1][1] + text, call)
        else:
            found.append((kind, text, call))
    return found


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        (
            HERMES,
            f'Let me see.\n{PARIS}\n<tool_call>{{"arguments": {{"q":"}}</tool_call>"}}, "name": "b"}}</tool_call>\n',
            [
                ("content", "Let me see.", 0),
                ("name", "get_weather", 0),
                ("arguments", '{"city": "Paris"}', 0),
                ("name", "b", 1),
                ("arguments", '{"q":"}</tool_call>"}', 1),
            ],
        ),
        (
            HERMES,
            '<tool_call>\n{"name": "a", "arguments": {"x": "}</tool_call>\\"", "y": [1, {}]}}\n</tool_call> done',
            [
                ("name", "a", 0),
                ("arguments", '{"x": "}</tool_call>\\"", "y": [1, {}]}', 0),
                ("content", " done", 0),
            ],
        ),
        (HERMES, '<tool_call>{"parameters": {"q": 1}, "name": "b"}', [("name", "b", 0), ("arguments", '{"q":1}', 0)]),
        (HERMES, '<tool_call>{"name": "a", "arguments": "{}"}</tool_call>', [("name", "a", 0), ("arguments", "{}", 0)]),
        (HERMES, "<tool_call>what</tool_call> and more", [("content", "<tool_call>what</tool_call> and more", 0)]),
        (HERMES, '<tool_call>{"name": 3}</tool_call>', [("content", '<tool_call>{"name": 3}</tool_call>', 0)]),
        (HERMES, '<tool_call>\n{"name": "a", "arguments": {"x": 1', [("name", "a", 0), ("arguments", '{"x": 1', 0)]),
        (HERMES, '<tool_call>\n{"na', [("content", '<tool_call>\n{"na', 0)]),
        (HERMES, "a < b <tool_cal", [("content", "a < b <tool_cal", 0)]),
        (HERMES, "", []),
        (
            LLAMA,
            '{"name": "a", "parameters": {"x": 1}}; {"name": "b", "parameters": {}}',
            [("name", "a", 0), ("arguments", '{"x": 1}', 0), ("name", "b", 1), ("arguments", "{}", 1)],
        ),
        (LLAMA, 'hello {"name"', [("content", 'hello {"name"', 0)]),
        (LLAMA, '{"a": 1} words', [("content", '{"a": 1} words', 0)]),
    ],
)  # fmt: skip
def test_calls_are_told_from_words_however_the_text_is_cut(form: Any, text: str, expected: list[Any]) -> None:
    cuts = random.Random(0)
    for longest in (1, 2, 3, 7, 1000):
        reader, said, at = CallReader(form), list[Said](), 0
        while at < len(text):
            end = at + cuts.randint(1, longest)
            said += reader.push(text[at:end])
            at = end
        assert merged([*said, *reader.flush()]) == expected


@pytest.mark.parametrize("form", [HERMES, LLAMA])
@pytest.mark.parametrize(
    ("choice", "parallel", "good", "bad"),
    [
        ("auto", True, ["w", "wn", "n", "words"], ["bad"]),
        ("auto", False, ["w", "n", "words"], ["bad", "wn"]),
        ("required", True, ["w", "wn", "n"], ["bad", "words"]),
        ("required", False, ["w", "n"], ["bad", "words", "wn"]),
        (NAMED, True, ["n"], ["w", "wn", "bad", "words"]),
    ],
)
async def test_an_answer_is_what_the_choice_allows(
    form: Any, choice: Any, parallel: bool, good: list[str], bad: list[str]
) -> None:
    def call(name: str, arguments: str) -> str:
        body = f'{{"name": "{name}", "{form.arguments}": {arguments}}}'
        return f"{form.begin}\n{body}\n{form.end}" if form.begin else body

    weather, clock = call("get_weather", '{"city": "Paris"}'), call("now", "{}")
    texts = {
        "w": weather,
        "n": clock,
        "wn": weather + form.between + clock,
        "bad": call("get_weather", '{"town": "Paris"}'),
        "words": "Hello there",
    }
    tools = read_tools({"tools": [WEATHER, NOW], "tool_choice": choice, "parallel_tool_calls": parallel}, "x")
    assert tools is not None
    assert {name for name, text in texts.items() if await allows(calls_grammar(tools, form), text)} == set(good)
    assert set(good) | set(bad) == set(texts)


async def test_an_answer_that_calls_nothing_may_have_a_schema_of_its_own() -> None:
    tools = read_tools({"tools": [WEATHER]}, "x")
    assert tools is not None
    answer = AskedGrammar(json_schema({"type": "object", "required": ["a"]}, "response_format"), "response_format")
    grammar = calls_grammar(tools, HERMES, answer)
    assert await allows(grammar, PARIS)
    assert await allows(grammar, '{"a": 1}')
    assert not await allows(grammar, "Hello")


async def allows(grammar: Any, text: str) -> bool:
    matcher = (await of_bytes().compile(grammar, "tools"))()._matcher.deep_copy()  # type: ignore[attr-defined]
    tokens = list(text.encode())
    return matcher.validate_tokens(tokens) == len(tokens) and matcher.consume_tokens(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": "x"}, "tools"),
        ({"tools": [3]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": 3}}]}, "tools[0].function.parameters"),
        ({"tools": [NOW, NOW]}, "tools"),
        ({"tools": [NOW] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": "maybe"}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "function", "function": {"name": "gone"}}}, "tool_choice"),
        ({"tools": [NOW], "tool_choice": {"type": "custom"}}, "tool_choice.type"),
        ({"tools": [NOW], "parallel_tool_calls": 1}, "parallel_tool_calls"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_tools(fields, "x")
    assert raised.value.param == param


def test_a_template_without_tools_gets_them_in_words() -> None:
    tools = read_tools({"tools": [WEATHER]}, "x")
    called = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Paris?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": called}]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]  # fmt: skip
    said = told(history, tools, "{{ messages }}")
    assert [message["role"] for message in said] == ["system", "user", "assistant", "user"]
    assert said[0]["content"].startswith("Be brief.\n\n")
    assert '"get_weather"' in said[0]["content"]
    assert said[2]["content"] == PARIS
    assert said[3]["content"] == "<tool_response>\nsunny\n</tool_response>"
    # A template that knows them reads calls as objects.
    kept = told(history, tools, "{{ tools }}")
    assert kept[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert kept[3] == history[3]
    assert history[2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'


def test_a_template_knows_what_it_reads() -> None:
    assert knows("{% if tools %}{{ tools }}{% endif %}", "tools")
    assert not knows("use your tools well", "tools")
    assert not knows(None, "tools")


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_reach_the_client(dictate: Any, stream: bool) -> None:
    text = f"Let me see.\n{PARIS}\n{CLOCK}"
    deltas = [Delta(list(text[at : at + 5].encode()), None, None) for at in range(0, len(text), 5)]
    _, client = dictate(*deltas, Delta([], None, "stop"))
    body = {"messages": [{"role": "user", "content": "?"}], "tools": [WEATHER, NOW], "stream": stream}
    answer = await client.post(CHAT, body)
    assert answer.status == 200, answer.body
    if not stream:
        choice = answer.json()["choices"][0]
        message, calls = choice["message"], choice["message"]["tool_calls"]
        assert message["content"] == "Let me see."
    else:
        events = answer.events()
        assert "".join([event["choices"][0]["delta"].get("content") or "" for event in events]) == "Let me see."
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        choice, calls = events[-1]["choices"][0], list[dict[str, Any]]()
        for event in events:
            for call in event["choices"][0]["delta"].get("tool_calls", ()):
                if "id" in call:
                    assert call["index"] == len(calls)
                    calls.append(call)
                else:
                    calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        # Arguments come in pieces, as the model writes them.
        assert sum(1 for event in events if event["choices"][0]["delta"].get("tool_calls")) > 4
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in calls] == ["get_weather", "now"]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"city": "Paris"}, {}]
    assert len({call["id"] for call in calls}) == 2


async def test_a_call_that_is_cut_off_is_no_call_to_make(dictate: Any) -> None:
    _, client = dictate(Delta(list(PARIS[:60].encode()), None, "length"))
    body = {"messages": [{"role": "user", "content": "?"}], "tools": [WEATHER]}
    choice = (await client.post(CHAT, body)).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["tool_calls"][0]["function"]["arguments"].startswith("{")


async def test_the_stop_string_is_told(dictate: Any) -> None:
    for stream in (False, True):
        _, client = dictate(Delta(list(b"one two three"), None, None))
        body = {"messages": [{"role": "user", "content": "?"}], "stop": ["four", "two"], "stream": stream}
        answer = await client.post(CHAT, body)
        choice = (answer.events()[-1] if stream else answer.json())["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "two")
