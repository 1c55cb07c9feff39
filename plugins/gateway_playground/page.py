"""The page: heading, model list and key for all tabs, and the tabs themselves. Knows Gradio, and no tab by name."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import gradio as gr
from gradio.themes import Soft

from gateway.tabs import AskError, PageContext, TabOffer
from gateway_playground.client import GatewayClient
from gateway_playground.options import PlaygroundOptions
from gateway_playground.render import safe

log = logging.getLogger("gateway.playground")

SYSTEM_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Helvetica Neue', Arial, sans-serif"
SYSTEM_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Noto Sans Mono', 'DejaVu Sans Mono', monospace"

QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Settings of an event that is answered at once."""

CLEAN_COPIES = """() => {
  // What `render.safe` puts in is not what people want to paste.
  const clean = text => String(text).replaceAll('\\u2060', '');
  if (navigator.clipboard && !navigator.clipboard.cleans) {
    const write = navigator.clipboard.writeText.bind(navigator.clipboard);
    navigator.clipboard.writeText = text => write(clean(text));
    navigator.clipboard.cleans = true;
  }
  document.addEventListener('copy', event => {
    const text = document.getSelection().toString();
    if (!event.clipboardData || text === clean(text)) return;
    event.clipboardData.setData('text/plain', clean(text));
    event.preventDefault();
  });
}"""


def look() -> dict[str, Any]:
    """Theme and style sheet: fonts of the system, so that nothing is fetched and nothing jumps."""
    theme = Soft(primary_hue="indigo", neutral_hue="slate", font=["sans-serif"], font_mono=["monospace"])
    theme.font = SYSTEM_FONT
    theme.font_mono = SYSTEM_MONO
    # Soft's own are white on white: three to one is what the edge of a control needs.
    theme.set(checkbox_border_color="*neutral_500", checkbox_border_color_dark="*neutral_400")  # pyright: ignore[reportUnknownMemberType]
    return {"theme": theme, "css_paths": sorted(Path(__file__).parent.glob("**/*.css"))}


def build_page(options: PlaygroundOptions, client: GatewayClient, tabs: Iterable[TabOffer]) -> gr.Blocks:
    """The page, ready to be mounted."""
    return _Page(options, client, tabs).blocks


def escape(text: str) -> str:
    """HTML that shows the text and is nothing else."""
    return html.escape(text, quote=True)


def notice(message: str) -> str:
    """A message about a failure, as HTML."""
    return f'<p class="notice" role="alert">{escape(message)}</p>'


class _Page:
    def __init__(self, options: PlaygroundOptions, client: GatewayClient, tabs: Iterable[TabOffer]) -> None:
        self.options = options
        self.client = client
        self._pickers: list[gr.Dropdown] = []
        self.blocks = gr.Blocks(title=options.title, fill_height=True, analytics_enabled=False)
        with self.blocks:
            self._place()
            with gr.Tabs(elem_id="tabs"):
                for offer in sorted(tabs, key=lambda offer: (offer.order, offer.name)):
                    self._place_tab(offer)
            self._connect()
        # Waiting people are few beside streaming ones; a queue that grows without end helps nobody.
        self.blocks.queue(api_open=False, max_size=8 * options.max_streams)
        # Gradio looks a thousand times a second whether anybody has asked something, for a twentieth of a core.
        self.blocks._queue.sleep_when_free = 0.01  # pyright: ignore[reportPrivateUsage]

    def _place(self) -> None:
        self.models = gr.State(list[dict[str, Any]]())
        self.conversation = gr.JSON(None, visible=False, label="Conversation")
        with gr.Row(elem_classes="top"):
            gr.HTML(f"<h1>{escape(self.options.title)}</h1>", elem_classes="heading", padding=False)
            self.model = self._picker(label="Model", elem_classes="model", elem_id="model", container=False)
            self.refresh = gr.Button("Refresh models", scale=0, elem_id="refresh", elem_classes="refresh", min_width=90)
        self.notice = gr.HTML("", elem_id="notice", padding=False, visible=False)
        with gr.Accordion("API key", open=False, elem_id="key-box") as self.key_box:
            self.key = gr.Textbox(
                label="API key",
                show_label=False,
                placeholder="Kept in this page only, gone when it is closed",
                type="password",
                elem_id="key",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False),
            )

    def _picker(self, *, label: str, **settings: Any) -> gr.Dropdown:
        picker = gr.Dropdown([], value=None, label=label, interactive=True, **settings)
        self._pickers.append(picker)
        return picker

    def _place_tab(self, offer: TabOffer) -> None:
        config = self.blocks.default_config
        with gr.Tab(offer.title, id=offer.name, elem_id=f"tab-{offer.name}", scale=1) as tab:
            before = dict(config.blocks), dict(config.fns), list(self._pickers)
            context = PageContext(
                client=self.client,
                page=self.blocks,
                tab=tab,
                key=self.key,
                models=self.models,
                model=self.model,
                conversation=self.conversation,
                picker=self._picker,
                escape=escape,
                markdown=safe,
                notice=notice,
                options=self.options.model_dump(),
            )
            try:
                offer.build(context)
            except Exception as error:
                log.exception("the tab %s could not be built", offer.name)
                # What it had placed and connected before it failed is taken out again.
                config.blocks, config.fns, self._pickers = before
                tab.children = []
                gr.HTML(notice(f"This tab could not be built ({type(error).__name__}: {error}). The others work."))

    def _connect(self) -> None:
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.blocks.load, self.refresh.click, self.key.submit, self.key.blur],
            self._list_models,
            [self.key, *self._pickers],
            [self.models, self.notice, self.key_box, *self._pickers],
            **QUICK,
        )
        self.blocks.load(None, None, None, js=CLEAN_COPIES, api_visibility="private")

    async def _list_models(self, key: str | None, *chosen: Any) -> dict[Any, Any]:
        try:
            rows = await self.client.models((key or "").strip())
        except AskError as failure:
            update: dict[Any, Any] = {self.notice: gr.HTML(notice(failure.message), visible=True)}
            return update | {self.key_box: gr.Accordion(open=True)} if failure.needs_key else update
        names = [str(row["id"]) for row in rows]
        up = [str(row["id"]) for row in rows if _is_up(row)]
        choices = [(_label(row), str(row["id"])) for row in rows]
        found: dict[Any, Any] = {
            self.models: rows,
            self.notice: gr.HTML("" if names else notice("The gateway serves no model yet."), visible=not names),
        }
        for picker, value in zip(self._pickers, chosen, strict=True):
            found[picker] = offering(choices, _still(value, names, up, many=bool(picker.multiselect)), value)
        return found


def offering(choices: Any, value: Any, before: Any) -> gr.Dropdown:
    """What a field offers from now on. What is chosen is told only where it changes: a person may have chosen again
    while the answer was on its way."""
    return gr.Dropdown(choices) if value == before else gr.Dropdown(choices, value=value)


def _still(value: Any, names: list[str], up: list[str], *, many: bool) -> Any:
    """What stays chosen of what was, now that these models are served: else the first that is up, or none of many."""
    if many:
        return [one for one in cast("list[Any]", value or []) if one in names]
    return value if value in names else next(iter(up), None)


def _is_up(row: dict[str, Any]) -> bool:
    facts: dict[str, Any] = row.get("gateway") or {}
    return facts.get("up") is not False


def _label(row: dict[str, Any]) -> str:
    return str(row["id"]) if _is_up(row) else f"{row['id']} (not up)"
