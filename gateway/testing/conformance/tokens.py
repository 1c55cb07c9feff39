"""Tokens and models: what evaluation tools ask before they ask anything else."""

from __future__ import annotations

from gateway.testing.conformance.chat import QUESTION
from gateway.testing.conformance.check import Group, error_of, expect, same
from gateway.testing.served import Served

GROUP = Group("tokens")


@GROUP.check("tokenize")
async def tokenize(served: Served) -> None:
    body = await served.post("/tokenize", prompt="test one two", add_special_tokens=False)
    same(body["count"], len(body["tokens"]), "`count`")
    expect(body["tokens"] and all(isinstance(token, int) for token in body["tokens"]), "no ids")
    expect(body["max_model_len"], "`max_model_len` is missing")
    back = (await served.post("/detokenize", tokens=body["tokens"]))["prompt"]
    same(back, "test one two", "the text of the ids without special ones")
    messages = [{"role": "user", "content": QUESTION}]
    counted = (await served.post("/tokenize", messages=messages))["count"]
    used = (await served.chat(messages, max_tokens=1))["usage"]["prompt_tokens"]
    same(counted, used, "tokens of messages, beside the chat's own count")
    same((await served.post("/tokenize", prompt=messages))["count"], counted, "messages under `prompt`")


@GROUP.check("detokenize")
async def detokenize(served: Served) -> None:
    for text in ("test one two", "Zürich, 北京, 🦙"):
        same((await served.post("/detokenize", tokens=await served.ids(text)))["prompt"], text, "there and back")


@GROUP.check("tokenizer_info")
async def tokenizer_info(served: Served) -> None:
    info = await served.get("/tokenizer_info")
    missing = {"eos_token", "bos_token", "pad_token", "chat_template"} - info.keys()
    expect(not missing, f"{', '.join(sorted(missing))} is missing")
    expect(info["eos_token"], "`eos_token` is empty")
    # It carries no `model`: it goes to the default model, and so must its end token.
    reply = await served.request("POST", "/tokenize", json={"prompt": info["eos_token"], "add_special_tokens": False})
    same(reply.status, 200, "the status of `/tokenize` without a model")
    same(len(reply.json()["tokens"]), 1, "ids of the end token")


@GROUP.check("models")
async def models(served: Served) -> None:
    rows = await served.get("/v1/models")
    same(rows["object"], "list", "`object`")
    row = next(row for row in rows["data"] if row["id"] == served.model)
    missing = {"id", "object", "created", "owned_by", "root", "parent", "max_model_len"} - row.keys()
    expect(not missing, f"a row lacks {', '.join(sorted(missing))}")
    one = await served.get(f"/v1/models/{served.model}")
    same(one["id"], served.model, "`id` of the one")
    unknown = await served.request("GET", "/v1/models/no-such-model")
    same(unknown.status, 404, "the status of an unknown one")
    error_of(unknown)
