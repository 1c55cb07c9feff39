"""Requests that nobody should send: by schemathesis from the published OpenAPI document, and bodies by hypothesis."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

LONGEST_S = 30
"""An answer that takes longer is a hang."""
MOST_TOKENS = 2
"""What a valid request may make: it is the nonsense that is to be tried, not the model."""
_BOUNDED = {"max_tokens", "max_completion_tokens", "max_output_tokens"}

VALID: Mapping[str, Mapping[str, str]] = {
    "/v1/chat/completions": {"messages": '[{"role":"user","content":"Hi"}]', "max_tokens": "2"},
    "/v1/completions": {"prompt": '"Hi"', "max_tokens": "2"},
    "/v1/messages": {"messages": '[{"role":"user","content":"Hi"}]', "max_tokens": "2"},
    "/v1/messages/count_tokens": {"messages": '[{"role":"user","content":"Hi"}]', "max_tokens": "2"},
    "/v1/responses": {"input": '"Hi"', "max_output_tokens": "2"},
    "/tokenize": {"prompt": '"Hi"'},
    "/detokenize": {"tokens": "[1]"},
}
"""A body that is right for each page that takes JSON: names and the JSON of their values."""


_LARGE = {path: {name: json.loads(value) for name, value in fields.items()} for path, fields in VALID.items()}


def nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + "1" + closing * depth


NASTY: st.SearchStrategy[str] = st.one_of(
    st.sampled_from(
        [
            *("null", "true", "false", "0", "-1", "1", "0.5", "-0.0", "1e400", "-1e400", "1e-400", "NaN", "Infinity"),
            *("-Infinity", str(2**31), str(2**63), str(-(2**63) - 1), str(2**64), "1" + "0" * 400, "9" * 5000),
            *('""', '" "', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\ufffe"', '"1"', '"auto"', '"\u202e🦙"'),
            *(
                "[]",
                "[[]]",
                "[null]",
                "[[null]]",
                "[1]",
                "[[1]]",
                "[-1]",
                "[[-1]]",
                "[1.5]",
                '[""]',
                '["a", 1]',
                "[{}]",
            ),
            *("{}", '{"":{}}', '{"a":null}', '{"type":"text"}', '{"type":null}', '{"type":"object","$ref":"#"}'),
            '{"$ref":"http://127.0.0.1:1/x"}',
            '{"type":"string","pattern":"(a+)+$"}',
            '{"type":"array","minItems":1000000000}',
            '"((((((((((a{0,1000}){0,1000}){0,1000}){0,1000})))))))"',
            *(nested("[", "]", depth) for depth in (50, 1100, 60_000)),
            *(nested('{"a":', "}", depth) for depth in (50, 1100, 60_000)),
            nested('{"type":"object","properties":{"a":', "}}", 400),
        ]
    ),
    st.integers().map(str),
    st.floats().map(json.dumps),
    st.text(max_size=20).map(json.dumps),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ).map(json.dumps),
)
"""The JSON, or what is nearly JSON, of one value."""

WITHIN: Mapping[str, Sequence[str]] = {
    "messages": (
        "[{}]", '[{{"role":{},"content":"a"}}]', '[{{"role":"user","content":{}}}]',
        '[{{"role":"user","content":[{}]}}]', '[{{"role":"user","content":[{{"type":"text","text":{}}}]}}]',
        '[{{"role":"user","content":[{{"type":"image_url","image_url":{}}}]}}]',
        '[{{"role":"user","content":"a"}},{{"role":"assistant","content":null,"tool_calls":{}}}]',
        '[{{"role":"user","content":"a"}},{{"role":"assistant","tool_calls":[{{"function":{}}}]}}]',
        '[{{"role":"tool","tool_call_id":{},"content":"a"}}]', '[{{"role":"user","name":{},"content":"a"}}]',
    ),
    "input": ("[{}]", '[{{"role":"user","content":{}}}]', '[{{"type":{},"call_id":"a"}}]',
              '[{{"type":"function_call_output","call_id":{},"output":"a"}}]'),
    "prompt": ("[{}]", "[[{}]]", "[1,{}]", '["a",{}]'),
    "tokens": ("[{}]", "[1,{}]"),
    "stop": ("[{}]", '["a",{}]'),
    "stop_sequences": ("[{}]",),
    "logit_bias": ('{{"1":{}}}', '{{"x":{}}}', '{{"-1":{}}}', '{{"99999999999":{}}}'),
    "stream_options": ('{{"include_usage":{}}}',),
    "chat_template_kwargs": ('{{"x":{}}}', '{{"messages":{}}}', '{{"add_generation_prompt":{}}}'),
    "tools": ("[{}]", '[{{"type":{}}}]', '[{{"type":"function","function":{}}}]',
              '[{{"type":"function","function":{{"name":{}}}}}]',
              '[{{"type":"function","function":{{"name":"a","parameters":{}}}}}]',
              '[{{"name":"a","input_schema":{}}}]', '[{{"type":"function","name":"a","parameters":{}}}]'),
    "tool_choice": ('{{"type":{}}}', '{{"type":"function","function":{}}}',
                    '{{"type":"function","function":{{"name":{}}}}}', '{{"type":"tool","name":{}}}'),
    "response_format": ('{{"type":{}}}', '{{"type":"json_schema","json_schema":{}}}',
                        '{{"type":"json_schema","json_schema":{{"name":"a","schema":{}}}}}',
                        '{{"type":"json_schema","json_schema":{{"name":{},"schema":{{}}}}}}'),
    "structured_outputs": ('{{"regex":{}}}', '{{"choice":{}}}', '{{"choice":[{}]}}', '{{"json":{}}}',
                           '{{"grammar":{}}}', '{{"json_object":{}}}', '{{"regex":"a","choice":{}}}'),
    "text": ('{{"format":{}}}', '{{"format":{{"type":"json_schema","name":"a","schema":{}}}}}'),
    "metadata": ('{{"a":{}}}',),
    "reasoning": ('{{"effort":{}}}',),
    "thinking": ('{{"type":"enabled","budget_tokens":{}}}',),
}  # fmt: skip
"""Where inside a field something may stand."""


@dataclass
class Found:
    """What a run saw."""

    cases: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def fuzz(url: str, models: Sequence[str], cases: int) -> Found:
    """Half of the cases from the document of the gateway at `url`, half of bodies; each for one of the models."""
    document = requests.get(f"{url}/openapi.json", timeout=LONGEST_S).json()
    found = Found()
    session = requests.Session()
    session.trust_env = False

    def send(**request: Any) -> None:
        _send(session, found, **request)

    chosen = st.sampled_from(list(models))
    schema = schemathesis.openapi.from_dict(document)
    as_published = schema.as_strategy(generation_mode=GenerationMode.POSITIVE)
    against_it = schema.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @given(case=as_published | against_it, model=chosen, named=st.integers(0, 4))
    def from_document(case: Any, model: str, named: int) -> None:
        if isinstance(case.body, dict) and named:
            case.body["model"] = model
        kwargs = case.as_transport_kwargs(base_url=url)
        if isinstance(kwargs.get("json"), dict):
            _tame(kwargs["json"])
        send(**kwargs)

    @given(request=bodies(document), model=chosen)
    def from_bodies(request: tuple[str, bytes], model: str) -> None:
        path, body = request
        headers = {"content-type": "application/json"}
        send(method="POST", url=url + path, headers=headers, data=body.replace(b"MODEL", model.encode()))

    for test, count in ((from_document, cases // 2), (from_bodies, cases - cases // 2)):
        how = settings(max_examples=count, database=None, deadline=None, derandomize=True, phases=[Phase.generate],
                       suppress_health_check=list(HealthCheck))  # fmt: skip
        how(test)()
    # The one size that hypothesis has no room for: ten megabytes in each place of a body, a few of them in a short run.
    places = [(path, name) for path, fields in VALID.items() for name in fields][: max(len(models), cases // 500)]
    for number, (path, name) in enumerate(places):
        text = json.dumps({"model": models[number % len(models)], **_LARGE[path], name: "word " * 2_000_000})
        send(method="POST", url=url + path, headers={"content-type": "application/json"}, data=text.encode())
    return found


def bodies(document: Mapping[str, Any]) -> st.SearchStrategy[tuple[str, bytes]]:
    """(path, body): right ones, of which up to two fields are replaced; and some that are no object or cut off."""

    def of(path: str) -> st.SearchStrategy[tuple[str, bytes]]:
        reference: str = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        names = sorted(document["components"]["schemas"][reference.rsplit("/", 1)[1]]["properties"])
        replaced = st.dictionaries(st.sampled_from(names), st.tuples(NASTY, st.integers(0, 99)), max_size=2)
        shape = st.sampled_from(["{}"] * 12 + ["[{}]", "{}{}", "\ufeff{}", "cut", "latin", "nameless"])
        return st.tuples(replaced, shape).map(lambda drawn: (path, _body(VALID[path], *drawn)))

    return st.sampled_from(sorted(VALID)).flatmap(of)


def _body(valid: Mapping[str, str], replaced: Mapping[str, tuple[str, int]], shape: str) -> bytes:
    fields = {"model": '"MODEL"', **valid}
    for name, (value, choice) in replaced.items():
        forms = WITHIN.get(name, ())
        # A third of what can hold something is replaced as a whole.
        form = forms[choice % len(forms)] if forms and choice % 3 else "{}"
        fields[name] = _bounded(name, form.format(value) if form != "{}" else value)
    if shape == "nameless":
        fields.pop("model")
    text = "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"
    if shape == "cut":
        text = text[: len(text) * 2 // 3]
    elif shape == "latin":
        return text.encode().replace(b"Hi", b"H\xff\xfe\xed\xa0\x80")
    elif shape != "nameless":
        text = shape.replace("{}", text)
    return text.encode(errors="surrogatepass")


def _bounded(name: str, text: str) -> str:
    """Values that would be right and take minutes are made small; all others are left."""
    if name not in _BOUNDED and name != "n":
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(_small(name, value)) if _is_large(name, value) else text


def _tame(body: dict[str, Any]) -> None:
    for name in ("n", *_BOUNDED & body.keys()):
        if name in body and _is_large(name, body[name]):
            body[name] = _small(name, body[name])
    if not _BOUNDED & body.keys():
        body["max_output_tokens" if "input" in body else "max_tokens"] = MOST_TOKENS


def _is_large(name: str, value: Any) -> bool:
    if value is None:
        return name != "n"
    # Also of integers that no float can hold, and of what is no number at all.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and MOST_TOKENS < value < 10_000


def _small(name: str, value: Any) -> int:
    return MOST_TOKENS


def _send(session: requests.Session, found: Found, **request: Any) -> None:
    found.cases += 1
    try:
        answer = session.request(**{**request, "timeout": LONGEST_S})
    except requests.Timeout:
        found.failures.append(f"no answer within {LONGEST_S} s: {_told(request)}")
        return
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, UnicodeError):
        # What no client can send is no case.
        found.cases -= 1
        return
    except requests.ConnectionError as error:
        found.failures.append(f"{error}: {_told(request)}")
        return
    found.statuses[answer.status_code] = found.statuses.get(answer.status_code, 0) + 1
    if answer.status_code >= 500:
        found.failures.append(f"{answer.status_code} {answer.text[:200]}: {_told(request)}")
    elif b'data: {"error"' in answer.content and b'"server_error"' in answer.content:
        found.failures.append(f"a stream that fails {answer.text[-300:]}: {_told(request)}")


def _told(request: Mapping[str, Any]) -> str:
    shown = {name: value for name, value in request.items() if value and name != "headers"}
    return " ".join(f"{name}={str(value)[:700]}" for name, value in shown.items())
