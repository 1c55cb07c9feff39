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
from gateway_evals.suite import TaskSpec

Row = Mapping[str, Any]
"""One line of a data set: column to value."""


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


def doc_to_text(spec: TaskSpec, row: Row, where: str) -> str:
    value = row[spec.doc_to_text] if spec.doc_to_text in row else render(spec.doc_to_text, row, f"{where}.doc_to_text")
    return str(value)


def doc_to_choice(spec: TaskSpec, row: Row, where: str) -> list[str]:
    """At least two choices. Raises SuiteError."""
    where = f"{where}.doc_to_choice"
    source = spec.doc_to_choice
    value: Any = source
    if isinstance(source, str):
        value = row[source] if source in row else _listed(render(source, row, where))
    if isinstance(value, str):
        value = _listed(value)
    if not isinstance(value, list) or len(cast("list[Any]", value)) < 2:
        raise SuiteError(f"{where}: expected a list of two or more choices, found {value!r:.80}")
    choices = [str(choice) for choice in cast("list[Any]", value)]
    if "" in choices:
        raise SuiteError(f"{where}: choice {choices.index('')} is empty")
    return choices


def doc_to_target(spec: TaskSpec, row: Row, where: str) -> list[str]:
    """The texts that are right; the first one is shown in few-shot examples. Raises SuiteError."""
    value = _raw_target(spec, row, where)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        value = _listed(value)
    if isinstance(value, list):
        texts = [str(item) for item in cast("list[Any]", value)]
        if not texts:
            raise SuiteError(f"{where}.doc_to_target: the list of right answers is empty")
        return texts
    return [str(value)]


def target_choice(spec: TaskSpec, row: Row, choices: list[str], where: str) -> int:
    """The index of the right choice, from its index or its text. Raises SuiteError."""
    value = _raw_target(spec, row, where)
    written = isinstance(spec.doc_to_target, str) and spec.doc_to_target not in row and str(value).strip().isdigit()
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


def _raw_target(spec: TaskSpec, row: Row, where: str) -> Any:
    source = spec.doc_to_target
    if isinstance(source, int):
        return source
    return row[source] if source in row else render(source, row, f"{where}.doc_to_target")


def _listed(text: str) -> Any:
    """A Python list written as text, or the text as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
