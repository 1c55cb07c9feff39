"""Conversations: their branches, and what a browser keeps, exports and imports of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.tabs import AskError
from gateway_playground.conversation import Conversation, Turn
from gateway_playground.documents import LONGEST, document, read_file, restore
from gateway_playground.tabs.evaluations import cases


def said(*questions: str) -> Conversation:
    turns = [Turn(one, "m", answer=f"to {one}", target="m-1", completion_tokens=2, done=True) for one in questions]
    return Conversation(turns, system="Be brief.")


def test_an_edited_question_starts_a_branch_and_the_old_one_is_kept():
    conversation = said("a", "b", "c")
    before = list(conversation.turns)
    conversation.branch(1, "B")
    assert [turn.question for turn in conversation.turns] == ["a", "B"]
    assert conversation.branches == [before]
    conversation.turns[1].answer = "to B"
    # Twice is as once, and a number that there is not is nothing.
    for number in (0, 0, 7, -1):
        conversation.switch(number)
        assert conversation.turns == before
    assert [turn.question for turn in conversation.branches[0]] == ["a", "B"]
    conversation.branch(2, "C")
    assert [[turn.question for turn in way] for way in conversation.ways()] == [
        ["a", "b", "c"], ["a", "B"], ["a", "b", "C"],
    ]  # fmt: skip
    conversation.switch(1)
    assert [turn.question for turn in conversation.turns] == ["a", "B"]
    assert len(conversation.ways()) == 3


def test_what_was_never_answered_is_no_branch():
    conversation = Conversation([Turn("a", "m", failure="down", done=True)])
    conversation.branch(0, "a")
    assert conversation.branches == []


def test_a_document_gives_the_same_conversation_again():
    conversation = said("a", "b")
    conversation.branch(1, "c")
    conversation.turns[1].answer = "to c"
    conversation.turns[1].done = True
    kept = json.loads(json.dumps(document(conversation)))
    again = Conversation()
    restore(again, kept)
    assert (again.turns, again.branches, again.system, again.id) == (
        conversation.turns, conversation.branches, "Be brief.", conversation.id,
    )  # fmt: skip
    assert document(again) == kept
    # Other tabs read the same document.
    assert [(one.question, one.answer) for one in cases.exchanges(kept)] == [("a", "to a"), ("c", "to c")]
    assert kept["messages"][0] == {"role": "system", "content": "Be brief."}
    assert document(Conversation()) is None


def test_a_title_is_the_first_question_until_a_person_gives_one():
    conversation = said("what is\nthis " + "x" * 99)
    assert (document(conversation) or {})["title"] == "what is this " + "x" * 47
    again = Conversation()
    restore(again, document(conversation))
    assert again.title == ""
    conversation.title = "Mine"
    restore(again, document(conversation))
    assert (again.title, again.name) == ("Mine", "Mine")


def test_an_answer_that_was_cut_off_with_its_page_is_over():
    conversation = Conversation([Turn("a", "m", answer="half", done=False)])
    again = Conversation()
    restore(again, document(conversation))
    assert again.turns[0].done


def test_files_of_this_page_and_of_others_are_read():
    own = {"version": 1, "conversations": [document(said("a")), document(said("b", "c"))]}
    assert [one["title"] for one in read_file(json.dumps(own))] == ["a", "b"]
    messages = [
        {"role": "system", "content": "Rhyme."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "my", "model": "other"},
    ]
    (read,) = read_file(json.dumps({"messages": messages}))
    assert read["messages"] == messages
    assert read["id"]
    assert read_file(json.dumps([{"messages": messages}]))[0]["system"] == "Rhyme."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no conversation in that file"),
        ('"text"', "no conversation in that file"),
        ('{"conversations": {}}', "no conversation in that file"),
        ("[1]", r"Conversation 1 of the file: .*Expected `object`"),
        ('{"messages": []}', "nothing was said"),
        ('{"turns": [{"question": 1, "model": "m"}]}', r"Expected `str`, got `int` - at `\$\.turns\[0\]\.question`"),
        ('{"id": "../x", "turns": [{"question": "q", "model": "m"}]}', r"\$\.id"),
        (f'{{"title": "{"x" * 201}", "messages": []}}', r"\$\.title"),
        ("x" * (LONGEST + 1), "larger than 5 MB"),
    ],
)
def test_what_is_no_conversation_is_told_where(text: str, says: str):
    with pytest.raises(AskError, match=says):
        read_file(text)


def test_a_document_that_cannot_be_read_changes_nothing():
    conversation = said("a")
    kept: Any = {"id": "x", "turns": "none"}
    with pytest.raises(AskError, match="cannot be read"):
        restore(conversation, kept)
    assert [turn.question for turn in conversation.turns] == ["a"]
