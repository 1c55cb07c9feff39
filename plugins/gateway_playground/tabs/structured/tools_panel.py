"""The half of Structured where a person plays the tools that a model calls. Knows Gradio."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK
from gateway_playground.tabs.asking import Asking, path_of
from gateway_playground.tabs.structured import schema as schemas
from gateway_playground.tabs.structured.examples import TOOL_QUESTION, TOOLS
from gateway_playground.tabs.structured.play import Play, Said, ToolCall, read_tools

Update = dict[Any, Any]


class ToolsPanel:
    """Tools on the left, the conversation on the right; below it the person asks, or answers as the tool."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self._place()
        self._connect()

    def _place(self) -> None:
        self.asking = gr.State(Asking())
        self.play = gr.State(Play())
        with gr.Row(elem_classes="halves"):
            with gr.Column():
                self.tools = gr.Code(
                    TOOLS, language="json", label="Tools", lines=12, max_lines=24, elem_id="tools-editor"
                )
                self.choice = gr.Dropdown(
                    [("the model decides", "auto"), ("it must call one", "required"), ("it must call none", "none")],
                    value="auto",
                    label="Tool choice",
                    elem_id="tools-choice",
                    interactive=True,
                )
                self.again = gr.Button("Start anew", elem_id="tools-again", min_width=80)
            with gr.Column():
                self.chat = gr.Chatbot(
                    label="Conversation with tools",
                    height=380,
                    elem_id="tools-chat",
                    sanitize_html=True,
                    allow_tags=False,
                    latex_delimiters=[],
                    feedback_options=None,
                    buttons=[],
                    allow_file_downloads=False,
                    placeholder="Ask for what a tool knows: the model's call is shown here, and you play the tool.",
                )
                self.notice = gr.HTML("", elem_id="tools-notice", padding=False)
                with gr.Row(elem_classes="ask") as self.asked_row:
                    self.question = gr.Textbox(
                        TOOL_QUESTION, label="Question for the model", lines=1, max_lines=6, elem_id="tools-question"
                    )
                    self.ask = gr.Button("Ask", variant="primary", scale=0, min_width=80, elem_id="tools-ask")
                with gr.Row(elem_classes="ask", visible=False) as self.result_row:
                    self.result = gr.Textbox(
                        label="Result", lines=2, max_lines=8, elem_id="tools-result",
                        placeholder='What the tool gives back: {"temperature": 21}',
                    )  # fmt: skip
                    self.give = gr.Button(
                        "Give result", variant="primary", scale=0, min_width=120, elem_id="tools-give"
                    )
                self.stop = gr.Button("Stop", elem_id="tools-stop", min_width=80, visible=False)

    def _connect(self) -> None:
        context = self.context
        asked_with = [
            self.asking, self.play, context.key, context.models, context.model, self.tools, self.choice,
        ]  # fmt: skip
        shown = [
            self.chat, self.notice, self.question, self.result, self.asked_row, self.result_row, self.stop,
        ]  # fmt: skip
        streams: dict[str, Any] = {
            "concurrency_limit": context.options["max_streams"],
            "concurrency_id": "answers",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.ask.click, self.question.submit], self._ask, [self.question, *asked_with], shown, **streams
        )
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.give.click, self.result.submit], self._give, [self.result, *asked_with], shown, **streams
        )
        self.stop.click(self._stop, [self.asking], None, **QUICK)
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.again.click, self.chat.clear], self._anew, [self.asking, self.play], shown, **QUICK
        )

    async def _stop(self, asking: Asking) -> None:
        asking.stop()

    async def _anew(self, asking: Asking, play: Play) -> Update:
        asking.stop()
        play.messages.clear()
        play.waiting.clear()
        return {
            self.chat: [],
            self.notice: "",
            self.asked_row: gr.Row(visible=True),
            self.result_row: gr.Row(visible=False),
        }

    async def _ask(self, question: str | None, asking: Asking, play: Play, *asked_with: Any) -> AsyncGenerator[Update]:
        if asking.busy or play.waiting:
            return
        if not (question or "").strip():
            yield {self.notice: self.context.notice("Ask something: the question is empty.")}
            return
        before = copy.deepcopy(play.messages)
        play.ask(str(question))
        async with aclosing(self._answer(asking, play, before, str(question), *asked_with)) as updates:
            async for update in updates:
                yield update

    async def _give(self, result: str | None, asking: Asking, play: Play, *asked_with: Any) -> AsyncGenerator[Update]:
        if asking.busy or not play.waiting:
            return
        before, waiting = copy.deepcopy(play.messages), list(play.waiting)
        play.result(result or "")
        if play.waiting:
            yield {**self._whose_turn(play), self.chat: self._shown(play), self.result: ""}
            return
        async with aclosing(self._answer(asking, play, before, "", *asked_with, waiting=waiting)) as updates:
            async for update in updates:
                yield update

    async def _answer(
        self,
        asking: Asking,
        play: Play,
        before: list[dict[str, Any]],
        question: str,
        key: str | None,
        models: list[dict[str, Any]],
        model: str | None,
        tools_text: str | None,
        choice: str | None,
        *,
        waiting: list[ToolCall] | None = None,
    ) -> AsyncGenerator[Update]:
        """Ask the model with all that was said. Where that fails, what the person just wrote is theirs again."""
        context = self.context
        said = Said()
        asked_as_tool = waiting is not None
        try:
            tools = read_tools(tools_text or "")
            if not model:
                raise AskError("Pick a model first: the list is above.")
            cleared = {self.question: "", self.result: "", self.notice: ""}
            yield {self.chat: self._shown(play), self.stop: gr.Button(visible=True), **cleared}
            body: dict[str, Any] = {
                "model": model,
                "messages": play.messages,
                "tools": tools,
                # Once a tool has answered, a model that must call one would do so for ever.
                "tool_choice": "auto" if asked_as_tool and choice == "required" else choice or "auto",
                "max_tokens": 300,
                "temperature": 0,
            }
            path = f"{path_of(models, model)}/chat/completions"
            async with aclosing(asking.events(context.client, path, (key or "").strip(), body)) as batches:
                async for batch in batches:
                    for event in batch:
                        said.add(event)
                    yield {self.chat: [*self._shown(play), *self._answer_shown(said)]}
            if asking.stopped:
                # Half a call is none.
                said.calls.clear()
            play.answered(said)
            notice = await self._checked(tools, play)
        except (AskError, schemas.SchemaProblem) as problem:
            written = str(play.messages[-1]["content"]) if asked_as_tool else question
            play.messages[:] = before
            play.waiting = waiting or []
            notice = context.notice(str(problem))
            yield {self.result if asked_as_tool else self.question: written}
        yield {
            **self._whose_turn(play),
            self.chat: self._shown(play),
            self.notice: notice,
            self.stop: gr.Button(visible=False),
        }

    async def _checked(self, tools: list[dict[str, Any]], play: Play) -> str:
        """Whether the calls keep their tools' schemas."""
        if not play.waiting:
            return ""
        escape = self.context.escape
        parameters: dict[str, dict[str, Any]] = {
            tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools
        }
        rows: list[str] = []
        for call in play.waiting:
            if call.name not in parameters:
                found = [("$", "there is no such tool")]
            else:
                found = await asyncio.to_thread(schemas.violations, parameters[call.name], call.arguments or "{}")
            said = "keeps its schema" if not found else "; ".join(f"{path}: {what}" for path, what in found)
            rows.append(
                f'<p class="{"failed" if found else "passed"}" role="status"><code>{escape(call.name)}</code> '
                f"{escape(said)}</p>"
            )
        return "".join(rows)

    def _whose_turn(self, play: Play) -> Update:
        """The field for a question, or for the result of the first call that waits."""
        label = f"Result of {play.waiting[0].name}" if play.waiting else "Result"
        return {
            self.asked_row: gr.Row(visible=not play.waiting),
            self.result_row: gr.Row(visible=bool(play.waiting)),
            self.result: gr.Textbox(label=label),
        }

    def _shown(self, play: Play) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        for message in play.messages:
            if message["role"] == "user":
                shown.append({"role": "user", "content": self.context.markdown(str(message["content"]))})
            elif message["role"] == "tool":
                result = f"Result:\n\n{_fenced(str(message['content']), '')}"
                shown.append({"role": "user", "content": self.context.markdown(result)})
            else:
                calls = [
                    ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                    for call in message.get("tool_calls", ())
                ]
                shown += self._answer_shown(Said(str(message["content"] or ""), calls, "stop"))
        return shown

    def _answer_shown(self, said: Said) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        if said.text or (said.finish_reason and not said.calls):
            shown.append({"role": "assistant", "content": self.context.markdown(said.text) or "*It said nothing.*"})
        for call in said.calls:
            content = f"Calls {_fenced(call.name, '')}\n\nwith\n\n{_fenced(call.arguments, 'json')}"
            shown.append({"role": "assistant", "content": self.context.markdown(content)})
        return shown


def _fenced(text: str, language: str) -> str:
    """Text as Markdown code in which no sign means anything, backticks included."""
    longest, run = 0, 0
    for sign in text:
        run = run + 1 if sign == "`" else 0
        longest = max(longest, run)
    fence = "`" * max(3, longest + 1)
    return f"\n{fence}{language}\n{text}\n{fence}"
