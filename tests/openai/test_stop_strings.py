"""The same text is cut at the same place, however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.openai.stop_strings import StopStrings

ALPHABET = st.text("ab", min_size=1, max_size=4)


def run(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, bool]:
    watch = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += watch.push(piece)
        if watch.met:
            return shown, True
    return shown + watch.flush(), False


@given(st.lists(ALPHABET, max_size=8), st.lists(ALPHABET, min_size=1, max_size=3))
def test_pieces_do_not_matter(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    found = run(pieces, tuple(stops))
    assert found == run(list(text), tuple(stops))
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    assert found[1] == bool(ends)
    if ends:
        first = min(ends)
        assert any(found[0] + stop == text[:first] for stop in stops)
        assert len(found[0]) == min(first - len(stop) for stop in stops if text[:first].endswith(stop))
    else:
        assert found[0] == text


@given(st.lists(ALPHABET, max_size=8), st.lists(ALPHABET, min_size=1, max_size=3))
def test_only_a_possible_start_is_held_back(pieces: list[str], stops: list[str]) -> None:
    watch = StopStrings(tuple(stops))
    fed = shown = ""
    for piece in pieces:
        fed += piece
        shown += watch.push(piece)
        if watch.met:
            return
        held = fed[len(shown) :]
        assert fed.startswith(shown)
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)


@given(st.lists(ALPHABET, max_size=8), st.integers(0, 8), st.lists(ALPHABET, min_size=1, max_size=3))
def test_what_is_whole_before_watching_begins_is_let_pass(pieces: list[str], least: int, stops: list[str]) -> None:
    watch = StopStrings(tuple(stops))
    shown = ""
    for number, piece in enumerate(pieces, 1):
        shown += watch.push(piece, watching=number > least)
        if watch.met:
            break
    else:
        shown += watch.flush()
    text, unwatched = "".join(pieces), len("".join(pieces[:least]))
    # The end of every place where a stop string stands, those before the watch left out.
    found = [
        (end, end - len(stop)) for stop in stops for end in range(unwatched + 1, len(text) + 1)
        if end >= len(stop) and text[:end].endswith(stop)
    ]  # fmt: skip
    assert shown == (text[: min(found)[1]] if found else text)
