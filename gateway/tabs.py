"""Tabs of the playground: what a plugin registers and what its tab is given. Knows no UI library and no page.

A tab talks to the gateway over its public HTTP API, with the key of the person in front of it, and with nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class AskError(Exception):
    """An answer that did not come, or broke off. `message` is for the person and says what to do."""

    def __init__(self, message: str, *, needs_key: bool = False, status: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.needs_key = needs_key
        self.status = status
        """The HTTP status behind it; 0 where there was no answer at all."""


class PageClient(Protocol):
    """The gateway's public HTTP API. `path` begins with `/`; `key` is the person's own, "" where there is none.

    Every call raises AskError with words for the person.
    """

    base_url: str
    """The gateway's root, as the playground reaches it."""

    async def get(self, path: str, key: str) -> Any:
        """A JSON page, decoded."""
        ...

    async def get_text(self, path: str, key: str) -> str:
        """A page of any other kind, as text."""
        ...

    async def send(self, method: str, path: str, key: str, body: Any = None) -> Any:
        """POST, DELETE, … with a JSON body; the JSON answer, decoded (None where it is empty)."""
        ...

    def events(
        self, path: str, key: str, body: Any, told: dict[str, str] | None = None
    ) -> AsyncGenerator[dict[str, Any]]:
        """POST, and each `data:` event of the streamed answer, decoded; ends at `[DONE]`. Closing it closes the
        connection, upon which the gateway ends the generation. An event that is an error raises AskError. `told`, where
        given, is filled with the answer's headers before the first event (`x-gateway-target`: who answers)."""
        ...


@dataclass(frozen=True, slots=True)
class PageContext:
    """What a tab's `build` is given. Components are Gradio's: use them as inputs and outputs of events."""

    client: PageClient
    page: Any
    """The gr.Blocks: `page.load(…)` for what happens when the page opens."""
    tab: Any
    """The gr.Tab that is being built: `tab.select(…)` for what happens when it is turned to."""
    key: Any
    """gr.Textbox: the person's key. As an input it may be None or have blanks around it."""
    models: Any
    """gr.State: the rows of `/v1/models`, a list of dictionaries, each with `path` added: where to ask this model
    (`/m/<model>/v1`, or `/v1` for routes and adapters). `models.change(…)` fires when they were listed anew."""
    model: Any
    """gr.Dropdown at the top of the page: the model that was chosen for all tabs."""
    conversation: Any
    """gr.JSON without a face: the open chat, `{"id", "title", "messages": [{"role", "content"}], …}`, or None."""
    picker: Callable[..., Any]
    """`picker(label=…, **settings)` makes a gr.Dropdown that is kept filled with the served models."""
    escape: Callable[[str], str]
    """Text → HTML that shows it, for gr.HTML. Whatever a person or a model wrote goes through this."""
    markdown: Callable[[str], str]
    """Text → Markdown that runs nothing and fetches nothing, for gr.Markdown and gr.Chatbot."""
    notice: Callable[[str], str]
    """A message for the person → HTML in the page's style for failures."""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The playground's `options:`, with their defaults."""


@dataclass(frozen=True, slots=True)
class TabOffer:
    """What a plugin registers: a name of its own, what stands on the tab, and what puts its content together."""

    name: str
    """Letters, digits and dashes; also the id of the tab's element (`tab-<name>`)."""
    title: str
    order: int
    """Tabs stand in this order; ours are at 10, 20, …."""
    build: Callable[[PageContext], None]
    """Called once, inside the gr.Tab, when the playground starts. Heavy imports, Gradio's among them, belong inside.
    Where it raises, the tab shows the error and the rest of the page works."""
