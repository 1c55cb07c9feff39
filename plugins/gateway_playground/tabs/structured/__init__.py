"""Structured: answers held to a JSON schema and checked against it, and calls whose tools a person plays."""

from __future__ import annotations

import gradio as gr

from gateway.tabs import PageContext
from gateway_playground.tabs.labels import NAME_EDITORS
from gateway_playground.tabs.structured.schema_panel import SchemaPanel
from gateway_playground.tabs.structured.tools_panel import ToolsPanel


def build(context: PageContext) -> None:
    """The whole tab."""
    with gr.Tabs(elem_id="structured", elem_classes="room"):
        with gr.Tab("JSON schema", id="schema"):
            SchemaPanel(context)
        with gr.Tab("Tools", id="tools") as tools:
            ToolsPanel(context)
    for tab in (context.tab, tools):
        tab.select(None, None, None, js=NAME_EDITORS)
