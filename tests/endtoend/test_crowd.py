"""Many people at the real page at once: each sees their own answer grow, in order, and nobody else's."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import httpx
import pytest
from playwright.sync_api import expect

from tests.playground.driver import PlaygroundPage, chromium
from tests.playground.visitor import Visitor, said
from tests.running import Gateway

pytestmark = pytest.mark.slow

PEOPLE = 20


def sentence(person: int, question: int) -> str:
    return f"P{person:02}Q{question} {'abcdefghijklmnopqrst'[person] * 3} one two three"


async def test_twenty_people_stream_at_once_in_order_and_apart(gateway: Gateway) -> None:
    """Over the page's own protocol; twenty browsers are in the proof below."""
    began: list[int] = []
    everybody_streams = asyncio.Event()

    async def visit(http: httpx.AsyncClient, person: int) -> int:
        visitor = Visitor(http, f"{gateway.url}/playground")
        await visitor.open()
        states = 0
        for question in range(2):
            asked = sentence(person, question)
            before = [
                (role, sentence(person, earlier)) for earlier in range(question) for role in ("user", "assistant")
            ]
            last = ""
            async for shown in visitor.ask(asked, "echo-slow"):
                states += 1
                now = said(shown)
                assert now[: len(before) + 1] == [*before, ("user", asked)]
                answer = now[-1][1] if now[-1][0] == "assistant" and len(now) > len(before) + 1 else ""
                # It only ever grows, and out of one's own question.
                assert answer.startswith(last)
                assert asked.startswith(answer)
                last = answer
                if last and question == 0 and person not in began:
                    began.append(person)
                    if len(began) == PEOPLE:
                        everybody_streams.set()
            assert last == asked
        return states

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:
        states = await asyncio.gather(*(visit(http, person) for person in range(PEOPLE)))
    assert everybody_streams.is_set()
    # A stream that is seen as one, not two lumps.
    assert min(states) >= 10


@pytest.mark.proof
def test_twenty_browsers_stream_at_once(gateway: Gateway) -> None:
    with chromium() as browser, ExitStack() as stack:
        tabs = [PlaygroundPage.tab(browser, f"{gateway.url}/playground") for _ in range(PEOPLE)]
        for tab in tabs:
            stack.callback(tab.close)
            tab.open()
            tab.pick("echo-slow")
            tab.prompt.fill("")
        asked = [f"{sentence(person, 0)} {'and so on ' * 20}".strip() for person in range(PEOPLE)]
        for tab, text in zip(tabs, asked, strict=True):
            tab.send(text)
        while any(tab.facts.count() == 0 for tab in tabs):
            for tab, text in zip(tabs, asked, strict=True):
                if tab.answers.count():
                    assert text.startswith(tab.answer())
        for tab, text in zip(tabs, asked, strict=True):
            expect(tab.questions).to_have_text([text])
            assert tab.answer() == text
            assert tab.complaints == []
