"""What stands where on the page and what happens on each click. Knows Gradio; leaves HTTP and text to other rooms."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes import Soft

from gateway_playground.client import GatewayClient, Question, ServedModel
from gateway_playground.conversation import Conversation, Turn
from gateway_playground.failures import AskError
from gateway_playground.options import PlaygroundOptions
from gateway_playground.render import messages

SYSTEM_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Helvetica Neue', Arial, sans-serif"
SYSTEM_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Noto Sans Mono', 'DejaVu Sans Mono', monospace"

Update = dict[Any, Any]
"""What a handler gives Gradio: a component and its new value or properties."""


def look() -> dict[str, Any]:
    """Theme and style sheet: fonts of the system, so that nothing is fetched and nothing jumps."""
    theme = Soft(primary_hue="indigo", neutral_hue="slate", font=["sans-serif"], font_mono=["monospace"])
    theme.font = SYSTEM_FONT
    theme.font_mono = SYSTEM_MONO
    return {"theme": theme, "css_paths": [Path(__file__).with_name("style.css")]}


def build_page(options: PlaygroundOptions, client: GatewayClient) -> gr.Blocks:
    """The page, ready to be mounted."""
    return _Page(options, client).blocks


class _Page:
    def __init__(self, options: PlaygroundOptions, client: GatewayClient) -> None:
        self.options = options
        self.client = client
        self.blocks = gr.Blocks(title=options.title, fill_height=True, analytics_enabled=False)
        with self.blocks:
            self._place()
            self._connect()
        # Waiting people are few beside streaming ones; a queue that grows without end helps nobody.
        self.blocks.queue(api_open=False, max_size=8 * options.max_streams)

    def _place(self) -> None:
        options = self.options
        self.conversation = gr.State(Conversation())
        self.served = gr.State(dict[str, str]())
        with gr.Row(elem_classes="top"):
            gr.HTML(f"<h1>{_text(options.title)}</h1>", elem_classes="heading", padding=False)
            self.model = gr.Dropdown(
                [], value=None, label="Model", interactive=True, elem_classes="model", elem_id="model", container=False
            )
            self.refresh = gr.Button("Refresh models", scale=0, elem_id="refresh", elem_classes="refresh", min_width=90)
        self.notice = gr.HTML("", elem_id="notice", padding=False, visible=False)
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
            self.key = gr.Textbox(
                label="API key",
                placeholder="Kept in this page only, gone when it is closed",
                type="password",
                elem_id="key",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
            )
            self.system = gr.Textbox(
                options.system_prompt, label="System prompt", lines=2, max_lines=8, elem_id="system"
            )
            with gr.Row():
                self.temperature = gr.Slider(
                    0, 2, value=options.temperature, step=0.05, label="Temperature", elem_id="temperature"
                )
                self.max_tokens = gr.Number(
                    options.max_tokens, label="Max tokens", minimum=1, maximum=131072, precision=0, elem_id="max-tokens"
                )

    def _connect(self) -> None:
        asked_with = [
            self.conversation, self.served, self.model, self.key, self.system, self.temperature, self.max_tokens,
        ]  # fmt: skip
        shown = [self.chat, self.prompt, self.send, self.stop, self.settings]
        streams: dict[str, Any] = {
            "outputs": shown,
            "concurrency_limit": self.options.max_streams,
            "concurrency_id": "answers",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        quick: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.prompt.submit, self.send.click], self._ask, [self.prompt, *asked_with], **streams
        )
        self.chat.retry(self._again, asked_with, **streams)
        self.chat.clear(self._clear, [self.conversation], [self.chat], **quick)
        self.stop.click(self._stop, [self.conversation], None, **quick)
        listed = [self.model, self.served, self.notice, self.settings]
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.blocks.load, self.refresh.click, self.key.submit, self.key.blur],
            self._list_models, [self.key, self.model], listed, **quick,
        )  # fmt: skip

    async def _list_models(self, key: str | None, chosen: str | None) -> Update:
        try:
            served = await self.client.models((key or "").strip())
        except AskError as failure:
            update = {self.notice: gr.HTML(_notice(failure.message), visible=True)}
            return update | {self.settings: gr.Accordion(open=True)} if failure.needs_key else update
        names = [model.name for model in served]
        value = chosen if chosen in names else next((model.name for model in served if model.up), None)
        return {
            self.model: gr.Dropdown([(_label(model), model.name) for model in served], value=value),
            self.served: {model.name: model.path for model in served},
            self.notice: gr.HTML("" if names else _notice("The gateway serves no model yet."), visible=not names),
        }

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
        served: dict[str, str],
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
            path=served.get(model, "/v1"),
            messages=conversation.messages(system or ""),
            temperature=self.options.temperature if temperature is None else float(temperature),
            max_tokens=self.options.max_tokens if not max_tokens else int(max_tokens),
            key=(key or "").strip(),
        )
        yield {self.chat: messages(conversation.turns), **first, **busy}
        async with aclosing(conversation.answer(self.client, question)) as states:
            async for state in states:
                if not state.done:
                    yield {self.chat: messages(conversation.turns)}
        yield {self.chat: messages(conversation.turns), **idle}

    async def _stop(self, conversation: Conversation) -> None:
        conversation.stop()

    async def _clear(self, conversation: Conversation) -> list[Any]:
        conversation.stop()
        conversation.turns.clear()
        return []


def _label(model: ServedModel) -> str:
    return model.name if model.up else f"{model.name} (not up)"


def _notice(message: str) -> str:
    return f'<p role="alert">{_text(message)}</p>'


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
