"""Whatever walk a model takes over the masks, what it wrote parses and validates; no grammar is a danger."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema.validators import validator_for  # pyright: ignore[reportUnknownVariableType]

from gateway.engine import Constraint
from gateway.errors import GatewayError, InvalidRequest
from gateway.openai import guidance
from gateway.openai.grammar import Grammar, choice, json_object, json_schema, lark, regex
from gateway.openai.guidance import Guidance, of_tokens
from gateway.openai.tokenizer import HuggingFaceTokenizer
from gateway_echo.tokenizer import ByteTokenizer

LONGEST = 250


@pytest.fixture(scope="module")
def tokenizer(smollm2_folder: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(smollm2_folder)


class Walk:
    """Takes any allowed token; after some, those that bring the text to its end where there is a way."""

    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ends = np.array(sorted(tokenizer.eos_token_ids))
        self._mask = np.zeros((tokenizer.vocab_size + 31) // 32, np.int32)
        pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
        self._cost = np.array([100 * _urgency(piece[:1]) + len(piece) for piece in pieces])

    def text(self, make: Callable[[], Constraint], seed: int, free: int = 25) -> str | None:
        """What was written, ends included; None where it did not end."""
        constraint, dice, ids = make(), random.Random(seed), list[int]()
        for step in range(LONGEST):
            constraint.allow(self._mask)
            allowed = np.flatnonzero(np.unpackbits(self._mask.view(np.uint8), bitorder="little"))
            assert len(allowed)
            is_end = np.isin(allowed, self._ends)
            if is_end.all() or (step > free and is_end.any()):
                constraint.accept(int(dice.choice(self._ends)))
                return self._tokenizer.decode(ids)
            texts = allowed[~is_end]
            if step > free:
                cost = self._cost[texts]
                texts = texts[cost == cost.min()]
            token = int(dice.choice(texts))
            constraint.accept(token)
            ids.append(token)
        return None


def _urgency(first: bytes) -> int:
    """0 for what closes most of JSON."""
    return next((rank for rank, kind in enumerate((b'"]}', b"0123456789tfn")) if first and first in kind), 2)


@pytest.fixture(scope="module")
def walk(tokenizer: HuggingFaceTokenizer) -> Walk:
    return Walk(tokenizer)


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "additionalProperties": False},
    {"type": "object"},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"enum": ["red", "green", 3, None]}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": "string", "minLength": 3, "maxLength": 9},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "something of one's own"},
    {"type": "integer", "minimum": -5, "maximum": 120},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "integer", "multipleOf": 5},
    {"const": {"a": [1, "x"], "format": "kept"}},
    {"enum": ["\"quoted\"", "new\nline", "snow \N{SNOWMAN}", {"format": "date"}]},
    {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}]},
    {"oneOf": [{"type": "boolean"}, {"type": "string", "maxLength": 4}]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 7}]},
    {"type": ["string", "null"], "maxLength": 5},
    {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"format": {"type": "integer"},
     "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["format", "next"],
     "additionalProperties": False}}},
    {"type": "object", "patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False},
    {"title": "T", "description": "d", "default": 1, "examples": [1], "$schema": "http://json-schema.org/draft-07/schema#",
     "type": "integer", "x-guidance": {"whitespace_pattern": " *", "lenient": True}},
]  # fmt: skip


class TestJson:
    @pytest.mark.parametrize("schema", SCHEMAS, ids=[json.dumps(schema)[:60] for schema in SCHEMAS])
    async def test_every_walk_validates(
        self, tokenizer: HuggingFaceTokenizer, walk: Walk, schema: dict[str, Any]
    ) -> None:
        make = await tokenizer.guidance.compile(json_schema(schema, "s"))
        judge: Any = validator_for(schema)(schema)
        texts = [walk.text(make, seed) for seed in range(3)]
        ended = [text for text in texts if text is not None]
        assert ended, "no walk came to an end"
        for text in ended:
            judge.validate(msgspec.json.decode(text))
            assert not re.search(r"^\s|\s$", text)

    async def test_an_object_is_an_object(self, tokenizer: HuggingFaceTokenizer, walk: Walk) -> None:
        make = await tokenizer.guidance.compile(json_object())
        texts = [walk.text(make, seed, free=12) for seed in range(6)]
        assert all(isinstance(json.loads(text), dict) for text in texts if text is not None)
        assert any(texts)

    async def test_no_space_runs_on(self, tokenizer: HuggingFaceTokenizer) -> None:
        make = await tokenizer.guidance.compile(json_schema(SCHEMAS[0], "s"))
        for written, follows in [('{"name": "a", "age": 1}', True), ('{"name":"a","age":1}', True),
                                 ('{"name":  "a"', False), ('{\n', False), ('{"name": "a" ', False)]:  # fmt: skip
            assert takes(make, tokenizer, written) == follows, written


class TestEnds:
    async def test_only_where_the_text_may_end(self, tokenizer: HuggingFaceTokenizer) -> None:
        make = await tokenizer.guidance.compile(regex("ab?", "r"))
        constraint = make()
        assert not allowed(constraint, tokenizer) & tokenizer.eos_token_ids
        constraint.accept(tokenizer.encode("a")[0])
        assert tokenizer.eos_token_ids < allowed(constraint, tokenizer)
        constraint.accept(tokenizer.encode("b")[0])
        # Complete: nothing but an end, however often an engine that ignores ends comes back.
        for _ in range(3):
            assert allowed(constraint, tokenizer) == tokenizer.eos_token_ids
            constraint.accept(min(tokenizer.eos_token_ids))

    async def test_rows_beyond_the_vocabulary_are_never_allowed(self, tokenizer: HuggingFaceTokenizer) -> None:
        make = await tokenizer.guidance.compile(regex(".*", "r"))
        exact, wide = np.zeros(1536, np.int32), np.full(1600, -1, np.int32)
        narrow, sparse = np.full(700, -1, np.int32), np.full(3072, -1, np.int32)[::2]
        for mask in (exact, wide, narrow, sparse):
            make().allow(mask)
        assert not wide[1536:].any()
        assert (wide[:1536] == exact).all() and (narrow == exact[:700]).all() and (sparse == exact).all()

    async def test_sequences_do_not_share_their_place(self, tokenizer: HuggingFaceTokenizer) -> None:
        make = await tokenizer.guidance.compile(choice(["yes", "no"], "c"))
        one, other = make(), make()
        one.accept(tokenizer.encode("no")[0])
        assert allowed(one, tokenizer) == tokenizer.eos_token_ids
        assert tokenizer.encode("yes")[0] in allowed(other, tokenizer)


class TestTexts:
    @pytest.mark.parametrize(
        "pattern", [r"\d{3}-\d{4}", "(yes|no)!*", r"[^a-z\s]{2,5}", "\N{SNOWMAN}{1,3} [\u00e9\u4e2d]"]
    )
    async def test_a_regex_matches_whole(self, tokenizer: HuggingFaceTokenizer, walk: Walk, pattern: str) -> None:
        make = await tokenizer.guidance.compile(regex(pattern, "r"))
        texts = [walk.text(make, seed, free=3) for seed in range(5)]
        assert all(text is not None and re.fullmatch(pattern, text) for text in texts), texts

    async def test_a_choice_is_one_of_them(self, tokenizer: HuggingFaceTokenizer, walk: Walk) -> None:
        choices = ["a", "ab", "a.b|c", " (x) ", "[\\]", "two\nlines", '"', "-/~#&^$*+?{}", "\N{SNOWMAN}"]
        make = await tokenizer.guidance.compile(choice(choices, "c"))
        found = {walk.text(make, seed) for seed in range(40)}
        assert found <= set(choices)
        assert len(found) > 5
        for text in choices:
            assert takes(make, tokenizer, text), text

    @pytest.mark.parametrize("text", ['start: "a" | "b" start', 'root ::= "a" | "b" root'])
    async def test_grammars_of_both_notations(self, tokenizer: HuggingFaceTokenizer, walk: Walk, text: str) -> None:
        make = await tokenizer.guidance.compile(lark(text, "g"))
        texts = [walk.text(make, seed) for seed in range(5)]
        assert all(text is not None and re.fullmatch("b*a", text) for text in texts), texts

    async def test_a_vocabulary_without_a_file(self) -> None:
        bytewise = ByteTokenizer()
        bytes_alone = of_tokens(bytewise, [256, 257, 258])
        constraint = (await bytes_alone.compile(choice(["ja", "nein"], "c")))()
        mask = np.zeros(9, np.int32)
        written = b""
        for step in (b"n", b"e", b"i", b"n"):
            constraint.allow(mask)
            assert not mask[8]
            constraint.accept(step[0])
            written += step
        constraint.allow(mask)
        assert (mask[:8].any(), mask[8]) == (False, 1 << (258 % 32))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


HOSTILE: list[tuple[Callable[[str], Grammar], str]] = [
    (lambda p: json_schema("x", p), "must be a JSON Schema"),
    (lambda p: json_schema(True, p), "must be a JSON Schema"),
    (lambda p: json_schema(nested(40), p), "48 levels"),
    (lambda p: json_schema({"const": json.loads("[" * 90 + "]" * 90)}, p), "48 levels"),
    (lambda p: json_schema({"properties": {f"p{i}": {} for i in range(1001)}}, p), "1000 properties"),
    (lambda p: json_schema({"enum": list(range(2001))}, p), "2000 enum values"),
    (lambda p: json_schema({"description": "x" * 10_000_000}, p), "131072 bytes"),
    (lambda p: json_schema({"$ref": "http://example.com/schema.json"}, p), "none is ever fetched"),
    (lambda p: json_schema({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, p), "none is ever fetched"),
    (lambda p: json_schema({"$ref": "#/$defs/nobody"}, p), "/$defs/nobody"),
    (lambda p: json_schema({"$ref": "#"}, p), "no text satisfies it"),
    (lambda p: json_schema({"type": "array", "uniqueItems": True}, p), "uniqueItems"),
    (lambda p: json_schema({"not": {}, "x-guidance": {"lenient": True}}, p), "not"),
    (lambda p: json_schema({"type": "frob"}, p), "frob"),
    (lambda p: json_schema({"enum": []}, p), "cannot be enforced"),
    (lambda p: json_schema({"type": "string", "pattern": "(?=a)b"}, p), "look-around"),
    (lambda p: json_schema({"allOf": [{"type": "string"}, {"type": "null"}]}, p), "cannot be enforced"),
    (lambda p: regex("", p), "regular expression"),
    (lambda p: regex(["a"], p), "regular expression"),
    (lambda p: regex("a" * 8193, p), "8192 bytes"),
    (lambda p: regex("(", p), "unclosed group"),
    (lambda p: regex("(" * 4000 + ")" * 4000, p), "cannot be enforced"),
    (lambda p: choice([], p), "at least one"),
    (lambda p: choice(["a", ""], p), "at least one"),
    (lambda p: choice([1], p), "at least one"),
    (lambda p: choice([str(i) for i in range(2001)], p), "2000 choices"),
    (lambda p: choice(["x" * 70_000], p), "65536 bytes"),
    (lambda p: lark(7, p), "must be a grammar"),
    (lambda p: lark("start: nobody", p), "nobody"),
    (lambda p: lark("start: start", p), "no text satisfies it"),
    (lambda p: lark("root ::= (((", p), "p`"),
    (lambda p: lark("start: " + "(" * 30_000, p), "nested"),
    (lambda p: lark("start: /" + "a?" * 3000 + "/", p), "cannot be enforced"),
    (lambda p: lark('start: %json {"$ref": "http://example.com/s"}', p), "cannot be enforced"),
]  # fmt: skip


@pytest.mark.parametrize("make,says", HOSTILE, ids=[says for _, says in HOSTILE])
async def test_what_cannot_be_enforced_is_said(
    tokenizer: HuggingFaceTokenizer, make: Callable[[str], Grammar], says: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await tokenizer.guidance.compile(make("p"), "p")
    assert says in raised.value.message
    assert raised.value.param == "p"
    assert len(raised.value.message) < 700


async def test_compiled_grammars_are_kept(tokenizer: HuggingFaceTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Grammar] = []
    compile_one = Guidance._compile  # pyright: ignore[reportPrivateUsage]

    def counted(self: Guidance, grammar: Grammar, param: str) -> Any:
        compiled.append(grammar)
        return compile_one(self, grammar, param)

    monkeypatch.setattr(Guidance, "_compile", counted)
    monkeypatch.setattr(guidance, "KEPT_GRAMMARS", 2)
    one, two, three = (regex(f"kept{digit}", "r") for digit in "123")
    kept = of_tokens(ByteTokenizer(), [256, 257, 258])
    for asked in (one, two, regex("kept1", "other"), three, one, two):
        await kept.compile(asked)
    assert compiled == [one, two, three, two]


def allowed(constraint: Constraint, tokenizer: HuggingFaceTokenizer) -> frozenset[int]:
    mask = np.zeros((tokenizer.vocab_size + 31) // 32, np.int32)
    constraint.allow(mask)
    return frozenset(np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist())


def takes(make: Callable[[], Constraint], tokenizer: HuggingFaceTokenizer, text: str) -> bool:
    """Whether a text can be written, token by token."""
    constraint = make()
    for token in tokenizer.encode(text, add_special_tokens=False):
        if token not in allowed(constraint, tokenizer):
            return False
        try:
            constraint.accept(token)
        except GatewayError:
            return False
    return True
