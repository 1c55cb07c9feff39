"""Operations: how the gateway, its models and their replicas are, live while the tab is open. Knows Gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK
from gateway_playground.tabs.operations import plots, tables
from gateway_playground.tabs.operations.rates import KEPT, History

EVERY_S = 2.0
Update = dict[Any, Any]


def build(context: PageContext) -> None:
    """The whole tab."""
    _Operations(context)


class _Operations:
    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.history = gr.State(History())
        with gr.Column(elem_classes="room"):
            self._place()
        self._connect()

    def _place(self) -> None:
        with gr.Row(elem_classes="buttons"):
            self.live = gr.Checkbox(
                True, label="Live", elem_id="operations-live", container=False, scale=0, min_width=90
            )
            self.now = gr.Button("Look now", elem_id="operations-now", scale=0, min_width=110)
        self.shown = gr.HTML(
            '<p class="quiet">Not looked yet.</p>', label="Operations", elem_id="operations", padding=False
        )
        self.errors = gr.HTML("", label="Recent errors", elem_id="operations-errors", padding=False)
        # Ticks only while the tab is open and live: nobody's browser asks for what nobody sees.
        self.timer = gr.Timer(EVERY_S, active=False)

    def _connect(self) -> None:
        context = self.context
        looked: dict[str, Any] = {
            "inputs": [self.history, context.key],
            "outputs": [self.shown, self.errors, self.timer],
            **QUICK,
        }
        self.timer.tick(self._look, **looked)
        self.now.click(self._look, **looked)
        context.tab.select(self._look, **looked)
        self.live.change(self._switch, [self.live], [self.timer], **QUICK)
        # Whichever tab is turned to: the timer runs for this one alone.
        context.tab.parent.select(self._turn, [self.live], [self.timer], **QUICK)

    def _turn(self, live: bool, event: gr.SelectData) -> Any:
        return gr.Timer(active=bool(live) and event.value == self.context.tab.label)

    def _switch(self, live: bool) -> Any:
        return gr.Timer(active=bool(live))

    async def _look(self, history: History, key: str | None) -> Update:
        try:
            status = await self.context.client.get("/status", (key or "").strip())
        except AskError as failure:
            # It goes on by itself where the gateway comes back, but does not hammer with a key that is refused.
            update: Update = {self.shown: self.context.notice(failure.message), self.errors: ""}
            return {**update, self.timer: gr.Timer(active=False)} if failure.needs_key else update
        history.add(status)
        parts = (tables.overview(status), _plots(history), tables.models(status), tables.replicas(status))
        return {
            self.shown: "".join((*parts, tables.neighbours(status))),
            self.errors: tables.errors(status),
        }


def _plots(history: History) -> str:
    points = list(history.points)

    def plot(title: str, values: list[float | None], unit: str) -> str:
        return plots.line(title, values, lambda value: f"{_number(value)}{unit}", points=KEPT)

    drawn = (
        plot("Requests per second", [point.requests_per_s for point in points], ""),
        plot(
            "Time to first token",
            [None if point.first_token_s is None else point.first_token_s * 1000 for point in points],
            " ms",
        ),
        plot("Tokens per second", [point.tokens_per_s for point in points], ""),
        plot("In flight", [float(point.in_flight) for point in points], ""),
    )
    return f'<div class="plots">{"".join(drawn)}</div>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"
