"""The filter on the way back: whatever the pieces, the client's bytes are the same."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.ingress.answer import AnswerFilter
from gateway.types import Usage

EVENTS = [
    b'data: {"id":"1","model":"real","choices":[{"index":0,"delta":{"content":"he said \\"model\\":\\"real\\""}}]}\n\n',
    b'data: {"id":"1","model":"real","choices":[{"index":0,"delta":{"content":"\xc3\xa9"}}]}\n\n',
    b'data: {"id":"1","model":"real","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]


@given(st.lists(st.integers(0, sum(map(len, EVENTS))), max_size=8))
def test_a_stream_in_any_pieces_is_renamed_and_loses_only_its_usage_event(cuts: list[int]) -> None:
    found: list[Usage] = []
    answer = AnswerFilter("asked", "real", drop_usage=True, found=found.append)
    whole = b"".join(EVENTS)
    edges = [0, *sorted(cuts), len(whole)]
    out = b"".join(answer.chunk(whole[a:b]) for a, b in pairwise(edges)) + answer.chunk(b"", last=True)
    expected = b"".join((EVENTS[0], EVENTS[1], EVENTS[3])).replace(b'"1","model":"real"', b'"1","model":"asked"')
    assert out == expected
    assert found == [Usage(3, 2)]


def test_a_whole_answer_keeps_its_usage_and_text_that_looks_like_a_name() -> None:
    found: list[Usage] = []
    answer = AnswerFilter("asked", "real", drop_usage=True, found=found.append)
    usage = b'"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    body = b'{"model":"real","choices":[{"text":"\\"model\\":\\"real\\""}],' + usage
    assert answer.whole(body) == body.replace(b'{"model":"real"', b'{"model":"asked"')
    assert found == [Usage(1, 2)]


def test_bytes_pass_untouched_where_nothing_is_to_be_changed() -> None:
    answer = AnswerFilter("real", "real", drop_usage=False, found=lambda _: None)
    assert answer.chunk(EVENTS[0]) is EVENTS[0]
