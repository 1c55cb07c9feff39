"""Chat: one conversation with one model at a time. Knows Gradio; leaves HTTP and text to other rooms."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from gateway.tabs import PageContext
from gateway_playground.conversation import Conversation, Turn
from gateway_playground.page import QUICK
from gateway_playground.question import Question
from gateway_playground.render import messages

Update = dict[Any, Any]
"""What a handler gives Gradio: a component and its new value or properties."""


def build(context: PageContext) -> None:
    """The whole tab."""
    _Chat(context)


class _Chat:
    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.options = context.options
        self.client = context.client
        self._place()
        self._connect()

    def _place(self) -> None:
        options = self.options
        self.conversation = gr.State(Conversation())
        self.chat = gr.Chatbot(
            label="Conversation",
            show_label=False,
            elem_id="chat",
            height="100%",
            min_height=240,
            scale=1,
            layout="bubble",
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            feedback_options=None,
            buttons=["copy"],
            allow_file_downloads=False,
            placeholder="Ask a model anything. Speed and first token stand under each answer.",
        )
        with gr.Row(elem_classes="ask", equal_height=True):
            self.prompt = gr.Textbox(
                label="Message",
                show_label=False,
                placeholder="Ask something",
                lines=1,
                max_lines=8,
                scale=1,
                autofocus=True,
                elem_id="prompt",
                container=False,
            )
            self.send = gr.Button("Send", variant="primary", scale=0, min_width=88, elem_id="send")
            self.stop = gr.Button("Stop", variant="stop", scale=0, min_width=88, elem_id="stop", visible=False)
        with gr.Accordion("Settings", open=False, elem_id="settings") as self.settings:
            self.system = gr.Textbox(
                options["system_prompt"], label="System prompt", lines=2, max_lines=8, elem_id="system"
            )
            with gr.Row():
                self.temperature = gr.Slider(
                    0, 2, value=options["temperature"], step=0.05, label="Temperature", elem_id="temperature"
                )
                self.max_tokens = gr.Number(
                    options["max_tokens"],
                    label="Max tokens",
                    minimum=1,
                    maximum=131072,
                    precision=0,
                    elem_id="max-tokens",
                )

    def _connect(self) -> None:
        page = self.context
        asked_with = [
            self.conversation, page.models, page.model, page.key, self.system, self.temperature, self.max_tokens,
        ]  # fmt: skip
        shown = [self.chat, self.prompt, self.send, self.stop, self.settings, self.context.conversation]
        streams: dict[str, Any] = {
            "outputs": shown,
            "concurrency_limit": self.options["max_streams"],
            "concurrency_id": "answers",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.prompt.submit, self.send.click], self._ask, [self.prompt, *asked_with], **streams
        )
        self.chat.retry(self._again, asked_with, **streams)
        self.chat.clear(self._clear, [self.conversation], [self.chat, self.context.conversation], **QUICK)
        self.stop.click(self._stop, [self.conversation], None, **QUICK)

    async def _ask(self, prompt: str | None, conversation: Conversation, *asked_with: Any) -> AsyncGenerator[Update]:
        if not (prompt or "").strip() or conversation.streaming is not None:
            return
        conversation.turns.append(Turn(str(prompt), model=""))
        async with aclosing(self._stream(conversation, *asked_with, first={self.prompt: ""})) as updates:
            async for update in updates:
                yield update

    async def _again(self, conversation: Conversation, *asked_with: Any) -> AsyncGenerator[Update]:
        if not conversation.turns or conversation.streaming is not None:
            return
        conversation.turns[-1] = Turn(conversation.turns[-1].question, model="")
        async with aclosing(self._stream(conversation, *asked_with, first={})) as updates:
            async for update in updates:
                yield update

    async def _stream(
        self,
        conversation: Conversation,
        models: list[dict[str, Any]],
        model: str | None,
        key: str | None,
        system: str | None,
        temperature: float | None,
        max_tokens: float | None,
        *,
        first: Update,
    ) -> AsyncGenerator[Update]:
        turn = conversation.turns[-1]
        turn.model = model or ""
        busy = {self.send: gr.Button(visible=False), self.stop: gr.Button(visible=True)}
        idle = {self.send: gr.Button(visible=True), self.stop: gr.Button(visible=False)}
        if not model:
            turn.failure, turn.done = "Pick a model first: the list is above. Refresh it if it is empty.", True
            yield {self.chat: messages(conversation.turns), **first}
            return
        question = Question(
            model=model,
            path=next((row["path"] for row in models if row["id"] == model), "/v1"),
            messages=conversation.messages(system or ""),
            parameters={
                "temperature": self.options["temperature"] if temperature is None else float(temperature),
                "max_tokens": self.options["max_tokens"] if not max_tokens else int(max_tokens),
            },
            key=(key or "").strip(),
        )
        yield {self.chat: messages(conversation.turns), **first, **busy}
        async with aclosing(conversation.answer(self.client, question)) as states:
            async for state in states:
                if not state.done:
                    yield {self.chat: messages(conversation.turns)}
        yield {self.chat: messages(conversation.turns), self.context.conversation: conversation.public(), **idle}

    async def _stop(self, conversation: Conversation) -> None:
        conversation.stop()

    async def _clear(self, conversation: Conversation) -> tuple[list[Any], None]:
        conversation.stop()
        conversation.turns.clear()
        return [], None
