"""The half of Evaluations that starts suites, watches runs and opens their reports. Knows Gradio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK, offering
from gateway_playground.tabs.evaluations import views

EVERY_S = 1.0
Update = dict[Any, Any]

SAVE = """
() => {
  const frame = document.querySelector("#evaluations-report iframe");
  if (!frame) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([frame.srcdoc], {type: "text/html"}));
  link.download = frame.dataset.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
"""


@dataclass(slots=True, eq=False)
class Shown:
    """The run that one browser tab shows: a tick that comes back late must not draw another one over it."""

    run: str | None = None

    def __deepcopy__(self, memo: dict[int, object]) -> Shown:
        # A page that opens gets one of its own.
        return Shown()


class RunsPanel:
    """A suite to start above, the runs below it, and the one that is chosen under them."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self._place()
        self._connect()

    def _place(self) -> None:
        self.suites = gr.State(list[dict[str, Any]]())
        self.last = gr.State(Shown())
        with gr.Accordion("Start a suite", open=True, elem_id="evaluations-new"):
            with gr.Row():
                self.suite = gr.Dropdown([], value=None, label="Suite", elem_id="evaluations-suite", interactive=True)
                self.models = self.context.picker(
                    label="Models to measure", multiselect=True, elem_id="evaluations-models"
                )
                self.limit = gr.Number(
                    None, label="Rows a task (0: all)", minimum=0, elem_id="evaluations-limit", min_width=120
                )
            self.about = gr.HTML(views.suite(None), label="The suite", elem_id="evaluations-about", padding=False)
            with gr.Row(elem_classes="buttons"):
                self.start = gr.Button("Start", variant="primary", elem_id="evaluations-start", scale=0, min_width=100)
        self.notice = gr.HTML("", label="What went wrong", elem_id="evaluations-notice", padding=False)
        self.listed = gr.HTML("", label="All runs", elem_id="evaluations-runs", padding=False)
        with gr.Row(elem_classes="beside", equal_height=True):
            self.run = gr.Dropdown([], value=None, label="Run", elem_id="evaluations-run", interactive=True, scale=4)
            self.refresh = gr.Button("Refresh", elem_id="evaluations-refresh", scale=0, min_width=90)
        self.shown = gr.HTML("", label="The run", elem_id="evaluations-detail", padding=False)
        with gr.Row(elem_classes="buttons"):
            self.cancel = gr.Button("Cancel run", elem_id="evaluations-cancel", visible=False, scale=0, min_width=120)
            self.open = gr.Button("Open report", elem_id="evaluations-open", visible=False, scale=0, min_width=120)
            self.save = gr.Button("Save report", elem_id="evaluations-save", visible=False, scale=0, min_width=120)
        self.report = gr.HTML("", label="Report", elem_id="evaluations-report", padding=False)
        # Ticks only while the tab is open and the run that is shown goes on.
        self.timer = gr.Timer(EVERY_S, active=False)

    def _connect(self) -> None:
        key = self.context.key
        detail = [self.shown, self.cancel, self.open, self.save, self.timer, self.notice]
        everything = [self.suites, self.suite, self.run, self.listed, *detail]
        refreshed: dict[str, Any] = {"inputs": [key, self.suite, self.run, self.last], "outputs": everything, **QUICK}
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.context.tab.select, self.refresh.click], self._list, **refreshed
        )
        self.suite.change(self._about, [self.suites, self.suite], [self.about], **QUICK)
        self.run.input(self._choose, [key, self.run, self.last], [*detail, self.report], **QUICK)
        self.timer.tick(self._tick, [key, self.run, self.last], [*detail, self.listed, self.run], **QUICK)
        asked = [key, self.suite, self.models, self.limit, self.last]
        self.start.click(self._start, asked, [*everything, self.report], **QUICK)
        self.cancel.click(self._cancel, [key, self.run, self.last], [*detail, self.listed, self.run], **QUICK)
        self.open.click(self._open, [key, self.run], [self.report, self.notice, self.save], **QUICK)
        self.save.click(None, None, None, js=SAVE)
        # Whichever tab is turned to: nobody's browser asks for what nobody sees.
        self.context.tab.parent.select(lambda: gr.Timer(active=False), None, [self.timer], **QUICK)

    async def _get(self, path: str, key: str | None) -> Any:
        return await self.context.client.get(f"/evals{path}", (key or "").strip())

    async def _list(self, key: str | None, suite: str | None, run: str | None, last: Shown) -> Update:
        return await self._everything(key, suite, run, last, before=run)

    async def _everything(
        self, key: str | None, suite: str | None, run: str | None, last: Shown, before: str | None
    ) -> Update:
        """What the panel shows with this suite and this run, where the field of runs says `before`."""
        try:
            suites: list[dict[str, Any]] = (await self._get("/suites", key))["data"]
            runs: list[dict[str, Any]] = (await self._get("/runs", key))["data"]
        except AskError as failure:
            return {self.notice: self._failed(failure)}
        names = [str(one["name"]) for one in suites]
        chosen = run if run in [one["id"] for one in runs] else next((one["id"] for one in runs), None)
        return {
            self.suites: suites,
            self.suite: offering(names, suite if suite in names else next(iter(names), None), suite),
            **self._runs(runs, chosen, before),
            **await self._detail(key, chosen, last),
        }

    def _runs(self, runs: list[dict[str, Any]], chosen: str | None, before: str | None) -> Update:
        choices = [(views.title(one), str(one["id"])) for one in runs]
        return {self.listed: views.overview(runs), self.run: offering(choices, chosen, before)}

    async def _detail(self, key: str | None, run: str | None, last: Shown) -> Update:
        """The run that is chosen, and what can be done with it now."""
        last.run = run
        update: Update = {self.notice: "", self.save: gr.Button(visible=False)}
        if not run:
            return {**update, self.shown: "", self.timer: gr.Timer(active=False), **self._can(None)}
        try:
            found = await self._get(f"/runs/{quote(run, safe='')}", key)
        except AskError as failure:
            return {**update, self.notice: self._failed(failure), self.timer: gr.Timer(active=False)}
        going_on = found["state"] not in views.OVER
        return {**update, self.shown: views.detail(found), self.timer: gr.Timer(active=going_on), **self._can(found)}

    def _can(self, run: dict[str, Any] | None) -> Update:
        state = run["state"] if run else ""
        return {self.cancel: gr.Button(visible=state == "running"), self.open: gr.Button(visible=state == "done")}

    async def _choose(self, key: str | None, run: str | None, last: Shown) -> Update:
        return {**await self._detail(key, run, last), self.report: ""}

    async def _tick(self, key: str | None, run: str | None, last: Shown) -> Update:
        update: Update = {}
        if last.run == run:
            update = await self._detail(key, run, last)
            del update[self.save]
            if not update[self.timer].active:
                # It is over: the list says so too.
                update |= await self._again(key, run)
        if last.run == run:
            return update
        return {self.notice: gr.skip()}  # pyright: ignore[reportUnknownMemberType]

    async def _again(self, key: str | None, run: str | None) -> Update:
        try:
            return self._runs((await self._get("/runs", key))["data"], run, run)
        except AskError as failure:
            return {self.notice: self._failed(failure)}

    async def _start(
        self, key: str | None, suite: str | None, models: list[str] | None, limit: float | None, last: Shown
    ) -> Update:
        if not suite or not models:
            what = "a suite" if not suite else "at least one model"
            return {self.notice: self.context.notice(f"Pick {what} first.")}
        body: dict[str, Any] = {"suite": suite, "models": models, **({"limit": limit} if limit else {})}
        try:
            run = await self.context.client.send("POST", "/evals/runs", (key or "").strip(), body)
        except AskError as failure:
            return {self.notice: self._failed(failure)}
        return {**await self._everything(key, suite, str(run["id"]), last, before=None), self.report: ""}

    async def _cancel(self, key: str | None, run: str | None, last: Shown) -> Update:
        try:
            await self.context.client.send("DELETE", f"/evals/runs/{quote(run or '', safe='')}", (key or "").strip())
        except AskError as failure:
            return {self.notice: self._failed(failure)}
        return {**await self._detail(key, run, last), **await self._again(key, run)}

    async def _open(self, key: str | None, run: str | None) -> Update:
        try:
            path = f"/evals/runs/{quote(run or '', safe='')}/report"
            report = await self.context.client.get_text(path, (key or "").strip())
        except AskError as failure:
            return {self.notice: self._failed(failure), self.report: ""}
        # In a frame of no origin: a report holds what models wrote. Its own policy lets its own script run alone, and
        # nothing in it can reach this page or any host.
        escape = self.context.escape
        frame = (
            f'<iframe title="Report of the run" sandbox="allow-scripts" data-name="report-{escape(run or "")}.html" '
            f'srcdoc="{escape(report)}"></iframe>'
        )
        return {self.report: frame, self.notice: "", self.save: gr.Button(visible=True)}

    async def _about(self, suites: list[dict[str, Any]], name: str | None) -> str:
        return views.suite(next((one for one in suites if one["name"] == name), None))

    def _failed(self, failure: AskError) -> str:
        if failure.status == 404 and "/evals" in failure.message:
            return self.context.notice("This gateway runs no evaluations: add `evals: {app: evals}` under `apps:`.")
        return self.context.notice(failure.message)
