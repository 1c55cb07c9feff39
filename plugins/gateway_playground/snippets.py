"""A request as code that a person can run: curl, and Python with OpenAI's client. A key is never in it."""

from __future__ import annotations

import json
import shlex
from typing import Any

_OWN = frozenset({"top_k", "min_p", "repetition_penalty"})
"""Fields that OpenAI's client takes in `extra_body` only."""


def curl(base: str, body: dict[str, Any]) -> str:
    """For a POSIX shell. `base` ends in `/v1`."""
    return (
        f"curl -sN {shlex.quote(base + '/chat/completions')} \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        '  -H "Authorization: Bearer $GATEWAY_API_KEY" \\\n'
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )


def python(base: str, body: dict[str, Any]) -> str:
    """For OpenAI's client. `base` ends in `/v1`."""
    extra = {name: value for name, value in body.items() if name in _OWN}
    arguments = [f"    {name}={value!r}," for name, value in body.items() if name not in _OWN]
    arguments += [f"    extra_body={extra!r},"] if extra else []
    return "\n".join(
        [
            "import os",
            "",
            "from openai import OpenAI",
            "",
            f'client = OpenAI(base_url={base!r}, api_key=os.environ.get("GATEWAY_API_KEY", "none"))',
            "stream = client.chat.completions.create(",
            *arguments,
            ")",
            "for chunk in stream:",
            "    if chunk.choices:",
            '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
        ]
    )
