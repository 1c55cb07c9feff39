"""What Structured knows without a page: schemas and their violations, tools, and a conversation with calls."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway_playground.tabs.asking import Watch, path_of
from gateway_playground.tabs.structured import schema as schemas
from gateway_playground.tabs.structured.examples import SCHEMAS, TOOLS
from gateway_playground.tabs.structured.play import Play, Said, read_tools

PERSON = schemas.read(SCHEMAS["A person"][0])


def test_an_answer_that_keeps_its_schema_has_no_violation() -> None:
    answer = {"name": "Marie", "age": 34, "languages": ["French"]}
    assert schemas.violations(PERSON, json.dumps(answer)) == []


def test_each_violation_is_named_with_its_path() -> None:
    answer = {"name": 5, "age": 200, "languages": ["French", 7], "more": True}
    found = dict(schemas.violations(PERSON, json.dumps(answer)))
    assert set(found) == {"$", "$.age", "$.languages[1]", "$.name"}
    assert "'more' was unexpected" in found["$"]
    assert "200 is greater than the maximum of 130" in found["$.age"]
    (cut,) = schemas.violations(PERSON, '{"name": "Ma')
    assert cut[0] == "$"
    assert "not JSON" in cut[1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON: Expecting value in line 1"),
        ('{"type": "object",\n nonsense}', "in line 2"),
        ("[]", "not a JSON object"),
        ('{"type": "objekt"}', "not valid at $.type"),
        ('{"properties": {"a": {"minimum": "1"}}}', "$.properties.a.minimum"),
        ('{"a":' * 19000, "nested too deeply"),
        ('"' + "x" * 100_001, "longer than 100,000"),
    ],
)
def test_a_schema_that_is_none_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(schemas.SchemaProblem, match=r".") as problem:
        schemas.read(text)
    assert says in str(problem.value)


def test_a_reference_elsewhere_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: Any, **__: Any) -> None:
        raise AssertionError("it asked the network")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    schema = schemas.read('{"$ref": "http://127.0.0.1:9/schema.json"}')
    ((path, what),) = schemas.violations(schema, "{}")
    assert path == "$"
    assert "which is not in it" in what
    inside = schemas.read('{"$ref": "#/$defs/word", "$defs": {"word": {"type": "string"}}}')
    assert schemas.violations(inside, '"a"') == []


def test_a_pattern_holds_nobody_for_long() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    began = time.perf_counter()
    found = schemas.violations(schema, json.dumps("a" * 60 + "b"))
    assert time.perf_counter() - began < 20
    # The engine of patterns sees through this one, or gives it up.
    assert len(found) == 1
    assert schemas.violations({"patternProperties": {"^n": {"type": "number"}}}, '{"n": "x", "m": "x"}') == [
        ("$.n", "'x' is not of type 'number'")
    ]
    assert schemas.violations({"pattern": "(?<bad"}, '"x"') == []


def test_tools_are_read_or_the_one_that_is_none_is_named() -> None:
    assert [tool["function"]["name"] for tool in read_tools(TOOLS)] == ["get_weather"]
    for text, says in [
        ("[]", "not a JSON list"),
        ("{}", "not a JSON list"),
        ("[1]", "Tool 1"),
        ('[{"function": {"name": "a"}}, {"function": {}}]', "Tool 2"),
        ("[", "not JSON"),
    ]:
        with pytest.raises(schemas.SchemaProblem) as problem:
            read_tools(text)
        assert says in str(problem.value)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"delta": fields}]}


def test_calls_are_put_together_from_a_stream_and_answered_in_order() -> None:
    said = Said()
    for event in [
        delta(role="assistant", content="Let me see. "),
        delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}]),
        delta(tool_calls=[{"index": 1, "id": "c2", "function": {"name": "time", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '"Paris"}'}}]),
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": {"completion_tokens": 9}},
    ]:
        said.add(event)
    play = Play()
    play.ask("What is it like in Paris?")
    play.answered(said)
    assert [(call.name, call.arguments) for call in play.waiting] == [("weather", '{"city":"Paris"}'), ("time", "{}")]
    play.result("21 degrees")
    play.result("noon")
    assert play.waiting == []
    assert [message["role"] for message in play.messages] == ["user", "assistant", "tool", "tool"]
    assert play.messages[1]["tool_calls"][0] == {
        "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }  # fmt: skip
    assert [message["tool_call_id"] for message in play.messages[2:]] == ["c1", "c2"]


def test_a_model_is_asked_where_its_row_says() -> None:
    rows = [{"id": "a", "path": "/m/a/v1"}]
    assert [path_of(rows, "a"), path_of(rows, "b"), path_of(None, "a")] == ["/m/a/v1", "/v1", "/v1"]


def test_an_answers_facts_are_said_as_far_as_they_are_known() -> None:
    watch = Watch()
    assert watch.facts() == "0.00 s"
    watch.see([delta(content="a"), {"choices": [], "usage": {"completion_tokens": 1}}])
    assert watch.facts().startswith("1 token · first after 0.")
