"""Turns a row and a task's templates into texts: what is asked, what is right, what can be chosen. Sandboxed Jinja."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway_evals.errors import SuiteError
from gateway_evals.spec import TaskSpec

Row = Mapping[str, Any]
"""One line of a data set: column to value."""

Source = str | int | list[str] | dict[str, str]
"""What a `doc_to_…` holds."""


def _regex_replace(text: str, pattern: str, repl: str = "", count: int = 0) -> str:
    return re.sub(pattern, repl, text, count=count)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True
    )
    filters = cast("dict[str, Any]", environment.filters)
    filters["regex_replace"] = _regex_replace
    return environment.from_string(source)


def render(source: str, row: Row, where: str) -> str:
    """The template over one row. Raises SuiteError that begins with `where`."""
    try:
        return _compiled(source).render(**row)
    except (TemplateError, TypeError, ValueError, ArithmeticError, re.error) as error:
        raise SuiteError(f"{where}: {error} (columns: {', '.join(row)})") from error


def column(source: str, row: Row, where: str) -> Any:
    """A column's value where `source` is one's name, else the rendered template. Raises SuiteError."""
    return row[source] if source in row else render(source, row, where)


def text_of(source: str, row: Row, where: str) -> str:
    """As `column`, as text. Raises SuiteError."""
    return str(column(source, row, where))


def doc_to_text(spec: TaskSpec, row: Row, where: str, source: str | None = None) -> str:
    return text_of(spec.doc_to_text if source is None else source, row, f"{where}.doc_to_text")


def doc_to_choice(spec: TaskSpec, row: Row, where: str, source: Source | None = None) -> list[str]:
    """At least two choices. Raises SuiteError."""
    where = f"{where}.doc_to_choice"
    source = spec.doc_to_choice if source is None else source
    value: Any = list(source.values()) if isinstance(source, dict) else source
    if isinstance(source, str):
        value = column(source, row, where)
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list) or len(cast("list[Any]", value)) < 2:
        raise SuiteError(f"{where}: expected a list of two or more choices, found {value!r:.80}")
    choices = [str(choice) for choice in cast("list[Any]", value)]
    if "" in choices:
        raise SuiteError(f"{where}: choice {choices.index('')} is empty")
    return choices


def doc_to_target(spec: TaskSpec, row: Row, where: str, source: Source | None = None) -> list[str]:
    """The texts that are right; the first one is shown in few-shot examples. Raises SuiteError."""
    value = raw_target(spec, row, where, source)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = _listed(value)
    if isinstance(value, list):
        texts = [str(item) for item in cast("list[Any]", value)]
        if not texts:
            raise SuiteError(f"{where}.doc_to_target: the list of right answers is empty")
        return texts
    return [str(value)]


def target_choices(
    spec: TaskSpec, row: Row, choices: list[str], where: str, source: Source | None = None
) -> tuple[int, ...]:
    """Indices of the right choices, from indices or texts; usually one. Raises SuiteError."""
    value = raw_target(spec, row, where, source)
    source = spec.doc_to_target if source is None else source
    written = isinstance(source, str) and source not in row
    if written and isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = _listed(value)
    if isinstance(value, list) and cast("list[Any]", value):
        return tuple(_place(each, choices, where, False) for each in cast("list[Any]", value))
    digits = written and isinstance(value, str) and value.strip().isdigit()
    return (_place(value, choices, where, digits),)


def target_choice(spec: TaskSpec, row: Row, choices: list[str], where: str) -> int:
    """The index of the right choice; the first of several. Raises SuiteError."""
    return target_choices(spec, row, choices, where)[0]


def _place(value: Any, choices: list[str], where: str, written: bool) -> int:
    # As in lm-eval: digits that a template wrote are an index; a column's text is looked for among the choices first,
    # so that "3" of the choices "10" and "3" is a choice.
    if isinstance(value, str) and not written and value.strip() in choices:
        return choices.index(value.strip())
    try:
        index = int(value)
    except (TypeError, ValueError):
        index = -1
    if not 0 <= index < len(choices):
        raise SuiteError(f"{where}.doc_to_target: {value!r} is none of the choices {choices} and no index into them")
    return index


def raw_target(spec: TaskSpec, row: Row, where: str, source: Source | None = None) -> Any:
    """What `doc_to_target` gives, before it is a text or an index. Raises SuiteError."""
    source = spec.doc_to_target if source is None else source
    return column(source, row, f"{where}.doc_to_target") if isinstance(source, str) else source


def conversation(source: str, row: Row, where: str) -> list[dict[str, str]]:
    """A whole conversation from a column: at least one message, the last one the user's. Raises SuiteError."""
    value = _json_or_literal(column(source, row, where))
    if not isinstance(value, list) or not value:
        raise SuiteError(f"{where}: expected a list of messages, found {value!r:.80}")
    messages: list[dict[str, str]] = []
    for index, message in enumerate(cast("list[Any]", value)):
        fields = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
        if fields.get("role") not in {"system", "user", "assistant"} or not isinstance(fields.get("content"), str):
            raise SuiteError(f"{where}[{index}]: expected role (system, user, assistant) and content, found {message}")
        messages.append({"role": fields["role"], "content": fields["content"]})
    if messages[-1]["role"] != "user":
        raise SuiteError(f"{where}: the last message must be the user's, so that the model answers it")
    return messages


def user_turns(source: str, row: Row, where: str) -> list[str]:
    """What the user says, turn by turn; at least one text. Raises SuiteError."""
    value: Any = _json_or_literal(column(source, row, where))
    texts = cast("list[Any]", value) if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise SuiteError(f"{where}: expected a list of texts, found {value!r:.80}")
    return [str(text) for text in texts]


def _json_or_literal(value: Any) -> Any:
    return _listed(value) if isinstance(value, str) else value


def _listed(text: str) -> Any:
    """A Python list written as text, or the text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
