"""The error tree: every class has its status, OpenAI's shape, and a place in the module's picture."""

from __future__ import annotations

import json
import re

import pytest

from gateway import errors
from gateway.errors import ConfigError, GatewayError, InvalidRequest, TooManyRequests, Unauthenticated


def classes(root: type[GatewayError] = GatewayError) -> list[type[GatewayError]]:
    here = [cls for cls in root.__subclasses__() if cls.__module__ == errors.__name__]
    return [root, *(cls for child in here for cls in classes(child))]


def test_the_picture_shows_every_class_with_its_status() -> None:
    drawn = dict(re.findall(r"(\w+) +(\d{3})\b", errors.__doc__ or ""))
    for cls in classes():
        if cls is GatewayError or ConfigError in cls.__mro__[1:]:
            assert cls.__name__ in (errors.__doc__ or "")
        else:
            assert drawn.pop(cls.__name__) == str(cls.status)
    assert drawn == {}


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__name__)
def test_every_error_is_told_in_the_shape_of_openai(cls: type[GatewayError]) -> None:
    error = cls("what to do", param="model")
    told = json.loads(error.to_json())["error"]
    assert told == {"message": "what to do", "type": cls.type, "param": "model", "code": cls.code}
    assert 400 <= cls.status < 600
    assert (b"content-type", b"application/json") in error.headers()
    assert str(error) == "what to do"


def test_clients_mistakes_are_told_apart_from_ours() -> None:
    for cls in classes():
        assert (cls.status < 500) == (cls.type not in {"server_error", "service_unavailable_error"}), cls


def test_headers_say_when_to_come_again_and_how_to_be_known() -> None:
    assert (b"retry-after", b"3") in TooManyRequests("later", retry_after_s=2.6).headers()
    assert (b"retry-after", b"1") in TooManyRequests("later", retry_after_s=0.01).headers()
    assert (b"www-authenticate", b"Bearer") in Unauthenticated("who?").headers()
    assert dict(InvalidRequest("no").headers()).keys() == {b"content-type"}
