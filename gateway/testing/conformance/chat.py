"""`/v1/chat/completions`: what a message, a stream and a prompt made of messages are."""

from __future__ import annotations

from typing import Any

from gateway.testing.conformance.check import Group, NotApplicable, expect, refuses, same
from gateway.testing.served import Event, Served, chat_body

GROUP = Group("chat")
QUESTION = "What is the capital of France?"
CHAT = "/v1/chat/completions"


def chunks_of(events: list[Event]) -> list[Any]:
    """The chunks of an OpenAI stream. Raises CheckFailed where it does not end with `[DONE]`, or holds an error."""
    expect(events and events[-1].data == "[DONE]", "the stream does not end with `data: [DONE]`")
    chunks = [event.data for event in events[:-1]]
    expect("[DONE]" not in chunks, "`[DONE]` came before the end")
    for chunk in chunks:
        expect("error" not in chunk, f"an error inside the stream: {chunk}")
    return chunks


@GROUP.check("chat")
async def chat(served: Served) -> None:
    body = await served.chat(QUESTION, max_tokens=12)
    same(body["object"], "chat.completion", "`object`")
    same(body["model"], served.model, "`model`")
    expect(isinstance(body["created"], int) and body["id"], "an answer has `id` and `created`")
    (choice,) = body["choices"]
    same(choice["index"], 0, "`index`")
    same(choice["message"]["role"], "assistant", "`role`")
    expect(choice["message"]["content"], "the message is empty")
    expect(choice["finish_reason"] in {"stop", "length"}, f"`finish_reason` is {choice['finish_reason']!r}")
    again = await served.chat(QUESTION, max_completion_tokens=12)
    same(again["choices"][0]["message"]["content"], choice["message"]["content"], "`max_completion_tokens`, greedy")


@GROUP.check("chat stream", "stream")
async def chat_stream(served: Served) -> None:
    whole = (await served.chat(QUESTION, max_tokens=12))["choices"][0]
    chunks = chunks_of(await served.stream(CHAT, **chat_body(QUESTION, {"max_tokens": 12})))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    same({chunk["object"] for chunk in chunks}, {"chat.completion.chunk"}, "`object`")
    same(len({chunk["id"] for chunk in chunks}), 1, "ids in one stream")
    same(deltas[0].get("role"), "assistant", "the first delta's `role`")
    expect(deltas[0].get("content"), "the first chunk holds a role and no content: it is timed as the first token")
    same("".join(delta.get("content") or "" for delta in deltas), whole["message"]["content"], "the streamed text")
    reasons = [choice.get("finish_reason") for chunk in chunks for choice in chunk["choices"]]
    same([reason for reason in reasons if reason], [whole["finish_reason"]], "finish reasons")
    same(reasons[-1], whole["finish_reason"], "the last `finish_reason`")


@GROUP.check("stream ends with [DONE]", "stream")
async def done(served: Served) -> None:
    for path, fields in ((CHAT, chat_body("Hello", {})), ("/v1/completions", {"prompt": "Hello"})):
        reply = await served.request(
            "POST", path, json={"model": served.model, "stream": True, "max_tokens": 3, **fields}
        )
        expect(reply.headers.get("content-type", "").startswith("text/event-stream"), "no text/event-stream")
        expect(reply.text.rstrip().endswith("data: [DONE]"), f"{path} ends with {reply.text[-80:]!r}")


@GROUP.check("content parts", "content")
async def content_parts(served: Served) -> None:
    plain = await served.chat(QUESTION, max_tokens=8)
    parts = [{"role": "user", "name": None, "content": [{"type": "text", "text": QUESTION}]}]
    same((await served.chat(parts, max_tokens=8))["choices"][0]["message"]["content"],
         plain["choices"][0]["message"]["content"], "the answer to the same text as a part")  # fmt: skip


@GROUP.check("n choices", r"\bn\b")
async def n_choices(served: Served) -> None:
    # Hot, so that copies of one seed would show up as equals where the model can differ at all.
    fields = {"n": 3, "temperature": 1.5, "seed": 3, "max_tokens": 12}
    choices = (await served.chat("Tell me a story", **fields))["choices"]
    same([choice["index"] for choice in choices], [0, 1, 2], "indices")
    texts = ["", "", ""]
    for chunk in chunks_of(await served.stream(CHAT, **chat_body("Tell me a story", fields))):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    same(texts, [choice["message"]["content"] for choice in choices], "the streamed choices")
    one = (await served.chat("Tell me a story", **{**fields, "n": 1}))["choices"][0]["message"]["content"]
    if any(text != one for text in texts):
        expect(len(set(texts)) > 1, "three choices at a high temperature are one and the same")
    many = (await served.complete(["A", "B"], n=2, max_tokens=2))["choices"]
    same([choice["index"] for choice in many], [0, 1, 2, 3], "indices of two prompts with two choices each")
    same(many[0]["text"], many[1]["text"], "two greedy choices of one prompt")


@GROUP.check("continue_final_message")
async def continue_final_message(served: Served) -> None:
    began = "The capital of France is"
    opened = [{"role": "user", "content": QUESTION}]
    messages = [*opened, {"role": "assistant", "content": began}]
    flags = {"continue_final_message": True, "add_generation_prompt": False}
    body = await served.chat(messages, max_tokens=6, **flags)
    expect(body["choices"][0]["message"]["content"], "the message is empty")
    before = (await served.post("/tokenize", messages=opened, add_generation_prompt=True))["count"]
    longest = before + len(await served.ids(began)) + 1
    counted = body["usage"]["prompt_tokens"]
    # A message that was closed and followed by a new turn has more tokens than this.
    expect(counted <= longest, f"the prompt has {counted} tokens: the last message was not left open")
    expect(counted > before, f"the prompt has {counted} tokens: the last message is missing")
    await refuses(served, CHAT, 400, "continue_final_message", messages=messages, continue_final_message=True,
                  add_generation_prompt=True)  # fmt: skip


@GROUP.check("chat_template_kwargs")
async def chat_template_kwargs(served: Served) -> None:
    plain = await served.chat(QUESTION, max_tokens=4)
    known = await served.chat(QUESTION, max_tokens=4, chat_template_kwargs={"enable_thinking": False})
    expect(known["choices"], "no choices")
    bare = await served.chat(QUESTION, max_tokens=4, add_generation_prompt=False)
    expect(bare["usage"]["prompt_tokens"] < plain["usage"]["prompt_tokens"], "`add_generation_prompt` changes nothing")


@GROUP.check("reasoning both spellings", "reasoning")
async def reasoning(served: Served) -> None:
    # An echo repeats this; a model that reasons does so in any case.
    question = "<think>Two and two make four.</think>It is four."
    fields = {"max_tokens": 32}
    message = (await served.chat(question, **fields))["choices"][0]["message"]
    chunks = chunks_of(await served.stream(CHAT, **chat_body(question, fields)))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    spelled = [message, *deltas]
    if not any(one.get("reasoning") or one.get("reasoning_content") for one in spelled):
        expect(
            not (message.get("content") or "").startswith("<think>") or served.engine == "echo" or not served.engine,
            "the answer holds a <think> section: configure a reasoning parser",
        )
        raise NotApplicable("the model does not reason, or no parser is configured")
    for one in spelled:
        same(one.get("reasoning"), one.get("reasoning_content"), "`reasoning` beside `reasoning_content`")
    streamed = "".join(delta.get("reasoning") or "" for delta in deltas)
    same(streamed.strip(), (message.get("reasoning") or "").strip(), "the streamed reasoning")
    expect("<think>" not in (message.get("content") or ""), "the content still holds `<think>`")
