"""The half of Structured where an answer is held to a JSON schema, and is checked. Knows Gradio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground.page import QUICK
from gateway_playground.tabs.asking import Asking, Watch, path_of
from gateway_playground.tabs.structured import schema as schemas
from gateway_playground.tabs.structured.examples import SCHEMAS
from gateway_playground.tabs.structured.play import Said

Update = dict[Any, Any]


class SchemaPanel:
    """Schema and question on the left, the answer and what the check found on the right."""

    def __init__(self, context: PageContext) -> None:
        self.context = context
        self._place()
        self._connect()

    def _place(self) -> None:
        first = next(iter(SCHEMAS))
        schema, question = SCHEMAS[first]
        self.asking = gr.State(Asking())
        with gr.Row(elem_classes="halves"):
            with gr.Column():
                self.example = gr.Dropdown(
                    [*SCHEMAS], value=first, label="Example", elem_id="schema-example", interactive=True
                )
                self.schema = gr.Code(
                    schema, language="json", label="JSON schema", lines=12, max_lines=24, elem_id="schema-editor"
                )
                self.question = gr.Textbox(question, label="Question", lines=2, max_lines=6, elem_id="schema-question")
                self.max_tokens = gr.Number(
                    200, label="Most tokens of the answer", minimum=1, maximum=131072, precision=0,
                    elem_id="schema-max-tokens",
                )  # fmt: skip
                with gr.Row(elem_classes="buttons"):
                    self.ask = gr.Button("Ask", variant="primary", elem_id="schema-ask", min_width=80)
                    self.stop = gr.Button("Stop", elem_id="schema-stop", min_width=80, visible=False)
            with gr.Column():
                self.answer = gr.Code(
                    "", language="json", label="Answer", lines=12, max_lines=24, interactive=False,
                    elem_id="schema-answer",
                )  # fmt: skip
                self.verdict = gr.HTML(
                    '<p class="quiet" role="status">The answer is checked against the schema once it is there.</p>',
                    elem_id="schema-verdict",
                    padding=False,
                )

    def _connect(self) -> None:
        context = self.context
        self.example.change(self._take_example, [self.example], [self.schema, self.question], **QUICK)
        gr.on(  # pyright: ignore[reportUnknownMemberType]
            [self.ask.click, self.question.submit],
            self._ask,
            [self.asking, context.key, context.models, context.model, self.schema, self.question, self.max_tokens],
            [self.answer, self.verdict, self.ask, self.stop],
            concurrency_limit=context.options["max_streams"],
            concurrency_id="answers",
            show_progress="hidden",
            api_visibility="private",
        )
        self.stop.click(self._stop, [self.asking], None, **QUICK)

    def _take_example(self, name: str | None) -> tuple[Any, Any]:
        schema, question = SCHEMAS.get(name or "", ("{}", ""))
        return schema, question

    async def _stop(self, asking: Asking) -> None:
        asking.stop()

    async def _ask(
        self,
        asking: Asking,
        key: str | None,
        models: list[dict[str, Any]],
        model: str | None,
        schema_text: str | None,
        question: str | None,
        max_tokens: float | None,
    ) -> AsyncGenerator[Update]:
        if asking.busy:
            return
        context = self.context
        try:
            schema = schemas.read(schema_text or "")
            if not (question or "").strip():
                raise AskError("Ask something: the question is empty.")
            if not model:
                raise AskError("Pick a model first: the list is above.")
        except (schemas.SchemaProblem, AskError) as problem:
            yield {self.verdict: context.notice(str(problem))}
            return
        yield {
            self.answer: "",
            self.verdict: '<p class="quiet" role="status">The model writes …</p>',
            self.ask: gr.Button(visible=False),
            self.stop: gr.Button(visible=True),
        }
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": int(max_tokens or 200),
            "temperature": 0,
            "stream_options": {"include_usage": True},
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            },
        }
        said, watch = Said(), Watch()
        path = f"{path_of(models, model)}/chat/completions"
        try:
            async with aclosing(asking.events(context.client, path, (key or "").strip(), body)) as batches:
                async for batch in batches:
                    watch.see(batch)
                    for event in batch:
                        said.add(event)
                    yield {self.answer: said.text}
            verdict = await self._judged(schema, said, watch, stopped=asking.stopped)
        except AskError as failure:
            verdict = context.notice(failure.message)
        yield {
            self.answer: _pretty(said.text),
            self.verdict: verdict,
            self.ask: gr.Button(visible=True),
            self.stop: gr.Button(visible=False),
        }

    async def _judged(self, schema: dict[str, Any], said: Said, watch: Watch, *, stopped: bool) -> str:
        escape = self.context.escape
        found = await asyncio.to_thread(schemas.violations, schema, said.text)
        facts = f'<p class="quiet">{escape(watch.facts())}</p>'
        if not found:
            return f'<p class="passed" role="status"><b>Passed.</b> The answer keeps the schema.</p>{facts}'
        cut = (
            "It was stopped before it ended."
            if stopped
            else "It was cut off at its most tokens."
            if said.finish_reason == "length"
            else ""
        )
        rows = "".join(f"<li><code>{escape(path)}</code> {escape(what)}</li>" for path, what in found)
        number = f"{len(found)} violation{'' if len(found) == 1 else 's'}"
        return (
            f'<div class="failed" role="status"><p><b>Failed:</b> {number}. {cut}</p>'
            f'<ul aria-label="Violations">{rows}</ul></div>{facts}'
        )


def _pretty(text: str) -> str:
    """The same JSON on lines of its own; what is no JSON stays as it is."""
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
