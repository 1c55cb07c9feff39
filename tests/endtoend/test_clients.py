"""The official clients, `openai` and `anthropic`: grammars, messages, tokens and scores on every engine."""

from __future__ import annotations

import json
import time
from typing import Any

import anthropic
import httpx
import jsonschema
import openai
import pytest

from tests.running import Gateway

pytestmark = pytest.mark.slow

ENGINES = ("smollm2", "smollm2-onnx", "smollm2-torch")
CAPITAL = "The capital of France is Paris."
ASKED = "What is the capital of France?"
QUESTION: list[Any] = [{"role": "user", "content": ASKED}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "days": {"type": "integer", "enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}

TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather of a city.", "parameters": WEATHER},
}


@pytest.fixture
def client(gateway: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def claude(gateway: Gateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=gateway.url, api_key="none", max_retries=0, timeout=60)


@pytest.mark.parametrize("model", ENGINES)
def test_a_schema_holds_whole_and_streamed(client: openai.OpenAI, model: str) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": WEATHER}}
    asked: Any = {"model": model, "messages": QUESTION, "max_tokens": 60, "response_format": form, "seed": 1}
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "stop"
    jsonschema.validate(json.loads(whole.message.content or ""), WEATHER)
    with client.chat.completions.create(**asked, stream=True) as chunks:
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    jsonschema.validate(json.loads(text), WEATHER)


@pytest.mark.parametrize("model", ENGINES)
def test_a_regex_and_a_choice_hold(client: openai.OpenAI, model: str) -> None:
    def ask(**outputs: Any) -> str:
        answer = client.chat.completions.create(
            model=model, messages=QUESTION, max_tokens=20, extra_body={"structured_outputs": outputs}
        )
        return answer.choices[0].message.content or ""

    assert ask(choice=["Lyon", "Nice"]) in ("Lyon", "Nice")
    number = ask(regex=r"\d{3}-\d{2}")
    assert len(number) == 6
    assert number.replace("-", "").isdigit()


@pytest.mark.parametrize("model", ENGINES)
def test_responses_from_creation_to_deletion(client: openai.OpenAI, model: str) -> None:
    first = client.responses.create(model=model, input=ASKED, temperature=0, max_output_tokens=20)
    assert first.output_text == CAPITAL
    assert first.status == "completed"
    assert first.usage is not None
    assert first.usage.output_tokens == 8
    assert client.responses.retrieve(first.id).output_text == CAPITAL
    second = client.responses.create(
        model=model, input="And of Italy?", previous_response_id=first.id, temperature=0, max_output_tokens=8
    )
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(second.id)


@pytest.mark.parametrize("model", ENGINES)
def test_responses_stream_their_typed_events(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input=ASKED, temperature=0, max_output_tokens=20) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == CAPITAL
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_text.delta") > 2


def test_a_response_in_the_background_is_cancelled(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model="echo-slow", input="word " * 400, background=True, max_output_tokens=2000
    )  # fmt: skip
    assert made.status in ("queued", "in_progress")
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"


def test_a_batch_over_all_engines_is_answered_as_if_each_request_came_alone(client: openai.OpenAI) -> None:
    said = [[{"role": "user", "content": f"{ASKED} {number}"}] for number in range(4)]
    asked: dict[str, Any] = {
        f"{model}-{number}": {"model": model, "temperature": 0, "max_tokens": 12, "messages": messages}
        for model in ENGINES
        for number, messages in enumerate(said)
    }
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
        for name, body in asked.items()
    ]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    deadline = time.monotonic() + 120
    while batch.status != "completed":
        assert batch.status == "in_progress"
        assert time.monotonic() < deadline
        time.sleep(0.3)
        batch = client.batches.retrieve(batch.id)
    assert batch.request_counts is not None
    assert batch.request_counts.completed == len(asked)
    assert batch.id in [row.id for row in client.batches.list()]
    rows = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    assert [row["custom_id"] for row in rows] == list(asked)
    for row in rows:
        alone = client.chat.completions.create(**asked[row["custom_id"]])
        body = row["response"]["body"]
        assert body["model"] == alone.model
        assert body["choices"][0]["message"]["content"] == alone.choices[0].message.content
        assert body["usage"]["total_tokens"] == (alone.usage and alone.usage.total_tokens)
    assert client.files.delete(file.id).deleted


@pytest.mark.parametrize("model", ENGINES)
def test_messages_whole_streamed_and_counted(claude: anthropic.Anthropic, model: str) -> None:
    asked: Any = {"model": model, "messages": QUESTION, "max_tokens": 20}
    answer = claude.messages.create(**asked, extra_body={"temperature": 0})
    assert answer.content[0].type == "text"
    assert answer.content[0].text == CAPITAL
    assert answer.stop_reason == "end_turn"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (37, 8)
    with claude.messages.stream(**asked, extra_body={"temperature": 0}) as stream:
        assert "".join(stream.text_stream) == CAPITAL
        assert stream.get_final_message().usage.output_tokens == 8
    assert claude.messages.count_tokens(model=model, messages=QUESTION).input_tokens == 37


@pytest.mark.parametrize(
    ("model", "choice"),
    [*((model, "required") for model in ENGINES), ("smollm2", {"type": "function", "function": {"name": "weather"}})],
)
def test_a_tool_is_called_whole_and_streamed(client: openai.OpenAI, model: str, choice: Any) -> None:
    asked: Any = {
        "model": model, "messages": QUESTION, "max_tokens": 80, "tools": [TOOL], "tool_choice": choice, "seed": 2,
        "parallel_tool_calls": False,
    }  # fmt: skip
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.message.tool_calls is not None
    call: Any = answer.message.tool_calls[0]
    assert call.function.name == "weather"
    jsonschema.validate(json.loads(call.function.arguments), WEATHER)
    name, arguments, reasons = "", "", set[str | None]()
    with client.chat.completions.create(**asked, stream=True) as chunks:
        for chunk in chunks:
            reasons.add(chunk.choices[0].finish_reason)
            for part in chunk.choices[0].delta.tool_calls or ():
                assert part.function is not None
                name += part.function.name or ""
                arguments += part.function.arguments or ""
    assert name == "weather"
    jsonschema.validate(json.loads(arguments), WEATHER)
    assert reasons & {"tool_calls", "stop"}


@pytest.mark.parametrize("model", ENGINES)
def test_messages_call_a_tool(claude: anthropic.Anthropic, model: str) -> None:
    tool: Any = {"name": "weather", "description": "The weather of a city.", "input_schema": WEATHER}
    answer = claude.messages.create(
        model=model, messages=QUESTION, max_tokens=80, tools=[tool], tool_choice={"type": "tool", "name": "weather"}
    )
    used = next(block for block in answer.content if block.type == "tool_use")
    assert used.name == "weather"
    jsonschema.validate(used.input, WEATHER)
    assert answer.stop_reason == "tool_use"


def test_messages_that_are_wrong_are_told_in_anthropics_shape(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="nobody", messages=QUESTION, max_tokens=5)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("model", ENGINES)
def test_tokens_there_and_back(gateway: Gateway, model: str) -> None:
    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = httpx.post(f"{gateway.url}{path}", json={"model": model, **body}, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    text = "Grüße, 世界 🙂"
    made = post("/tokenize", prompt=text, add_special_tokens=False)
    assert made["count"] == len(made["tokens"])
    assert post("/detokenize", tokens=made["tokens"])["prompt"] == text
    assert post("/tokenize", messages=QUESTION)["count"] == 37


@pytest.mark.parametrize("model", ENGINES)
def test_prompt_logprobs_are_those_of_echo(client: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "prompt": "The capital of France is Paris.", "max_tokens": 1, "temperature": 0}
    echoed = client.completions.create(**asked, echo=True, logprobs=2).choices[0]
    assert echoed.logprobs is not None
    assert echoed.logprobs.token_logprobs is not None
    row: Any = client.completions.create(**asked, extra_body={"prompt_logprobs": 2}).choices[0]
    positions: list[dict[str, Any] | None] = row.prompt_logprobs
    assert positions[0] is None
    assert len(positions) == len(echoed.logprobs.token_logprobs) - 1
    for position, logprob in zip(positions[1:], echoed.logprobs.token_logprobs[1:-1], strict=True):
        assert position is not None
        actual = next(iter(position.values()))
        assert actual["logprob"] == pytest.approx(logprob, abs=1e-4)
        assert actual["rank"] >= 1
