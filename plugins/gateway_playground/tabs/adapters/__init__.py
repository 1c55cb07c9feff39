"""Adapters: what the registry knows of each, and its answer beside its base's to the same prompt. Knows Gradio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK, offering
from gateway_playground.tabs.adapters import facts
from gateway_playground.tabs.asking import UPDATE_S, Asking, Watch, path_of
from gateway_playground.tabs.structured.play import Said

Update = dict[Any, Any]


def build(context: PageContext) -> None:
    """The whole tab."""
    _Adapters(context)


@dataclass(slots=True)
class _Side:
    """One of two answers, growing."""

    title: str
    said: Said = field(default_factory=Said)
    watch: Watch = field(default_factory=Watch)
    failure: str = ""


class _Adapters:
    def __init__(self, context: PageContext) -> None:
        self.context = context
        with gr.Column(elem_classes="room"):
            self._place()
        self._connect()

    def _place(self) -> None:
        self.asking = gr.State(Asking())
        self.adapters = gr.State(list[dict[str, Any]]())
        self.notice = gr.HTML("", label="What went wrong", elem_id="adapters-notice", padding=False)
        self.listed = gr.HTML("", label="All adapters", elem_id="adapters-list", padding=False)
        with gr.Row(elem_classes="beside", equal_height=True):
            self.adapter = gr.Dropdown(
                [], value=None, label="Adapter", elem_id="adapters-pick", interactive=True, scale=4
            )
            self.refresh = gr.Button("Refresh", elem_id="adapters-refresh", scale=0, min_width=90)
        with gr.Accordion("Facts, metrics and verdict", open=True, elem_id="adapters-facts"):
            self.facts = gr.HTML("", label="The adapter", elem_id="adapters-detail", padding=False)
        self.prompt = gr.Textbox(
            label="Prompt for both", lines=2, max_lines=8, elem_id="adapters-prompt",
            placeholder="The adapter and its base answer the same, side by side",
        )  # fmt: skip
        self.max_tokens = gr.Number(
            128, label="Most tokens of each answer", minimum=1, maximum=131072, precision=0,
            elem_id="adapters-max-tokens",
        )  # fmt: skip
        with gr.Row(elem_classes="buttons"):
            self.ask = gr.Button("Ask both", variant="primary", elem_id="adapters-ask", scale=0, min_width=110)
            self.stop = gr.Button("Stop", elem_id="adapters-stop", scale=0, min_width=90, visible=False)
        with gr.Row(elem_classes="halves"):
            self.left = gr.HTML("", label="The adapter's answer", elem_id="adapters-left", padding=False)
            self.right = gr.HTML("", label="Its base's answer", elem_id="adapters-right", padding=False)

    def _connect(self) -> None:
        context = self.context
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [context.tab.select, self.refresh.click],
            self._list,
            [context.key, self.adapter],
            [self.adapters, self.listed, self.adapter, self.facts, self.notice],
            **QUICK,
        )
        self.adapter.input(self._choose, [self.adapters, self.adapter], [self.facts], **QUICK)
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.ask.click, self.prompt.submit],
            self._ask,
            [self.asking, context.key, context.models, self.adapters, self.adapter, self.prompt, self.max_tokens],
            [self.left, self.right, self.notice, self.ask, self.stop],
            concurrency_limit=context.options["max_streams"],
            concurrency_id="answers",
            show_progress="hidden",
            api_visibility="private",
        )
        self.stop.click(self._stop, [self.asking], None, **QUICK)

    async def _list(self, key: str | None, chosen: str | None) -> Update:
        try:
            rows: list[dict[str, Any]] = (await self.context.client.get("/v1/adapters", (key or "").strip()))["data"]
        except AskError as failure:
            return {self.notice: self.context.notice(failure.message)}
        ids = [str(row["id"]) for row in rows]
        value = chosen if chosen in ids else next(iter(ids), None)
        return {
            self.adapters: rows,
            self.listed: facts.overview(rows),
            self.adapter: offering([(facts.title(row), str(row["id"])) for row in rows], value, chosen),
            self.facts: self._detail(rows, value),
            self.notice: "",
        }

    async def _choose(self, adapters: list[dict[str, Any]], chosen: str | None) -> str:
        return self._detail(adapters, chosen)

    def _detail(self, adapters: list[dict[str, Any]], chosen: str | None) -> str:
        return next((facts.detail(row) for row in adapters if row["id"] == chosen), "")

    async def _stop(self, asking: Asking) -> None:
        asking.stop()

    async def _ask(
        self,
        asking: Asking,
        key: str | None,
        models: list[dict[str, Any]],
        adapters: list[dict[str, Any]],
        chosen: str | None,
        prompt: str | None,
        max_tokens: float | None,
    ) -> AsyncGenerator[Update]:
        if asking.busy:
            return
        adapter = next((row for row in adapters if row["id"] == chosen), None)
        if adapter is None or not (prompt or "").strip():
            what = "Ask something: the prompt is empty." if adapter else "Pick an adapter first: the list is above."
            yield {self.notice: self.context.notice(what)}
            return
        base = str(adapter["base"])
        left, right = _Side(str(adapter["id"])), _Side(base)
        body = {
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": int(max_tokens or 128),
            "temperature": 0,
            "stream_options": {"include_usage": True},
        }
        running = {
            asyncio.ensure_future(self._fill(side, asking, path, (key or "").strip(), {**body, "model": side.title}))
            # An adapter is asked at the wide door, which knows all their names.
            for side, path in ((left, "/v1"), (right, path_of(models, base)))
        }
        yield {self.notice: "", self.ask: gr.Button(visible=False), self.stop: gr.Button(visible=True)}
        try:
            while running:
                _, running = await asyncio.wait(running, timeout=UPDATE_S)
                yield {self.left: self._shown(left, "Adapter"), self.right: self._shown(right, "Base")}
        finally:
            for task in running:
                task.cancel()
        yield {self.ask: gr.Button(visible=True), self.stop: gr.Button(visible=False)}

    async def _fill(self, side: _Side, asking: Asking, path: str, key: str, body: dict[str, Any]) -> None:
        try:
            events = asking.events(self.context.client, f"{path}/chat/completions", key, body)
            async with aclosing(events) as batches:
                async for batch in batches:
                    side.watch.see(batch)
                    for event in batch:
                        side.said.add(event)
        except AskError as failure:
            side.failure = failure.message

    def _shown(self, side: _Side, kind: str) -> str:
        escape = self.context.escape
        failure = self.context.notice(side.failure) if side.failure else ""
        return (
            f'<section class="answer" aria-label="{escape(f"{kind}: {side.title}")}"><h3>{escape(kind)} '
            f"<small>{escape(side.title)}</small></h3><pre>{escape(side.said.text)}</pre>{failure}"
            f'<p class="quiet">{escape(side.watch.facts())}</p></section>'
        )
