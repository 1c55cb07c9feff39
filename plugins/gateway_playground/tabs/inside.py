"""Look inside: how sure a model was of each token, what else it thought of, and where tokens end. Knows Gradio."""

from __future__ import annotations

from typing import Any, cast

import gradio as gr

from gateway.tabs import AskError, PageContext
from gateway_playground import tokens as token_view
from gateway_playground.page import QUICK
from gateway_playground.tokens import Token

ALTERNATIVES = 5
PICK = """element.addEventListener('click', event => {
  const token = event.target.closest('[data-token]');
  if (token) trigger('click', {token: Number(token.dataset.token)});
});"""


def build(context: PageContext) -> None:
    """The whole tab."""
    _Inside(context)


class _Inside:
    def __init__(self, context: PageContext) -> None:
        self.context = context
        self.answered = gr.State(list[Token]())
        self.picked = gr.State(-1)
        with gr.Tabs(elem_classes="room"):
            with gr.Tab("Answer"):
                self._place_answer()
            with gr.Tab("Prompt likelihood"):
                self._place_likelihood()
            with gr.Tab("Tokenizer"):
                self._place_tokenizer()

    def _place_answer(self) -> None:
        page = self.context
        self.prompt = gr.Textbox(label="Question to look into", lines=2, max_lines=8, elem_id="inside-prompt")
        with gr.Row():
            temperature = gr.Slider(0, 2, value=0, step=0.05, label="Temperature of this answer")
            max_tokens = gr.Number(64, label="Max tokens of this answer", minimum=1, precision=0)
        ask = gr.Button("Answer and show certainty", variant="primary", elem_id="inside-ask")
        self.shown = gr.HTML("", label="Answer's tokens", elem_id="inside-answer", js_on_load=PICK)
        self.chosen = gr.Radio([], label="Instead of this token", visible=False, elem_id="inside-choices")
        self.branch = gr.Button("Continue from here", visible=False, elem_id="inside-branch")
        asked_with = [page.models, page.model, page.key, self.prompt, temperature, max_tokens]
        outputs = [self.shown, self.answered, self.picked, self.chosen, self.branch]
        slow: dict[str, Any] = {
            **QUICK, "queue": True, "concurrency_limit": page.options["max_streams"], "concurrency_id": "answers",
        }  # fmt: skip
        gr.on([ask.click, self.prompt.submit], self._answer, asked_with, outputs, **slow)  # pyright: ignore[reportUnknownMemberType]
        self.shown.click(self._pick, [self.answered], [self.picked, self.chosen, self.branch], **QUICK)
        self.branch.click(self._branch, [*asked_with, self.answered, self.picked, self.chosen], outputs, **slow)

    def _place_likelihood(self) -> None:
        page = self.context
        text = gr.Textbox(label="Text to score", lines=3, max_lines=12, elem_id="inside-text")
        score = gr.Button("Score every token", variant="primary", elem_id="inside-score")
        shown = gr.HTML("", label="Text's tokens", elem_id="inside-scores")
        score.click(self._score, [page.models, page.model, page.key, text], [shown], **QUICK)

    def _place_tokenizer(self) -> None:
        page = self.context
        text = gr.Textbox(label="Text to tokenize", lines=3, max_lines=12, elem_id="inside-cut")
        special = gr.Checkbox(label="Add special tokens", value=False)
        cut = gr.Button("Show tokens", variant="primary", elem_id="inside-tokenize")
        shown = gr.HTML("", label="Tokens and ids", elem_id="inside-tokens")
        cut.click(self._tokenize, [page.model, page.key, text, special], [shown], **QUICK)

    async def _answer(
        self,
        rows: list[dict[str, Any]],
        model: str | None,
        key: str | None,
        prompt: str | None,
        temperature: float | None,
        max_tokens: float | None,
        before: list[Token] | None = None,
    ) -> dict[Any, Any]:
        before = before or []
        hidden = {self.picked: -1, self.chosen: gr.Radio(visible=False), self.branch: gr.Button(visible=False)}
        if not model or not (prompt or "").strip():
            return {self.shown: self.context.notice("Pick a model at the top and write a question."), **hidden}
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": float(temperature or 0),
            "max_tokens": int(max_tokens or 64),
            "logprobs": True,
            "top_logprobs": ALTERNATIVES,
        }
        if before:
            body["messages"].append({"role": "assistant", "content": token_view.prefix(before)})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        try:
            answer = await self.context.client.send(
                "POST", f"{_path(rows, model)}/chat/completions", (key or "").strip(), body
            )
            found = [*before, *token_view.of_chat(answer)]
        except AskError as failure:
            return {self.shown: self.context.notice(failure.message), **hidden}
        return {self.shown: token_view.heat_map(found, pickable=True), self.answered: found, **hidden}

    async def _pick(self, answered: list[Token], event: gr.EventData) -> dict[Any, Any]:
        index = cast("int", event.token)
        if not 0 <= index < len(answered) or not answered[index].others:
            return {self.picked: -1}
        choices = token_view.choices(answered[index])
        label = f"Instead of token {index + 1}, {answered[index].text!r}"
        return {
            self.picked: index,
            self.chosen: gr.Radio(choices, value=choices[0][1], label=label, visible=True),
            self.branch: gr.Button(visible=True),
        }

    async def _branch(
        self,
        rows: list[dict[str, Any]],
        model: str | None,
        key: str | None,
        prompt: str | None,
        temperature: float | None,
        max_tokens: float | None,
        answered: list[Token],
        picked: int,
        chosen: str | None,
    ) -> dict[Any, Any]:
        if picked < 0 or chosen is None:
            return {self.picked: -1}
        token: Token = answered[picked]
        taken = next((value for text, value in token.others if text == chosen), None)
        before = [*answered[:picked], Token(chosen, taken, token.others)]
        return await self._answer(rows, model, key, prompt, temperature, max_tokens, before)

    async def _score(self, rows: list[dict[str, Any]], model: str | None, key: str | None, text: str | None) -> str:
        if not model or not text:
            return self.context.notice("Pick a model at the top and write a text.")
        body = {
            "model": model, "prompt": text, "max_tokens": 0, "echo": True, "logprobs": ALTERNATIVES, "temperature": 0
        }  # fmt: skip
        try:
            answer = await self.context.client.send("POST", f"{_path(rows, model)}/completions", _plain(key), body)
            found = token_view.of_echo(answer)
        except AskError as failure:
            return self.context.notice(failure.message)
        return token_view.summary(found) + token_view.heat_map(found, pickable=False)

    async def _tokenize(self, model: str | None, key: str | None, text: str | None, special: bool) -> str:
        if not model or not text:
            return self.context.notice("Pick a model at the top and write a text.")
        body = {"model": model, "prompt": text, "add_special_tokens": bool(special), "return_token_strs": True}
        try:
            answer = await self.context.client.send("POST", "/tokenize", _plain(key), body)
            ids: list[int] = answer["tokens"]
            again = await self.context.client.send("POST", "/detokenize", _plain(key), {"model": model, "tokens": ids})
        except AskError as failure:
            return self.context.notice(failure.message)
        texts: list[str] = answer.get("token_strs") or [""] * len(ids)
        same = "decodes to the same text" if again["prompt"] == text else "decodes to another text"
        told = f"{len(ids)} tokens for {len(text)} characters · {same}"
        return f'<p class="facts">{told}</p>' + token_view.boundaries(texts, ids)


def _plain(key: str | None) -> str:
    return (key or "").strip()


def _path(rows: list[dict[str, Any]], model: str) -> str:
    return next((row["path"] for row in rows if row["id"] == model), "/v1")
