"""Does an answer keep a JSON schema, and where not? Knows no page; a schema's `$ref` fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, cast

import regex
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError
from jsonschema.validators import extend, validator_for  # pyright: ignore[reportUnknownVariableType]
from referencing.exceptions import Unresolvable
from referencing.jsonschema import EMPTY_REGISTRY

LONGEST_SCHEMA = 100_000
"""Characters."""
_MOST_SHOWN = 50
_PATTERN_WITHIN_S = 0.5
"""A pattern may take exponential time; Python's own `re` would hold the whole page for it."""


class SchemaProblem(Exception):
    """A schema that is none. The message says where and why."""


def read(text: str) -> dict[str, Any]:
    """A JSON schema from what a person typed. Raises SchemaProblem."""
    if len(text) > LONGEST_SCHEMA:
        raise SchemaProblem(f"The schema is longer than {LONGEST_SCHEMA:,} characters.")
    value = decoded(text, "The schema")
    if not isinstance(value, dict):
        raise SchemaProblem('The schema is not a JSON object: begin with {"type": "object", …}.')
    schema = cast("dict[str, Any]", value)
    try:
        _validator(schema).check_schema(schema)
    except SchemaError as error:
        raise SchemaProblem(f"The schema is not valid at {error.json_path}: {_short(error.message)}") from None
    except RecursionError:
        raise SchemaProblem("The schema is nested too deeply.") from None
    return schema


def decoded(text: str, what: str) -> Any:
    """JSON that a person typed. Raises SchemaProblem that names the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaProblem(f"{what} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise SchemaProblem(f"{what} is nested too deeply.") from None


def violations(schema: dict[str, Any], answer: str) -> list[tuple[str, str]]:
    """(path, what is wrong there) of every violation, first to last; [] where the answer keeps the schema.

    Blocks, for a bounded time: call it in a thread.
    """
    try:
        value = json.loads(answer)
    except json.JSONDecodeError as error:
        return [("$", f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}")]
    except RecursionError:
        return [("$", "nested too deeply")]
    try:
        # A registry of our own: the library's default would fetch a remote `$ref` over the network.
        validator = _validator(schema)(
            schema, registry=EMPTY_REGISTRY, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        found: list[tuple[str, str]] = []
        for error in validator.iter_errors(value):
            found.append((error.json_path, _short(error.message)))
            if len(found) == _MOST_SHOWN:
                break
        return sorted(found)
    except Unresolvable as error:
        return [("$", f"cannot be checked: the schema refers to {error.ref!r}, which is not in it")]
    except TimeoutError:
        return [("$", "cannot be checked: a pattern of the schema takes too long")]
    except RecursionError:
        return [("$", "cannot be checked: the schema is nested too deeply")]


def _validator(schema: dict[str, Any]) -> Any:
    dialect: Any = validator_for(schema, default=Draft202012Validator)
    return extend(  # pyright: ignore[reportUnknownVariableType]
        dialect, {"pattern": _pattern, "patternProperties": _pattern_properties}
    )


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Generator[ValidationError]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], instance: Any, _: Any) -> Generator[ValidationError]:
    if isinstance(instance, dict):
        for pattern, schema in patterns.items():
            for name, value in instance.items():  # pyright: ignore[reportUnknownVariableType]
                if _matches(pattern, str(name)):  # pyright: ignore[reportUnknownArgumentType]
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _matches(pattern: str, text: str) -> bool:
    try:
        return regex.search(pattern, text, timeout=_PATTERN_WITHIN_S) is not None
    except regex.error:
        # What is a pattern in JavaScript and none here cannot be held against the answer.
        return True


def _short(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"
