"""What text a grammar allows, as plain data: a JSON Schema, a regular expression, some choices or a Lark grammar.
Checks their sizes; compiles nothing and imports no grammar library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec

from gateway.errors import InvalidRequest

MAX_SCHEMA_BYTES = 128 * 1024
"""Of a JSON Schema as compact JSON. Compiling one this long takes a quarter of a second at most."""
MAX_SCHEMA_DEPTH = 48
"""Objects and arrays inside each other in a schema."""
MAX_PROPERTIES = 1000
"""Properties in a schema, all of its objects together."""
MAX_ENUM_VALUES = 2000
"""`enum` values in a schema, all of its lists together."""
MAX_REGEX_BYTES = 8 * 1024
MAX_CHOICES = 2000
MAX_CHOICES_BYTES = 64 * 1024
MAX_LARK_BYTES = 64 * 1024

JSON_STYLE: Final[dict[str, Any]] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": False,
    "lenient": False,
}
"""JSON on one line with at most one space after a comma or colon: a model can write as it was taught to, and can never
write white space for ever. Nothing in a schema is ignored."""

_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Formats that can be enforced. By the standard a format is a remark, so others are left out."""
_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value is an object of schemas."""
_VALUES = frozenset({"enum", "const", "default", "example", "examples"})
"""Keywords whose value is data, however much it looks like a schema."""
_json = msgspec.json.Encoder().encode
_META = re.compile(r"[\\.+*?()|\[\]{}^$#&\-~/]")


class Grammar(msgspec.Struct, frozen=True):
    """One of the four kinds; equal texts are equal grammars. Make it by the functions below."""

    kind: Literal["json", "regex", "lark"]
    text: str
    """A JSON Schema as JSON, a regular expression, or a Lark grammar."""


def json_object() -> Grammar:
    """Any JSON object."""
    return _ANY_OBJECT


def json_schema(schema: Any, param: str) -> Grammar:
    """JSON that this schema allows. Raises InvalidRequest, naming `param`, where it is no schema or too large."""
    return Grammar("json", _json(enforceable(schema, param)).decode())


def regex(pattern: Any, param: str) -> Grammar:
    """Text that a regular expression (Rust's syntax: no look-around, no back-references) matches as a whole."""
    if not isinstance(pattern, str) or not pattern:
        raise InvalidRequest(f"`{param}` must be a regular expression, as a string that is not empty", param=param)
    _limit(len(pattern.encode()), MAX_REGEX_BYTES, "bytes", param)
    return Grammar("regex", pattern)


def choice(choices: Any, param: str) -> Grammar:
    """One of these strings."""
    listed = cast(list[Any], choices) if isinstance(choices, list) else []
    if not listed or not all(isinstance(text, str) and text for text in listed):
        raise InvalidRequest(f"`{param}` must be a list of at least one string, none of them empty", param=param)
    _limit(len(listed), MAX_CHOICES, "choices", param)
    texts = cast(list[str], listed)
    _limit(sum([len(text.encode()) for text in texts]), MAX_CHOICES_BYTES, "bytes", param)
    return Grammar("regex", "|".join([_META.sub(r"\\\g<0>", text) for text in dict.fromkeys(texts)]))


def lark(text: Any, param: str) -> Grammar:
    """Text that a grammar allows: Lark's notation, or GBNF's (`root ::= …`)."""
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"`{param}` must be a grammar, as a string that is not empty", param=param)
    _limit(len(text.encode()), MAX_LARK_BYTES, "bytes", param)
    return Grammar("lark", text)


def enforceable(schema: Any, param: str) -> dict[str, Any]:
    """A client's schema as the grammar library is to read it: checked for size, and with `JSON_STYLE`.

    Also what goes into a Lark grammar after `%json`. Raises InvalidRequest, naming `param`.
    """
    if not isinstance(schema, Mapping):
        raise InvalidRequest(f"`{param}` must be a JSON Schema, as an object", param=param)
    count = _Count(param)
    copied = count.schema(cast(Mapping[str, Any], schema), 1)
    _limit(len(_json(copied)), MAX_SCHEMA_BYTES, "bytes", param)
    return {**copied, "x-guidance": JSON_STYLE}


class _Count:
    """Copies one schema and counts what is in it."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._properties = 0
        self._values = 0

    def schema(self, schema: Any, depth: int) -> Any:
        if isinstance(schema, list):
            self._deep(depth)
            return [self.schema(item, depth + 1) for item in cast(list[Any], schema)]
        if not isinstance(schema, Mapping):
            return schema
        self._deep(depth)
        copied: dict[str, Any] = {}
        for key, value in cast(Mapping[str, Any], schema).items():
            if key == "x-guidance" or (key == "format" and isinstance(value, str) and value not in _FORMATS):
                continue
            if key in _VALUES:
                self._data(key, value, depth + 1)
                copied[key] = value
            elif key in _BY_NAME and isinstance(value, Mapping):
                copied[key] = self._named(key, cast(Mapping[str, Any], value), depth + 1)
            else:
                copied[key] = self.schema(value, depth + 1)
        return copied

    def _named(self, key: str, schemas: Mapping[str, Any], depth: int) -> dict[str, Any]:
        self._deep(depth)
        if key in ("properties", "patternProperties"):
            self._properties += len(schemas)
            _limit(self._properties, MAX_PROPERTIES, "properties", self._param)
        return {name: self.schema(schema, depth + 1) for name, schema in schemas.items()}

    def _data(self, key: str, value: Any, depth: int) -> None:
        if key == "enum" and isinstance(value, list):
            self._values += len(cast(list[Any], value))
            _limit(self._values, MAX_ENUM_VALUES, "enum values", self._param)
        left: list[tuple[Any, int]] = [(value, depth)]
        while left:
            item, depth = left.pop()
            if isinstance(item, dict | list):
                self._deep(depth)
                parts = cast(dict[str, Any] | list[Any], item)
                inside = parts.values() if isinstance(parts, dict) else parts
                left.extend([(part, depth + 1) for part in inside])

    def _deep(self, depth: int) -> None:
        _limit(depth, MAX_SCHEMA_DEPTH, "levels", self._param)


def _limit(found: int, most: int, unit: str, param: str) -> None:
    if found > most:
        raise InvalidRequest(f"`{param}` is too large: it has more than {most} {unit}", param=param)


_ANY_OBJECT = json_schema({"type": "object"}, "response_format")
