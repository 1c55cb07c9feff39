"""Several answers at once as columns of HTML: side by side, with facts and word differences. Knows no Gradio."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from difflib import SequenceMatcher
from html import escape
from typing import Any

from gateway.tabs import AskError, PageClient
from gateway_playground.conversation import Turn
from gateway_playground.question import Question, ask
from gateway_playground.render import facts
from gateway_playground.tabs.tables import table

UPDATE_S = 0.1
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class Columns:
    """Questions that are answered in parallel, each in a column of its own and in its own order."""

    def __init__(self, client: PageClient, questions: list[Question], *, blind: bool = False) -> None:
        """`blind`: names and facts, which would give a model away, are not in the HTML."""
        self._client = client
        self._questions = questions
        self._blind = blind
        self.turns = [Turn(str(question.messages[-1]["content"]), question.model) for question in questions]

    async def run(self) -> AsyncGenerator[None]:
        """Ask all; comes back now and then while they grow. Closing it ends every generation."""
        tasks = [
            asyncio.create_task(self._answer(question, turn))
            for question, turn in zip(self._questions, self.turns, strict=True)
        ]
        try:
            waiting = set(tasks)
            while waiting:
                yield
                _, waiting = await asyncio.wait(waiting, timeout=UPDATE_S)
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, question: Question, turn: Turn) -> None:
        began = time.perf_counter()
        try:
            async with aclosing(ask(self._client, question)) as pieces:
                async for piece in pieces:
                    turn.add(piece, time.perf_counter() - began)
        except AskError as failure:
            turn.failure = failure.message
        turn.done = True

    def html(self, *, diff: bool) -> str:
        """All columns. `diff`: words that the first answer does not have are marked, and those it has alone struck."""
        first = self.turns[0].answer
        return (
            '<div class="columns">'
            + "".join(
                self._column(index, turn, first if diff and index else None) for index, turn in enumerate(self.turns)
            )
            + "</div>"
        )

    def _column(self, index: int, turn: Turn, against: str | None) -> str:
        name = f"Answer {'ABCD'[index]}" if self._blind else turn.model
        text = escape(turn.answer) if against is None else differences(against, turn.answer)
        if turn.failure:
            # A failure names its model.
            said = "This model failed." if self._blind else turn.failure
            under = f'<p class="notice" role="alert">{escape(said)}</p>'
        else:
            told = "complete" if self._blind else facts(turn)
            under = f'<p class="facts">{escape(told if turn.done else "…")}</p>'
        title = escape(name)
        return f'<section aria-label="{title}"><h3>{title}</h3><div class="said">{text}</div>{under}</section>'


def differences(old: str, new: str) -> str:
    """`new` as HTML: words that are not in `old` in `<ins>`, words of `old` that are gone in `<del>`."""
    before, after = _WORDS.findall(old), _WORDS.findall(new)
    shown: list[str] = []
    for kind, start, end, from_, to in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = escape("".join(before[start:end])), escape("".join(after[from_:to]))
        if kind == "equal":
            shown.append(come)
            continue
        shown += [f"<del>{gone}</del>"] if gone else []
        shown += [f"<ins>{come}</ins>"] if come else []
    return "".join(shown)


def leaderboard(rows: list[dict[str, Any]], votes: int) -> str:
    """The arena's table as HTML."""
    if not rows:
        return '<p class="quiet">Nobody has voted yet.</p>'
    lines = [
        (
            str(row["rank"]), escape(str(row["model"])), f"{row['rating']:.0f}",
            f"{row['low']:.0f} – {row['high']:.0f}", str(row["votes"]),
        )
        for row in rows
    ]  # fmt: skip
    title = f"{votes} vote{'' if votes == 1 else 's'}; Bradley-Terry, 400 points are odds of ten to one"
    return table(title, ("#", "Model", "Rating", "95 % interval", "Votes"), lines, "")
