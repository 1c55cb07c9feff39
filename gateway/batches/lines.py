"""A batch's input, line by line: what a request is, and what is wrong with one that is none."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""Where a batch's requests may go."""
MAX_LINES = 50_000
MAX_ERRORS = 100
"""Errors that are told of one file."""


class Line(NamedTuple):
    """One request of a batch."""

    custom_id: str
    body: bytes


class _Request(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw
    method: str = "POST"
    url: str = ""


_decode = msgspec.json.Decoder(_Request).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_lines(content: bytes, endpoint: str) -> tuple[list[Line], list[dict[str, Any]]]:
    """The requests of a file, and every error that was found, as OpenAI tells them; with errors no request counts."""
    lines: list[Line] = []
    errors: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, raw in enumerate(content.split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = _read(raw, endpoint, seen)
        except _Wrong as wrong:
            errors.append({"code": wrong.code, "line": number, "message": wrong.message, "param": wrong.param})
            if len(errors) == MAX_ERRORS:
                break
        else:
            seen.add(line.custom_id)
            lines.append(line)
        if len(lines) > MAX_LINES:
            message = f"a batch holds at most {MAX_LINES} requests"
            return [], [{"code": "too_many_tasks", "line": number, "message": message, "param": None}]
    if not lines and not errors:
        errors.append({"code": "empty_file", "line": None, "message": "the file holds no request", "param": None})
    return lines, errors


def _read(raw: bytes, endpoint: str, seen: set[str]) -> Line:
    try:
        request = _decode(raw)
        fields = _fields(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Wrong("invalid_json_line", f"the line is no request: {error}") from None
    if request.method != "POST":
        raise _Wrong("invalid_method", f"`method` must be POST, not {request.method[:20]!r}", "method")
    if request.url != endpoint:
        raise _Wrong("mismatched_url", f"`url` must be the batch's endpoint, {endpoint}", "url")
    if not request.custom_id or len(request.custom_id) > 512:
        raise _Wrong("invalid_custom_id", "`custom_id` must have 1 to 512 characters", "custom_id")
    if request.custom_id in seen:
        raise _Wrong("duplicate_custom_id", f"`custom_id` {request.custom_id[:64]!r} stands twice", "custom_id")
    for name in ("stream", "background"):
        if bytes(fields.get(name, b"")) == b"true":
            raise _Wrong(
                "invalid_request", f"a batch's answers come as a file: `{name}` cannot be true", f"body.{name}"
            )
    return Line(request.custom_id, bytes(request.body))


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
