"""Compare: one prompt, two to four models, side by side or blind with a vote. Knows Gradio and the arena's pages."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, cast

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.columns import Columns, leaderboard
from gateway_playground.page import QUICK
from gateway_playground.question import Question

VOTES = (("A is better", "model_a"), ("B is better", "model_b"), ("Tie", "tie"), ("Both are bad", "both_bad"))
MOST = 4


def build(context: PageContext) -> None:
    """The whole tab."""
    _Compare(context)


class _Compare:
    def __init__(self, context: PageContext) -> None:
        self.context = context
        with gr.Column(elem_classes="room"):
            self._place()
        self._connect()

    def _place(self) -> None:
        options = self.context.options
        self.battle = gr.State(list[str]())
        """The two models of a blind comparison that waits for its vote; never sent to the browser."""
        self.models = self.context.picker(
            label="Models", multiselect=True, max_choices=MOST, elem_id="compare-models",
            info="Two to four. For a blind comparison: whom to draw from; empty means all.",
        )  # fmt: skip
        self.prompt = gr.Textbox(
            label="Prompt for all", placeholder="Ask all of them", lines=2, max_lines=8, elem_id="compare-prompt"
        )
        with gr.Row():
            self.system = gr.Textbox(options["system_prompt"], label="System prompt for all", lines=1, max_lines=4)
            self.temperature = gr.Slider(0, 2, value=options["temperature"], step=0.05, label="Temperature for all")
            self.max_tokens = gr.Number(options["max_tokens"], label="Max tokens for all", minimum=1, precision=0)
        with gr.Row():
            self.ask = gr.Button("Compare", variant="primary", elem_id="compare-ask")
            self.blind = gr.Button("Blind, then vote", elem_id="compare-blind")
            self.stop = gr.Button("Stop all", variant="stop", elem_id="compare-stop")
            self.diff = gr.Checkbox(label="Mark words that differ from the first", elem_id="compare-diff")
        self.shown = gr.HTML("", label="Answers side by side", elem_id="compare-answers")
        with gr.Row(visible=False, elem_id="compare-votes") as self.vote_row:
            self.votes = [gr.Button(title) for title, _ in VOTES]
        self.result = gr.HTML("", label="Vote", elem_id="compare-result")
        with gr.Accordion("Leaderboard", open=False, elem_id="compare-board"):
            self.board = gr.HTML("", label="Leaderboard")
            self.refresh = gr.Button("Refresh leaderboard", size="sm")

    def _connect(self) -> None:
        page = self.context
        asked_with = [
            self.models, page.models, page.key, self.prompt, self.system, self.temperature, self.max_tokens, self.diff
        ]  # fmt: skip
        streams: dict[str, Any] = {
            "inputs": asked_with,
            "outputs": [self.shown, self.battle, self.vote_row, self.result],
            "concurrency_limit": page.options["max_streams"],
            "concurrency_id": "answers",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        runs: Any = [self.ask.click(self._side_by_side, **streams), self.blind.click(self._blind, **streams)]
        self.stop.click(None, cancels=runs, api_visibility="private")
        for button, (_, winner) in zip(self.votes, VOTES, strict=True):
            button.click(
                self._voter(winner), [self.battle, page.key], [self.battle, self.vote_row, self.result, self.board],
                **QUICK,
            )  # fmt: skip
        self.refresh.click(self._board, [page.key], [self.board], **QUICK)
        page.tab.select(self._board, [page.key], [self.board], **QUICK)

    async def _side_by_side(self, chosen: list[str] | None, *rest: Any) -> AsyncGenerator[Any]:
        chosen = chosen or []
        if len(chosen) < 2:
            yield self._says("Pick at least two models to compare.")
            return
        async with aclosing(self._run(chosen, False, *rest)) as updates:
            async for update in updates:
                yield update

    async def _blind(self, chosen: list[str] | None, rows: list[dict[str, Any]], *rest: Any) -> AsyncGenerator[Any]:
        # A route may answer as any of the models behind it: who was judged would not be known.
        pool = chosen or [
            row["id"] for row in rows if row["gateway"].get("up") is not False and "targets" not in row["gateway"]
        ]
        if len(pool) < 2:
            yield self._says("A blind comparison needs two models that are up: pick more, or serve more.")
            return
        pair = random.SystemRandom().sample(pool, 2)
        async with aclosing(self._run(pair, True, rows, *rest)) as updates:
            async for update in updates:
                yield update

    async def _run(
        self,
        models: list[str],
        blind: bool,
        rows: list[dict[str, Any]],
        key: str | None,
        prompt: str | None,
        system: str | None,
        temperature: float | None,
        max_tokens: float | None,
        diff: bool,
    ) -> AsyncGenerator[Any]:
        if not (prompt or "").strip():
            yield self._says("Write a prompt first.")
            return
        paths = {row["id"]: row["path"] for row in rows}
        said = [{"role": "system", "content": system}] if (system or "").strip() else []
        parameters = {
            "temperature": self.context.options["temperature"] if temperature is None else float(temperature),
            "max_tokens": int(max_tokens or self.context.options["max_tokens"]),
        }
        columns = Columns(
            self.context.client,
            [
                Question(
                    model, paths.get(model, "/v1"), [*said, {"role": "user", "content": prompt}], parameters,
                    (key or "").strip(),
                )
                for model in models
            ],
            blind=blind,
        )  # fmt: skip
        hidden = {self.battle: list[str](), self.vote_row: gr.Row(visible=False), self.result: ""}
        async with aclosing(columns.run()) as states:
            async for _ in states:
                yield {self.shown: columns.html(diff=False), **hidden}
                hidden = {}
        sound = not any(turn.failure for turn in columns.turns)
        update: dict[Any, Any] = {self.shown: columns.html(diff=diff)}
        if blind:
            update |= {self.battle: models if sound else [], self.vote_row: gr.Row(visible=sound)}
            if not sound:
                update[self.result] = self.context.notice("One of the two failed, so there is nothing to vote on.")
        yield update

    def _says(self, message: str) -> dict[Any, Any]:
        return {self.result: self.context.notice(message), self.vote_row: gr.Row(visible=False), self.battle: []}

    def _voter(self, winner: str) -> Any:
        async def vote(battle: list[str], key: str | None) -> Any:
            if len(battle) != 2:
                return {self.vote_row: gr.Row(visible=False)}
            ballot = {"model_a": battle[0], "model_b": battle[1], "winner": winner}
            try:
                await self.context.client.send("POST", "/v1/arena/votes", (key or "").strip(), ballot)
            except AskError as failure:
                return {self.result: self.context.notice(failure.message)}
            names = [f"<b>{'AB'[index]}</b> was {self.context.escape(name)}" for index, name in enumerate(battle)]
            return {
                self.battle: [],
                self.vote_row: gr.Row(visible=False),
                self.result: f'<p role="status">Counted. {", ".join(names)}.</p>',
                self.board: await self._board(key),
            }

        return vote

    async def _board(self, key: str | None) -> str:
        try:
            answer = await self.context.client.get("/v1/arena/leaderboard", (key or "").strip())
        except AskError as failure:
            return self.context.notice(failure.message)
        return leaderboard(cast("list[dict[str, Any]]", answer["data"]), int(answer["votes"]))
