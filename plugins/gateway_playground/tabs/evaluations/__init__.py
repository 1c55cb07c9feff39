"""Evaluations: runs and their reports, a suite to start, and a conversation that becomes a test case. Knows Gradio."""

from __future__ import annotations

from gateway.tabs import PageContext
from gateway_playground.tabs.evaluations.cases_panel import CasesPanel
from gateway_playground.tabs.evaluations.runs_panel import RunsPanel


def build(context: PageContext) -> None:
    """The whole tab."""
    import gradio as gr

    with gr.Tabs(elem_id="evaluations", elem_classes="room"):
        with gr.Tab("Runs", id="runs"):
            RunsPanel(context)
        with gr.Tab("Test case", id="case"):
            CasesPanel(context)
