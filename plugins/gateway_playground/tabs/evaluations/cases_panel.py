"""The half of Evaluations that makes a conversation a test case. Knows Gradio."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK
from gateway_playground.tabs.evaluations import cases

Update = dict[Any, Any]


class CasesPanel:
    """From the chat that is open, or from a pasted export: a question, its right answers, and a suite to put it in."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.exchanges = gr.State(list[cases.Exchange]())
        gr.HTML(
            '<p class="quiet">A question that was answered badly becomes a case of a suite of yours: say what would '
            "have been right, and every later run asks it again.</p>",
            padding=False,
        )
        with gr.Row(elem_classes="buttons"):
            self.take = gr.Button("Take the open chat", elem_id="case-take", scale=0, min_width=170)
        with gr.Accordion("Or paste an exported conversation", open=False, elem_id="case-paste"):
            self.pasted = gr.Textbox(
                label="Conversation as JSON", lines=4, max_lines=12, elem_id="case-json",
                placeholder='{"messages": [{"role": "user", "content": "…"}, …]}',
            )  # fmt: skip
            self.read = gr.Button("Read it", elem_id="case-read", scale=0, min_width=100)
        self.notice = gr.HTML("", label="What happened", elem_id="case-notice", padding=False)
        self.which = gr.Dropdown(
            [], value=None, label="Question of the conversation", elem_id="case-which", interactive=True, visible=False
        )
        self.question = gr.Textbox(label="Question", lines=2, max_lines=10, elem_id="case-question")
        self.answers = gr.Textbox(
            label="Right answers, one a line", lines=2, max_lines=10, elem_id="case-answers",
            placeholder="Any of them counts as right",
        )  # fmt: skip
        self.suite = gr.Textbox("my-cases", label="Suite", max_lines=1, elem_id="case-suite")
        with gr.Row(elem_classes="buttons"):
            self.add = gr.Button("Add the case", variant="primary", elem_id="case-add", scale=0, min_width=130)
        self._connect()

    def _connect(self) -> None:
        taken = [self.exchanges, self.which, self.question, self.answers, self.notice]
        self.take.click(self._take, [self.context.conversation], taken, **QUICK)
        self.read.click(self._read, [self.pasted], taken, **QUICK)
        self.which.input(
            self._choose, [self.exchanges, self.which], [self.question, self.answers, self.notice], **QUICK
        )
        self.add.click(self._add, [self.context.key, self.suite, self.question, self.answers], [self.notice], **QUICK)

    async def _take(self, conversation: Any) -> Update:
        if not conversation:
            return {self.notice: self.context.notice("No chat is open: ask something under Chat, or paste an export.")}
        return self._found(lambda: cases.exchanges(conversation))

    async def _read(self, text: str | None) -> Update:
        return self._found(lambda: cases.read(text or ""))

    def _found(self, read: Any) -> Update:
        try:
            found: list[cases.Exchange] = read()
        except cases.ConversationProblem as problem:
            return {self.notice: self.context.notice(str(problem))}
        last = len(found) - 1
        choices = [(f"{number}. {one.title}", number - 1) for number, one in enumerate(found, 1)]
        return {
            self.exchanges: found,
            self.which: gr.Dropdown(choices, value=last, visible=len(found) > 1),
            **self._shown(found[last]),
        }

    async def _choose(self, exchanges: list[cases.Exchange], which: int | None) -> Update:
        return self._shown(exchanges[which or 0]) if exchanges else {}

    def _shown(self, exchange: cases.Exchange) -> Update:
        alone = (
            "The case is this question alone, without what was said before it: word it so that it stands by itself. "
            if exchange.earlier
            else ""
        )
        said = "Below is what the model answered: put what is right in its place." if exchange.answer else ""
        return {
            self.question: exchange.question,
            self.answers: exchange.answer,
            self.notice: f'<p class="quiet" role="status">{self.context.escape(alone + said)}</p>',
        }

    async def _add(self, key: str | None, suite: str | None, question: str | None, answers: str | None) -> str:
        right = [line.strip() for line in (answers or "").splitlines() if line.strip()]
        name = (suite or "").strip()
        if not name or not (question or "").strip() or not right:
            missing = (
                "a suite" if not name else "at least one right answer" if (question or "").strip() else "a question"
            )
            return self.context.notice(f"Give {missing} first.")
        path = f"/evals/suites/{quote(name, safe='')}/samples"
        body = {"question": question, "answers": right}
        try:
            added = await self.context.client.send("POST", path, (key or "").strip(), body)
        except AskError as failure:
            return self.context.notice(failure.message)
        number = int(added["samples"])
        cases_now = f"{number} case{'' if number == 1 else 's'}"
        return (
            f'<p class="passed" role="status">Added. The suite <b>{self.context.escape(str(added["suite"]))}</b> has '
            f"{cases_now} now; run it under “Runs”.</p>"
        )
