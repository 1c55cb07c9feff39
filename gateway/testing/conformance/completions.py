"""`/v1/completions`: prompts in each of their forms, streams, stop strings, usage."""

from __future__ import annotations

from gateway.testing.conformance.chat import CHAT, QUESTION, chunks_of
from gateway.testing.conformance.check import Group, NotApplicable, expect, same
from gateway.testing.served import Served, chat_body

GROUP = Group("completions")
PROMPT = "The capital of France is"
COMPLETIONS = "/v1/completions"


@GROUP.check("completions")
async def completions(served: Served) -> None:
    body = await served.complete(PROMPT, max_tokens=5)
    same(body["object"], "text_completion", "`object`")
    same(body["model"], served.model, "`model`")
    (choice,) = body["choices"]
    expect(choice["text"], "the text is empty")
    expect(choice["finish_reason"] in {"stop", "length"}, f"`finish_reason` is {choice['finish_reason']!r}")
    same((await served.complete(PROMPT, max_tokens=5))["choices"][0]["text"], choice["text"], "greedy, asked again")


@GROUP.check("completions stream", "stream")
async def completions_stream(served: Served) -> None:
    whole = (await served.complete(PROMPT, max_tokens=10))["choices"][0]
    chunks = chunks_of(await served.stream(COMPLETIONS, prompt=PROMPT, temperature=0, max_tokens=10))
    same("".join(choice["text"] for chunk in chunks for choice in chunk["choices"]), whole["text"], "the streamed text")
    same(chunks[-1]["choices"][0]["finish_reason"], whole["finish_reason"], "the last `finish_reason`")


@GROUP.check("list prompts", "prompt")
async def list_prompts(served: Served) -> None:
    prompts = [PROMPT, "1, 2, 3, 4,"]
    choices = (await served.complete(prompts, max_tokens=6))["choices"]
    same([choice["index"] for choice in choices], [0, 1], "indices")
    for prompt, choice in zip(prompts, choices, strict=True):
        alone = (await served.complete(prompt, max_tokens=6))["choices"][0]["text"]
        same(choice["text"], alone, f"the answer to {prompt!r} in a list")


@GROUP.check("ids prompts", "prompt")
async def ids_prompts(served: Served) -> None:
    ids = (await served.post("/tokenize", prompt=PROMPT))["tokens"]
    text = (await served.complete(PROMPT, max_tokens=6))["choices"][0]["text"]
    one = await served.complete(ids, max_tokens=6)
    same(one["choices"][0]["text"], text, "the answer to the prompt's own ids")
    same(one["usage"]["prompt_tokens"], len(ids), "`prompt_tokens`: something was added to the ids")
    same((await served.complete([ids], max_tokens=6))["choices"][0]["text"], text, "the answer to a list of one list")
    two = (await served.complete([ids, ids[:-1]], max_tokens=6))["choices"]
    same([choice["index"] for choice in two], [0, 1], "indices")
    same(two[0]["text"], text, "the answer to the first of two lists")


@GROUP.check("stop", "stop")
async def stop(served: Served) -> None:
    whole = (await served.complete(PROMPT, max_tokens=16))["choices"][0]["text"]
    expect(len(whole) > 4, f"the answer is too short to be stopped: {whole!r}")
    middle = whole[len(whole) // 2 :][:1]
    # More than OpenAI's four, of which the last is met.
    stops = ["\u2603\u2604", "\u2605\u2606", "\u2607\u2608", "\u2609\u260a", "\u260b\u260c", middle]
    choice = (await served.complete(PROMPT, max_tokens=16, stop=stops))["choices"][0]
    same(choice["text"], whole[: whole.index(middle)], f"the text before {middle!r}")
    same(choice["finish_reason"], "stop", "`finish_reason`")
    same((await served.complete(PROMPT, max_tokens=16, stop=[]))["choices"][0]["text"], whole, "`stop: []`")


@GROUP.check("stop spans tokens", "stop")
async def stop_spans_tokens(served: Served) -> None:
    whole = (await served.complete(PROMPT, max_tokens=16, logprobs=0))["choices"][0]
    text, tokens = whole["text"], whole["logprobs"]["tokens"]
    end = 0
    for token in tokens[:-1]:
        end += len(token)
        # Half of it ends one token, half of it begins the next.
        across = text[end - 1 : end + 1]
        if len(across) == 2 and text.index(across) == end - 1:
            break
    else:
        raise NotApplicable(f"no two tokens of {text!r} meet in a string of their own")
    choice = (await served.complete(PROMPT, max_tokens=16, stop=across))["choices"][0]
    same(choice["text"], text[: end - 1], f"the text before {across!r}")
    same(choice["finish_reason"], "stop", "`finish_reason`")
    chunks = chunks_of(await served.stream(COMPLETIONS, prompt=PROMPT, temperature=0, max_tokens=16, stop=across))
    streamed = "".join(choice["text"] for chunk in chunks for choice in chunk["choices"])
    same(streamed, text[: end - 1], "the streamed text: half of a stop string was sent")


@GROUP.check("UTF-8 spans tokens", "UTF-8")
async def utf8(served: Served) -> None:
    # Emoji and rare signs are several tokens of most vocabularies; a model repeats what came three times.
    prompt = "🦙𝄞 🦙𝄞 🦙𝄞 🦙𝄞"
    whole = (await served.complete(prompt, max_tokens=16))["choices"][0]
    chunks = chunks_of(await served.stream(COMPLETIONS, prompt=prompt, temperature=0, max_tokens=16))
    pieces = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
    same("".join(pieces), whole["text"], "the streamed text")
    expect("\ufffd" not in "".join(pieces[:-1]), f"half of a character was sent: {pieces}")
    back = (await served.post("/detokenize", tokens=await served.ids(prompt)))["prompt"]
    same(back, prompt, "the text of the prompt's own ids")


@GROUP.check("usage")
async def usage(served: Served) -> None:
    counted = (await served.post("/tokenize", prompt=PROMPT))["count"]
    body = (await served.complete(PROMPT, max_tokens=5, ignore_eos=True))["usage"]
    same(body["prompt_tokens"], counted, "`prompt_tokens` beside `/tokenize`")
    same(body["completion_tokens"], 5, "`completion_tokens`")
    same(body["total_tokens"], counted + 5, "`total_tokens`")
    for path, fields in ((COMPLETIONS, {"prompt": PROMPT, "temperature": 0}), (CHAT, chat_body(QUESTION, {}))):
        whole = (await served.post(path, max_tokens=5, **fields))["usage"]
        asked = chunks_of(await served.stream(path, max_tokens=5, stream_options={"include_usage": True}, **fields))
        same(asked[-1]["choices"], [], "the usage chunk's `choices`")
        last = asked[-1]["usage"]
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            same(last[name], whole[name], f"a stream's `{name}`")
        for chunk in chunks_of(await served.stream(path, max_tokens=5, **fields)):
            expect(chunk["choices"] and not chunk.get("usage"), f"usage that was not asked for: {chunk}")


@GROUP.check("return_token_ids")
async def return_token_ids(served: Served) -> None:
    body = await served.complete(PROMPT, max_tokens=6, return_token_ids=True)
    choice = body["choices"][0]
    same(choice["prompt_token_ids"], (await served.post("/tokenize", prompt=PROMPT))["tokens"], "`prompt_token_ids`")
    same(len(choice["token_ids"]), body["usage"]["completion_tokens"], "number of `token_ids`")
    text = (await served.post("/detokenize", tokens=choice["token_ids"]))["prompt"]
    expect(
        text.startswith(choice["text"].rstrip("\ufffd")), f"{text!r} is not the text of the answer {choice['text']!r}"
    )
