"""A request as code: run, it asks exactly what the page asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from gateway_playground.question import Question
from gateway_playground.snippets import curl, python
from tests.playground.conftest import KEY
from tests.playground.house import House, on_a_port

QUESTION = Question(
    "quick",
    "/m/quick/v1",
    [
        {"role": "system", "content": 'It\'s "quoted" and $HOME `id` \\ and\nof two lines'},
        {"role": "user", "content": "日本 $(id) 'x'"},
    ],
    {"temperature": 0.5, "top_k": 3, "seed": 7, "stop": ["END", "'"]},
    KEY,
)


@pytest.fixture(scope="module")
def locked() -> Iterator[House]:
    with on_a_port(partial(House, keys=(KEY,))) as (_, house):
        yield house


@pytest.mark.parametrize("language", ["curl", "python"])
def test_it_asks_what_the_page_asked_with_the_key_of_the_environment(locked: House, language: str):
    body: dict[str, Any] = QUESTION.body()
    base = f"{locked.base_url}{QUESTION.path}"
    code = curl(base, body) if language == "curl" else python(base, body)
    assert KEY not in code
    command = ["bash", "-c", code] if language == "curl" else [sys.executable, "-c", code]
    environment = {**os.environ, "GATEWAY_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True)
    path, asked = locked.asked[-1]
    assert (path, asked) == (f"{QUESTION.path}/chat/completions", body)
    if language == "python":
        assert done.stdout == "日本 $(id) "  # the echo, up to the stop string
    else:
        assert done.stdout.rstrip().endswith("data: [DONE]")
