"""The conversations that this person's browser keeps: open, rename, delete, export, import. Knows Gradio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.conversation import Conversation
from gateway_playground.documents import document, read_file, restore
from gateway_playground.page import QUICK
from gateway_playground.tabs.chat.bringing import IMPORT_BAR, ON_IMPORT_BAR
from gateway_playground.tabs.chat.keeping import EXPORT, EXPORT_OPEN, FORGET, IMPORT, OPEN, SAVE, TAKE_AS_CASE

Update = dict[Any, Any]

FULL = "This browser keeps no more, so this conversation is not kept. Export some, then delete them."
NONE = ("A new conversation", "")
"""Stands in the list while none that is kept is open."""
STREAMS = AskError("An answer is being written: stop it first, so that nothing of it is lost.")


class Shelf:
    """A list over the conversation, and what can be done with it under the settings."""

    def __init__(self, context: PageContext, conversation: gr.State, shows: Callable[[Conversation], Update]) -> None:
        """`shows`: what the tab shows of a conversation that has become the open one."""
        self.context = context
        self.conversation = conversation
        self._shows = shows

    def place_list(self) -> None:
        self.kept = gr.Dropdown(
            [NONE], value="", label="Conversations kept in this browser", interactive=True, elem_id="kept", scale=3,
            min_width=150, container=False,
        )  # fmt: skip

    def place_new(self) -> None:
        self.new = gr.Button("New chat", scale=0, min_width=100, elem_id="new")

    def place_tools(self) -> None:
        self.notice = gr.HTML("", label="About conversations", elem_id="kept-notice", padding=False, visible=False)
        self.found = gr.JSON(None, visible=False, label="Opened conversation")
        """What the page's script finds in the browser; always empty here."""
        self.read = gr.JSON(None, visible=False, label="Imported conversations")
        self.named = gr.State(list[str]())
        """The open conversation and the title that its field was last given: what is typed there since then stays."""
        with gr.Accordion("Conversation", open=False, elem_id="shelf"):
            gr.HTML(
                '<p class="quiet">Kept in this browser alone: export a conversation to take it elsewhere.</p>',
                label="Where conversations are kept",
                padding=False,
            )
            with gr.Row(elem_classes="beside"):
                self.title = gr.Textbox(
                    label="Title", max_lines=1, max_length=200, elem_id="title", scale=4, min_width=150
                )
                self.rename = gr.Button("Rename", scale=0, min_width=88, elem_id="rename")
            with gr.Row(elem_classes="buttons"):
                self.export_open = gr.Button("Export this", scale=0, min_width=110, elem_id="export-open")
                self.export = gr.Button("Export all", scale=0, min_width=100, elem_id="export")
                self.importing = gr.HTML(
                    IMPORT_BAR, label="Import", elem_id="import", padding=False, js_on_load=ON_IMPORT_BAR
                )
                self.case = gr.Button("Make it a test case", scale=0, min_width=160, elem_id="make-case")
                self.forget = gr.Button("Delete this", variant="stop", scale=0, min_width=110, elem_id="forget")

    def connect(self, outputs: list[Any]) -> None:
        """`outputs`: the components that `shows` updates."""
        page, listed = self.context, [self.kept, self.notice, self.title]
        opened = [*outputs, *listed]
        kept: dict[str, Any] = {"inputs": [page.conversation, self.named], "outputs": listed, "js": SAVE, **QUICK}
        page.page.load(self._list, **kept)
        # The last word counts, also where it comes while the one before it is being kept.
        page.conversation.change(self._list, trigger_mode="always_last", **kept)
        self.kept.input(self._open, [self.conversation, self.kept, self.found], opened, js=OPEN, **QUICK)
        self.new.click(self._begin, [self.conversation], opened, **QUICK)
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.rename.click, self.title.submit], self._rename, [self.conversation, self.title],
            [page.conversation, self.notice], **QUICK,
        )  # fmt: skip
        self.forget.click(self._forget, [self.conversation, page.conversation], opened, js=FORGET, **QUICK)
        self.export.click(None, None, None, js=EXPORT, api_visibility="private")
        self.export_open.click(None, [page.conversation], None, js=EXPORT_OPEN, api_visibility="private")
        self.case.click(lambda: gr.Tabs(selected="evaluations"), None, [page.tab.parent], **QUICK).then(
            None, None, None, js=TAKE_AS_CASE, api_visibility="private"
        )
        self.importing.submit(self._import, None, [self.read, self.notice], **QUICK).then(
            self._imported, [self.read, page.conversation], listed, js=IMPORT, **QUICK
        )

    async def _list(self, found: dict[str, Any] | None, named: list[str] | None = None) -> Update:
        found = found or {}
        choices = [NONE, *((str(title), str(number)) for title, number in found.get("list", []))]
        title, number = next((one for one in choices if one[1] == found.get("open")), NONE)
        notice = self.context.notice(FULL) if found.get("full") else ""
        update: Update = {
            self.kept: gr.Dropdown(choices, value=number),
            self.notice: gr.HTML(notice, visible=bool(notice)),
        }
        if named != [number, title]:
            update[self.title] = title if number else ""
        if named is not None:
            # In place, since the next of these may be under way already.
            named[:] = [number, title]
        return update

    async def _open(self, conversation: Conversation, _: Any, kept: Any) -> Update:
        if kept is None:
            return await self._begin(conversation)
        if conversation.streaming is not None:
            return self._says(STREAMS)
        try:
            restore(conversation, kept)
        except AskError as failure:
            return self._says(failure)
        return {**self._shows(conversation), self.notice: gr.HTML(visible=False)}

    async def _begin(self, conversation: Conversation) -> Update:
        if conversation.streaming is not None:
            return self._says(STREAMS)
        conversation.reset()
        return {
            **self._shows(conversation),
            self.kept: NONE[1],
            self.title: "",
            self.notice: gr.HTML(visible=False),
        }

    async def _rename(self, conversation: Conversation, title: str | None) -> Update:
        if not conversation.turns:
            return self._says(AskError("There is nothing to name yet: ask something first."))
        conversation.title = " ".join((title or "").split())[:200]
        return {self.context.conversation: document(conversation), self.notice: gr.HTML(visible=False)}

    async def _forget(self, conversation: Conversation, found: dict[str, Any] | None) -> Update:
        found = found or {}
        if not found.get("open"):
            return self._says(AskError("No conversation is open: pick the one to delete from the list."))
        if conversation.streaming is not None:
            return self._says(STREAMS)
        if not found.get("sure"):
            return {self.kept: gr.Dropdown()}
        conversation.reset()
        return {**self._shows(conversation), **await self._list({"list": found["list"]})}

    async def _import(self, event: gr.EventData) -> Update:
        try:
            # A large file takes longer than others should wait for their next token.
            found = await asyncio.to_thread(read_file, str(event.text))
        except AskError as failure:
            return {self.read: None, **self._says(failure)}
        number = f"{len(found)} conversation{'' if len(found) == 1 else 's'}"
        said = f'<p class="passed" role="status">{number} imported: the list is at the top.</p>'
        return {self.read: {"conversations": found}, self.notice: gr.HTML(said, visible=True)}

    async def _imported(self, found: dict[str, Any], _: Any) -> Update:
        update = await self._list(found)
        if not found.get("full"):
            # How many there were stays to be read.
            del update[self.notice]
        return update

    def _says(self, failure: AskError) -> Update:
        return {self.notice: gr.HTML(self.context.notice(failure.message), visible=True)}
