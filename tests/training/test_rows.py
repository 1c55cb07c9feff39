"""What is read from a file of rows, and what is said of lines that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway_training.rows import ChatRow, TextRow, read_rows
from tests.training.conftest import COLOURS, Write, chat

BAD = {
    '{"messages": [': "is not JSON: ",
    "[1, 2]": "is no JSON object but list",
    '{"text": "x"}': "has neither `messages` nor `prompt` and `completion` (it has: text)",
    '{"messages": [], "prompt": "a"}': "has both `messages` and `prompt`",
    '{"messages": []}': "messages: is empty",
    '{"messages": [{"role": "user", "content": "a"}]}': "messages: the last one is the user's",
    json.dumps(chat("a", " ")): "the last answer is empty",
    '{"messages": [{"role": "pirate", "content": "a"}]}': "messages.0.role: ",
    '{"messages": [{"role": "user", "content": 3}]}': "messages.0.content: ",
    '{"prompt": "a"}': "completion: Field required",
    '{"prompt": "a", "completion": ""}': "completion: is empty",
    '{"prompt": 1, "completion": "b"}': "prompt: ",
}


def test_rows_of_both_kinds_are_read_with_their_lines(write_rows: Write) -> None:
    rows = read_rows(write_rows([chat("a", "b"), "", {"prompt": "c", "completion": "d", "id": 7}]))
    assert [(line, type(row)) for line, row in rows.good] == [(1, ChatRow), (3, TextRow)]
    assert rows.bad == []
    assert len(rows.digest) == 64


@pytest.mark.parametrize("line", BAD)
def test_a_bad_line_is_told_with_its_reason(line: str, write_rows: Write) -> None:
    rows = read_rows(write_rows([chat("a", "b"), line]))
    assert [bad.line for bad in rows.bad] == [2]
    assert BAD[line] in rows.bad[0].reason


def test_bytes_that_are_no_text_are_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n')
    rows = read_rows(path)
    assert (rows.bad[0].line, rows.bad[0].reason) == (2, "is not UTF-8 (byte 13 of the line)")


def test_too_many_bad_rows_are_refused_with_the_first_of_them(write_rows: Write) -> None:
    rows = read_rows(write_rows([*COLOURS, *BAD]))
    with pytest.raises(ConfigError) as raised:
        rows.refuse_too_many_bad(0.3)
    lines = raised.value.message.splitlines()
    assert lines[0].endswith("12 of 24 rows are bad, more than --max-bad 0.3")
    assert [line.split("train.jsonl:")[1].split(":")[0] for line in lines[1:6]] == ["13", "14", "15", "16", "17"]
    assert lines[6] == "… and 7 more"
    rows.refuse_too_many_bad(0.5)


def test_a_file_without_a_usable_row_is_refused(write_rows: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 of 1 rows are bad; all of them"):
        read_rows(write_rows(["{}"])).refuse_too_many_bad(1.0)
    with pytest.raises(ConfigError, match="holds no rows"):
        read_rows(write_rows([""])).refuse_too_many_bad(1.0)
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl")
