"""The settings of a chat: system prompt, sampling parameters and their presets. Knows Gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from gateway.tabs import PageContext
from gateway_playground.page import QUICK
from gateway_playground.sampling import NUMBERS, PRESETS, parameters, preset


class SamplingPanel:
    """Fields, and what they say as a request's parameters."""

    def __init__(self, context: PageContext) -> None:
        self.options = options = context.options
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            self.system = gr.Textbox(
                options["system_prompt"], label="System prompt", lines=2, max_lines=8, elem_id="system"
            )
            with gr.Row():
                self.preset = gr.Dropdown(
                    [*PRESETS], value=None, label="Preset", interactive=True, elem_id="preset", min_width=180
                )
                self.temperature = gr.Slider(
                    0, 2, value=options["temperature"], step=0.05, label="Temperature", elem_id="temperature",
                    min_width=180,
                )  # fmt: skip
                self.max_tokens = gr.Number(
                    options["max_tokens"], label="Max tokens", minimum=1, maximum=131072, precision=0,
                    elem_id="max-tokens", min_width=120,
                )  # fmt: skip
            with gr.Row(elem_classes="numbers"):
                # Not gr.Number: one that is empty becomes 0 when it is first seen, and 0 means something else.
                self.numbers = [
                    gr.Textbox(
                        "", label=number.label, max_lines=1, elem_id=number.name.replace("_", "-"), min_width=120,
                        placeholder="engine's own", html_attributes=gr.InputHTMLAttributes(autocomplete="off"),
                    )
                    for number in NUMBERS
                ]  # fmt: skip
            self.stops = gr.Textbox("", label="Stop strings, one a line", lines=1, max_lines=4, elem_id="stop-strings")
        self.preset.input(_preset, [self.preset], [self.temperature, *self.numbers], **QUICK)

    @property
    def fields(self) -> list[Any]:
        """Inputs of an event, in the order of `read`."""
        return [self.system, self.temperature, self.max_tokens, self.stops, *self.numbers]

    def read(
        self,
        system: str | None,
        temperature: float | None,
        max_tokens: float | None,
        stops: str | None,
        *numbers: str | None,
    ) -> tuple[str, dict[str, Any]]:
        """System prompt, and what goes into the body. Raises AskError where a field holds no such number."""
        return system or "", parameters(
            self.options["temperature"] if temperature is None else float(temperature),
            self.options["max_tokens"] if not max_tokens else int(max_tokens),
            numbers,
            stops or "",
        )


def _preset(name: str | None) -> list[Any]:
    if name not in PRESETS:
        return [gr.update()] * (1 + len(NUMBERS))
    temperature, numbers = preset(name)
    return [temperature, *numbers]
