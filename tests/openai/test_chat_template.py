"""Templates run in a sandbox, with what Hugging Face's templates expect, and fail as requests fail."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gateway.errors import InvalidRequest, SourceError
from gateway.openai.chat_template import ChatTemplate

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    "text,rendered",
    [
        ("{{ bos_token }}{% for m in messages %}\n  {{ m['content'] }}\n{% endfor %}", "<s>  hi\n"),
        ("  {% if true %}\nx\n  {% endif %}\n", "x\n"),
        ("{% for m in [1, 2, 3] %}{% if m == 2 %}{% break %}{% endif %}{{ m }}{% endfor %}", "1"),
        ("{{ {'a': '<é>', 'b': 1} | tojson }}", '{"a": "<é>", "b": 1}'),
        ("{{ {'a': 1} | tojson(indent=1) }}", '{\n "a": 1\n}'),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ strftime_now('%Y') }}", str(datetime.datetime.now().year)),
        ("{% if add_generation_prompt %}go{% endif %}{% if tools %}tools{% endif %}", "go"),
        ("{{ thinking }}", "yes"),
    ],
)
def test_has_what_templates_use(text: str, rendered: str) -> None:
    assert ChatTemplate(text, {"bos_token": "<s>"}).render(MESSAGES, thinking="yes") == rendered


@pytest.mark.parametrize(
    "text",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages[7].content.x }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(99999999) %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_what_a_template_refuses_or_may_not_do_is_the_requests_fault(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(text).render(MESSAGES)
    assert caught.value.param == "messages"


def test_a_text_that_is_no_template_is_the_sources_fault() -> None:
    with pytest.raises(SourceError, match="line 2"):
        ChatTemplate("\n{% if %}")
