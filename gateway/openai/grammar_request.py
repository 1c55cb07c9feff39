"""Where a request asks for a grammar: OpenAI's `response_format`, vLLM's `structured_outputs`, and the older `guided_…`
fields. Reads and checks them; knows no engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from gateway.errors import InvalidRequest, Unsupported
from gateway.openai.grammar import Grammar, choice, json_object, json_schema, lark, regex

if TYPE_CHECKING:
    from gateway.engine import Constraint, Tokenizer
    from gateway.openai.guidance import Guidance
    from gateway.openai.requests import GenerateRequest

FIELDS = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")
"""Every field that may ask for one."""


class AskedGrammar(NamedTuple):
    """What the answer must obey, and the field that says so."""

    grammar: Grammar
    param: str


def asked_grammar(request: GenerateRequest, engine: str) -> AskedGrammar | None:
    """The grammar of a request; None where it asks for none. Raises as `read_grammar`."""
    values = _values(request)
    if values.count(None) == len(values):
        return None
    return read_grammar(dict(zip(FIELDS, values, strict=True)), engine)


async def constraints(asked: AskedGrammar | None, tokenizer: Tokenizer, engine: str) -> Callable[[], Constraint | None]:
    """What gives each sequence of a request its constraint. Raises as `Guidance.compile`; Unsupported, naming `engine`,
    where its tokenizer brings no `guidance`."""
    if asked is None:
        return _unconstrained
    guidance = getattr(tokenizer, "guidance", None)
    if guidance is None:
        raise Unsupported(f"the {engine} engine does not support `{asked.param}`", param=asked.param)
    return await cast("Guidance", guidance).compile(asked.grammar, asked.param)


def _unconstrained() -> None:
    return None


def read_grammar(fields: Mapping[str, Any], engine: str) -> AskedGrammar | None:
    """The grammar that `FIELDS` of a request ask for. Raises InvalidRequest, naming the field, where it is malformed,
    too large or not the only one; Unsupported, naming `engine`, for what no grammar of ours can say."""
    found: list[AskedGrammar] = []
    for name, value in fields.items():
        read = _READERS.get(name)
        asked = read(value, name, engine) if read is not None and value is not None else None
        if asked is not None:
            found.append(asked)
    if len(found) > 1:
        names = " and ".join([f"`{asked.param}`" for asked in found])
        raise InvalidRequest(f"only one of {names} can hold", param=found[1].param)
    return found[0] if found else None


def _response_format(value: Any, name: str, engine: str) -> AskedGrammar | None:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"`{name}` must be an object with a `type`", param=name)
    fields = cast(Mapping[str, Any], value)
    kind = fields.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return AskedGrammar(json_object(), name)
    if kind == "json_schema":
        param = f"{name}.json_schema"
        held = fields.get("json_schema")
        if not isinstance(held, Mapping):
            raise InvalidRequest(f"`{param}` must be an object with a `schema`", param=param)
        param = f"{param}.schema"
        return AskedGrammar(json_schema(cast(Mapping[str, Any], held).get("schema"), param), param)
    if isinstance(kind, str):
        raise Unsupported(
            f"the {engine} engine does not support a `{name}` of type {kind[:100]!r}: text, json_object, json_schema",
            param=f"{name}.type",
        )
    raise InvalidRequest(f"`{name}.type` must be text, json_object or json_schema", param=f"{name}.type")


def _structured_outputs(value: Any, name: str, engine: str) -> AskedGrammar | None:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"`{name}` must be an object", param=name)
    given = {key: held for key, held in cast(Mapping[str, Any], value).items() if held is not None}
    if given.get("json_object") is False:
        del given["json_object"]
    for key in ("structural_tag", "whitespace_pattern", "disable_additional_properties"):
        if given.get(key):
            raise Unsupported(f"the {engine} engine does not support `{name}.{key}`", param=f"{name}.{key}")
    kinds = [key for key in _KINDS if key in given]
    if len(kinds) > 1:
        raise InvalidRequest(f"`{name}` holds {' and '.join(kinds)}: only one can hold", param=name)
    if not kinds:
        if not given:
            return None
        raise InvalidRequest(f"`{name}` must hold one of {', '.join(_KINDS)}", param=name)
    kind = kinds[0]
    return _KINDS[kind](given[kind], f"{name}.{kind}", engine)


def _json(value: Any, param: str, engine: str) -> AskedGrammar:
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidRequest(f"`{param}` is not JSON: {error}", param=param) from error
    return AskedGrammar(json_schema(value, param), param)


def _json_object(value: Any, param: str, engine: str) -> AskedGrammar:
    if value is not True:
        raise InvalidRequest(f"`{param}` must be true or false", param=param)
    return AskedGrammar(json_object(), param)


def _regex(value: Any, param: str, engine: str) -> AskedGrammar:
    return AskedGrammar(regex(value, param), param)


def _choice(value: Any, param: str, engine: str) -> AskedGrammar:
    return AskedGrammar(choice(value, param), param)


def _lark(value: Any, param: str, engine: str) -> AskedGrammar:
    return AskedGrammar(lark(value, param), param)


_Reader = Callable[[Any, str, str], AskedGrammar | None]
_KINDS: dict[str, _Reader] = {
    "json": _json,
    "regex": _regex,
    "choice": _choice,
    "grammar": _lark,
    "json_object": _json_object,
}
_READERS: dict[str, _Reader] = {
    "response_format": _response_format,
    "structured_outputs": _structured_outputs,
    "guided_json": _json,
    "guided_regex": _regex,
    "guided_choice": _choice,
    "guided_grammar": _lark,
}
_values: Callable[[GenerateRequest], tuple[Any, ...]] = attrgetter(*FIELDS)
