"""Grammars on their way to vLLM: held to the limits of every engine, and written so that vLLM enforces what the others
do. vLLM no longer reads the `guided_…` fields, and would answer as if nobody had asked. Imports no vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from gateway.errors import InvalidRequest
from gateway.openai.grammar import MAX_SCHEMA_BYTES, Grammar
from gateway.openai.grammar_request import FIELDS, AskedGrammar, read_grammar
from gateway.openai.guidance import as_lark, of_bytes
from gateway.openai.tools import Tools, calls_grammar
from gateway_vllm.tools import Terms

_judge = of_bytes()


async def guide(request: dict[str, Any], terms: Terms, tools: Tools | None = None) -> None:
    """Check a request's grammar, and that of its calls, and put it where vLLM reads it.

    In llguidance's notation, where vLLM takes it: with that JSON has no endless white space and every keyword of a
    schema holds. Raises as `read_grammar` and `Guidance.compile`.
    """
    if _is_tagged(request):
        return
    asked = read_grammar({name: request.get(name) for name in FIELDS}, "vllm")
    if tools is not None and terms.form is not None:
        asked = AskedGrammar(calls_grammar(tools, terms.form, asked), "tools")
    if asked is None:
        if not request.get("structured_outputs"):
            request.pop("structured_outputs", None)
        return
    await _judge.compile(asked.grammar, asked.param)
    if tools is None and request.get("tools") and asked.param.startswith(("response_format", "structured_outputs")):
        # vLLM joins them to a grammar of calls, for which it has to read the field itself.
        return
    for name in FIELDS:
        request.pop(name, None)
    text = await asyncio.to_thread(as_lark, asked.grammar) if terms.by_guidance else None
    request["structured_outputs"] = _native(asked.grammar) if text is None else {"grammar": text}


def _is_tagged(request: Mapping[str, Any]) -> bool:
    """Structural tags, which are vLLM's own. Raises InvalidRequest where they are too large."""
    for name in ("response_format", "structured_outputs"):
        value = request.get(name)
        fields = cast(Mapping[str, Any], value if isinstance(value, Mapping) else {})
        if fields.get("type") == "structural_tag" or fields.get("structural_tag"):
            if len(msgspec.json.encode(fields)) > MAX_SCHEMA_BYTES:
                raise InvalidRequest(f"`{name}` is too large: it has more than {MAX_SCHEMA_BYTES} bytes", param=name)
            return True
    return False


def _native(grammar: Grammar) -> dict[str, Any]:
    if grammar.kind == "json":
        schema: dict[str, Any] = msgspec.json.decode(grammar.text)
        schema.pop("x-guidance", None)
        return {"json": schema}
    return {"regex": grammar.text} if grammar.kind == "regex" else {"grammar": grammar.text}
