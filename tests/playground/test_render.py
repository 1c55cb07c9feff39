"""Text of prompts and answers as the page may show it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_playground.conversation import Turn
from gateway_playground.render import facts, messages, safe, turn_of, unsafe

J = "\u2060"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain *text*", "plain *text*"),
        ("a < b && c > d", "a < b && c > d"),
        ("<script>x</script>", f"<{J}script>x<{J}/script>"),
        ("<!-- --> <?x?>", f"<{J}!-- --> <{J}?x?>"),
        ("![a](http://h/x.png)", f"!{J}[a](http://h/x.png)"),
        ("&lt;b&gt; &#60;", f"&{J}lt;b&{J}gt; &{J}#60;"),
        # Also where it looks like code: a reader of Markdown may see it otherwise.
        ("`<b>`", f"`<{J}b>`"),
        ("\\`<b>`", f"\\`<{J}b>`"),
        ("1. a\n\n   ```\n<b>", f"1. a\n\n   ```\n<{J}b>"),
        ("```a`\n<b>", f"```a`\n<{J}b>"),
        ("- ~~~  Mermaid\n", f"- ~~~  {J}Mermaid\n"),
        ("$$a<b$$", f"$$a<{J}b$$"),
    ],
)
def test_html_images_and_diagrams_are_text(text: str, shown: str):
    assert safe(text) == shown


def test_facts_tell_speed_after_the_first_token():
    turn = Turn("q", "m", "a", target="replica-1", pieces=11, first_token_s=0.25, last_token_s=1.25, done=True)
    assert facts(turn) == "10.0 tokens/s · first token 250 ms · about 11 tokens · replica-1"
    turn.prompt_tokens = 1234
    turn.completion_tokens = 21
    turn.length_limited = True
    assert facts(turn) == (
        "20.0 tokens/s · first token 250 ms · 21 tokens · prompt 1,234 · replica-1 · ended at max tokens"
    )


def test_facts_claim_no_speed_where_all_came_at_once():
    turn = Turn("q", "m", "a", pieces=1, completion_tokens=50, first_token_s=1.5, last_token_s=1.5, done=True)
    assert facts(turn) == "first token 1.50 s · 50 tokens · m"


def test_a_failure_is_shown_in_place_of_facts_and_cannot_be_markup():
    turn = Turn("q", "m", "half", failure="no *such* <b>model</b>\nat all", done=True)
    assert messages([turn])[-1]["content"] == ["half", rf"**no \*such\* <{J}b>model<{J}/b> at all**"]


def test_reasoning_stands_before_its_answer():
    shown = messages([Turn("q", "m", "a", reasoning="because", done=True)])
    assert [message["content"] for message in shown][:2] == ["q", "because"]
    assert shown[1]["metadata"] == {"title": "Reasoning", "status": "done"}


@settings(deadline=None)
@given(text=st.text(alphabet="ab<>&;!#[]()`~ \n\tltmp$*\\"))
def test_what_a_person_edits_is_what_they_had_written(text: str):
    assert unsafe(safe(text)) == text


def test_the_question_of_a_message_is_found():
    turns = [
        Turn("a", "m", answer="x", reasoning="hm", done=True),
        Turn("b", "m", failure="down", done=True),
        Turn("c", "m"),
    ]
    shown = messages(turns)
    questions = [index for index, message in enumerate(shown) if message["role"] == "user"]
    assert [turn_of(turns, index) for index in questions] == [0, 1, 2]
    assert turn_of(turns, [questions[1], 0]) is None
    assert [turn_of(turns, index) for index in range(len(shown)) if index not in questions] == [None] * 3
