"""A model's chat template: Jinja written by whoever made the model, so it runs in a sandbox and is compiled once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import InvalidRequest, SourceError


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what training learns from; here its content is just content."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes for HTML, which models have not been trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """One template, in the environment that Hugging Face's templates are written for."""

    def __init__(self, text: str, variables: Mapping[str, Any] | None = None) -> None:
        """`variables`: what the tokenizer adds, such as `bos_token`. Raises SourceError where `text` is no template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            autoescape=False,
        )
        environment.filters["tojson"] = _to_json
        cast("dict[str, Any]", environment.globals).update(raise_exception=_refuse, strftime_now=_now)
        self.text = text
        self._variables = dict(variables or {})
        try:
            self._template = environment.from_string(text)
        except TemplateSyntaxError as error:
            raise SourceError(f"the chat template cannot be read: {error.message} (line {error.lineno})") from error

    def render(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        """The prompt. Raises InvalidRequest where the template refuses the messages or stumbles over them."""
        settings: dict[str, Any] = {"add_generation_prompt": True, "tools": None, "documents": None}
        settings.update(self._variables)
        settings.update(kwargs)
        try:
            return self._template.render(messages=messages, **settings)
        except TemplateError as error:
            raise InvalidRequest(f"the chat template refuses the messages: {error}", param="messages") from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            # The template's code met values that its author did not think of.
            reason = f"{type(error).__name__}: {error}"
            raise InvalidRequest(f"the chat template cannot take these messages: {reason}", param="messages") from error
