"""Chat: conversations with one model at a time, kept in the browser. Knows Gradio; HTTP and text are other rooms'."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast
from urllib.parse import urlsplit

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.conversation import Conversation, Turn
from gateway_playground.documents import document
from gateway_playground.page import QUICK
from gateway_playground.question import Question
from gateway_playground.render import messages, turn_of, unsafe
from gateway_playground.snippets import curl, python
from gateway_playground.tabs.asking import path_of
from gateway_playground.tabs.chat.bringing import BAR, ON_BAR
from gateway_playground.tabs.chat.sampling_panel import SamplingPanel
from gateway_playground.tabs.chat.shelf import Shelf

LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]
"""No single dollar: prices are not formulas."""

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
        self.conversation = gr.State(Conversation())
        self.shelf = Shelf(context, self.conversation, self._shows)
        self._place()
        self._connect()

    def _place(self) -> None:
        with gr.Row(elem_classes="kept"):
            self.shelf.place_list()
            self.branch = gr.Dropdown(
                [], value=None, label="Branches of this conversation", interactive=True, elem_id="branch", scale=2,
                min_width=150, container=False, visible=False,
            )  # fmt: skip
            self.shelf.place_new()
        self.chat = gr.Chatbot(
            label="Conversation",
            show_label=False,
            elem_id="chat",
            height="100%",
            layout="bubble",
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=LATEX,
            editable="user",
            feedback_options=None,
            buttons=["copy"],
            allow_file_downloads=False,
            placeholder="Ask a model anything. Speed and first token stand under each answer; drop text files here.",
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
        gr.HTML(BAR, label="Files and keys", elem_id="bar", padding=False, js_on_load=ON_BAR)
        self.sampling = SamplingPanel(self.context)
        self.shelf.place_tools()
        with gr.Accordion("Last request as code", open=False, elem_id="code"):
            self.curl = gr.Code(
                "", language="shell", label="curl", interactive=False, wrap_lines=True, max_lines=16, elem_id="curl"
            )
            self.python = gr.Code(
                "",
                language="python",
                label="Python",
                interactive=False,
                wrap_lines=True,
                max_lines=24,
                elem_id="python",
            )

    def _connect(self) -> None:
        page = self.context
        asked_with = [self.conversation, page.models, page.model, page.key, *self.sampling.fields]
        shown = [self.chat, self.branch, page.conversation, self.sampling.system, self.curl, self.python]
        streams: dict[str, Any] = {
            "outputs": [self.prompt, self.send, self.stop, *shown],
            "concurrency_limit": self.options["max_streams"],
            "concurrency_id": "answers",
            "show_progress": "hidden",
            "api_visibility": "private",
        }
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.prompt.submit, self.send.click], self._ask, [self.prompt, *asked_with], **streams
        )
        self.chat.retry(self._again, asked_with, **streams)
        self.chat.edit(self._edit, asked_with, **streams)
        self.stop.click(self._stop, [self.conversation], None, **QUICK)
        self.branch.input(
            self._switch, [self.conversation, self.branch], [self.chat, self.branch, page.conversation], **QUICK
        )
        self.shelf.connect(shown)

    async def _ask(
        self, request: gr.Request, prompt: str | None, conversation: Conversation, *asked_with: Any
    ) -> AsyncGenerator[Update]:
        if not (prompt or "").strip() or conversation.streaming is not None:
            return
        conversation.turns.append(Turn(str(prompt), model=""))
        async with aclosing(self._stream(request, conversation, *asked_with, first={self.prompt: ""})) as updates:
            async for update in updates:
                yield update

    async def _again(self, request: gr.Request, conversation: Conversation, *asked_with: Any) -> AsyncGenerator[Update]:
        if not conversation.turns or conversation.streaming is not None:
            return
        conversation.branch(len(conversation.turns) - 1, conversation.turns[-1].question)
        async with aclosing(self._stream(request, conversation, *asked_with, first={})) as updates:
            async for update in updates:
                yield update

    async def _edit(
        self, request: gr.Request, event: gr.EditData, conversation: Conversation, *asked_with: Any
    ) -> AsyncGenerator[Update]:
        index = turn_of(conversation.turns, event.index)
        question = unsafe(str(event.value))
        if index is None or conversation.streaming is not None or not question.strip():
            yield {self.chat: messages(conversation.turns)}
            return
        conversation.branch(index, question)
        async with aclosing(self._stream(request, conversation, *asked_with, first={})) as updates:
            async for update in updates:
                yield update

    async def _stream(
        self,
        request: gr.Request,
        conversation: Conversation,
        models: list[dict[str, Any]],
        model: str | None,
        key: str | None,
        *settings: Any,
        first: Update,
    ) -> AsyncGenerator[Update]:
        turn = conversation.turns[-1]
        turn.model = model or ""
        busy = {self.send: gr.Button(visible=False), self.stop: gr.Button(visible=True)}
        idle = {self.send: gr.Button(visible=True), self.stop: gr.Button(visible=False)}
        try:
            if not model:
                raise AskError("Pick a model first: the list is above. Refresh it if it is empty.")
            conversation.system, parameters = self.sampling.read(*settings)
        except AskError as problem:
            turn.failure, turn.done = problem.message, True
            yield {**self._talk(conversation), **first}
            return
        question = Question(
            model=model,
            path=path_of(models, model),
            messages=conversation.messages(conversation.system),
            parameters=parameters,
            key=(key or "").strip(),
        )
        base = _origin(request, self.client.base_url) + question.path
        code = {self.curl: curl(base, question.body()), self.python: python(base, question.body())}
        # Kept from now on: a page that is closed in the middle of an answer has its question still.
        yield {**self._talk(conversation), **first, **busy, **code}
        async with aclosing(conversation.answer(self.client, question)) as states:
            async for state in states:
                if not state.done:
                    yield {self.chat: messages(conversation.turns)}
        yield {**self._talk(conversation), **idle}

    async def _stop(self, conversation: Conversation) -> None:
        conversation.stop()

    async def _switch(self, conversation: Conversation, branch: int | None) -> Update:
        if conversation.streaming is None and branch is not None:
            conversation.switch(branch)
        return self._talk(conversation)

    def _talk(self, conversation: Conversation) -> Update:
        """The conversation itself, whole."""
        ways = conversation.ways()
        choices = [(_branch_label(number, ways), number) for number in range(len(ways))]
        return {
            self.chat: messages(conversation.turns),
            self.branch: gr.Dropdown(choices, value=conversation.place, visible=len(ways) > 1),
            self.context.conversation: document(conversation),
        }

    def _shows(self, conversation: Conversation) -> Update:
        """The conversation where it takes another's place."""
        system: Update = {self.sampling.system: conversation.system} if conversation.turns else {}
        return {**self._talk(conversation), **system, self.curl: "", self.python: ""}


def _origin(request: gr.Request, otherwise: str) -> str:
    """Where this person's browser reaches the gateway: the page's own origin."""
    headers = cast("Mapping[str, str]", request.headers)
    parts = urlsplit(headers.get("origin") or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.netloc else otherwise


def _branch_label(number: int, ways: list[list[Turn]]) -> str:
    last = ways[number][-1] if ways[number] else Turn("", "")
    said = " ".join((last.answer or last.failure or "…").split())
    return f"{number + 1}/{len(ways)}: {' '.join(last.question.split())[:40]} → {said[:40]}"
