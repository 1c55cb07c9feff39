"""Conversations as JSON documents: what a browser keeps, exports and imports. Knows no page; holds no key."""

from __future__ import annotations

import json
import secrets
from typing import Annotated, Any, cast

import msgspec

from gateway.tabs import AskError
from gateway_playground.conversation import Conversation, Turn

LONGEST = 5_000_000
"""Characters of a file of conversations: as much as a browser keeps for one page."""

_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_Turns = Annotated[list[Turn], msgspec.Meta(max_length=10_000)]


class _Message(msgspec.Struct):
    role: str
    content: str
    model: str = ""


class _Document(msgspec.Struct):
    """What is read of a document. One that another program wrote has `messages` alone."""

    id: _Id = ""  # pyright: ignore[reportAssignmentType]
    title: Annotated[str, msgspec.Meta(max_length=200)] = ""
    system: str = ""
    turns: _Turns = []
    branches: Annotated[list[_Turns], msgspec.Meta(max_length=1000)] = []
    place: Annotated[int, msgspec.Meta(ge=0)] = 0
    messages: list[_Message] = []


def document(conversation: Conversation) -> dict[str, Any] | None:
    """The conversation for the browser to keep, and for other tabs to take; None before anything was said.

    `messages` are what was said on the open branch, in the shape of chat completions; `turns` and `branches` are all of
    it, with the facts of each answer.
    """
    if not conversation.turns:
        return None
    conversation.id = conversation.id or secrets.token_hex(8)
    said = [{"role": "system", "content": conversation.system}] if conversation.system.strip() else []
    for turn in conversation.turns:
        said.append({"role": "user", "content": turn.question})
        if turn.answer and not turn.failure:
            said.append({"role": "assistant", "content": turn.answer, "model": turn.target or turn.model})
    return {
        "id": conversation.id,
        "title": conversation.name,
        "named": bool(conversation.title),
        "system": conversation.system,
        "messages": said,
        "turns": msgspec.to_builtins(conversation.turns),
        "branches": msgspec.to_builtins(conversation.branches),
        "place": conversation.place,
    }


def restore(conversation: Conversation, kept: Any) -> None:
    """Become what a document says. Raises AskError for what is none; nothing is changed then."""
    read = _read(kept)
    conversation.stop()
    conversation.turns, conversation.branches = _turns(read), read.branches
    conversation.place = min(read.place, len(read.branches))
    for turn in conversation.turns:
        # Where it was kept while it streamed, nothing more comes.
        turn.done = True
    conversation.id, conversation.system = read.id, read.system
    conversation.title = read.title if cast("dict[str, Any]", kept).get("named", True) else ""


def read_file(text: str) -> list[dict[str, Any]]:
    """The documents of a file: an export of this page, one conversation, or a list of them. Raises AskError."""
    if len(text) > LONGEST:
        raise AskError(f"That file is larger than {LONGEST // 1_000_000} MB: import fewer conversations at once.")
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AskError(f"That file is not JSON: {error}.") from error
    rows: Any = data.get("conversations", [data]) if isinstance(data, dict) else data  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    found: list[dict[str, Any]] = []
    for number, row in enumerate(cast("list[Any]", rows) if isinstance(rows, list) else [], 1):
        conversation = Conversation()
        try:
            restore(conversation, row)
        except AskError as failure:
            raise AskError(f"Conversation {number} of the file: {failure.message}") from failure
        kept = document(conversation)
        if kept is not None:
            found.append(kept)
    if not found:
        raise AskError("There is no conversation in that file. It should be one that was exported here.")
    return found


def _read(kept: Any) -> _Document:
    try:
        read = msgspec.convert(kept, _Document)
    except (msgspec.ValidationError, RecursionError) as error:
        raise AskError(f"This conversation cannot be read: {error}.") from error
    if not _turns(read):
        raise AskError("This conversation cannot be read: nothing was said in it.")
    return read


def _turns(read: _Document) -> list[Turn]:
    """Its turns; where another program wrote it, those that its messages tell."""
    if read.turns:
        return read.turns
    turns: list[Turn] = []
    for message in read.messages:
        if message.role == "user":
            turns.append(Turn(message.content, model="", done=True))
        elif message.role == "assistant" and turns:
            turns[-1].answer, turns[-1].model = message.content, message.model
        elif message.role == "system" and not turns and not read.system:
            read.system = message.content
    return turns
