"""`/v1/files` and `/v1/batches`: requests in, answers out, each the same as if it were asked alone."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from gateway.testing.conformance.chat import CHAT, QUESTION
from gateway.testing.conformance.check import Group, error_of, expect, same
from gateway.testing.served import Rejected, Served, chat_body

GROUP = Group("batches")
LONGEST_S = 90.0
OVER = {"completed", "failed", "expired", "cancelled"}


@GROUP.check("files+batches", "file|batch")
async def files_batches(served: Served) -> None:
    questions = [QUESTION, "What is two and two?", "Say hello."]
    bodies: list[dict[str, Any]] = [{"model": served.model, **chat_body(one, {"max_tokens": 6})} for one in questions]
    lines = [_line(str(number), body) for number, body in enumerate(bodies)]
    lines.append(_line("wrong", {**bodies[0], "max_tokens": -1}))
    file = await _upload(served, lines)
    same((file["object"], file["purpose"]), ("file", "batch"), "`object` and `purpose`")
    batch = await _begin(served, file["id"])
    same(batch["object"], "batch", "`object`")
    batch = await _finish(served, batch["id"])
    same(batch["status"], "completed", f"`status` ({batch.get('errors')})")
    same(batch["request_counts"], {"total": 4, "completed": 3, "failed": 1}, "`request_counts`")
    answers = await _rows(served, batch["output_file_id"])
    for number, body in enumerate(bodies):
        answer = answers[str(number)]["response"]
        same(answer["status_code"], 200, "`status_code`")
        alone = (await served.post(CHAT, **body))["choices"][0]["message"]["content"]
        same(answer["body"]["choices"][0]["message"]["content"], alone, "the answer beside that of a single request")
    wrong = (await _rows(served, batch["error_file_id"]))["wrong"]
    same(wrong["response"]["status_code"], 400, "`status_code` of the wrong one")
    listed = await served.get("/v1/batches?limit=100")
    expect(batch["id"] in [row["id"] for row in listed["data"]], "the batch is not in the list")
    gone = await served.request("DELETE", f"/v1/files/{file['id']}")
    same(gone.json()["deleted"], True, "`deleted`")
    missing = await served.request("GET", f"/v1/files/{file['id']}")
    same(missing.status, 404, "the status of a file that was deleted")
    error_of(missing)


@GROUP.check("batches cancel", "batch|cancel")
async def batches_cancel(served: Served) -> None:
    body = {"model": served.model, **chat_body("Tell me a story", {"max_tokens": 200, "ignore_eos": True})}
    file = await _upload(served, [_line(str(number), body) for number in range(64)])
    batch = await _begin(served, file["id"])
    reply = await served.request("POST", f"/v1/batches/{batch['id']}/cancel")
    if reply.status != 200:
        raise Rejected(reply, "POST /v1/batches/…/cancel")
    expect(reply.json()["status"] in {"cancelling", "cancelled"}, f"`status` is {reply.json()['status']!r}")
    batch = await _finish(served, batch["id"])
    same(batch["status"], "cancelled", "`status`")
    expect(batch["request_counts"]["completed"] < 64, "all was done nevertheless")
    missing = await served.request("POST", "/v1/batches/batch_of_nobody/cancel")
    same(missing.status, 404, "the status of an unknown batch")
    error_of(missing)


def _line(number: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": number, "method": "POST", "url": CHAT, "body": body}


async def _upload(served: Served, lines: list[dict[str, Any]]) -> Any:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = {"file": ("requests.jsonl", content, "application/jsonl")}
    reply = await served.request("POST", "/v1/files", files=files, data={"purpose": "batch"})
    if reply.status != 200:
        raise Rejected(reply, "POST /v1/files")
    return reply.json()


async def _begin(served: Served, file: str) -> Any:
    asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    reply = await served.request("POST", "/v1/batches", json=asked)
    if reply.status != 200:
        raise Rejected(reply, "POST /v1/batches")
    return reply.json()


async def _finish(served: Served, batch: str) -> Any:
    deadline = time.monotonic() + LONGEST_S
    while (found := await served.get(f"/v1/batches/{batch}"))["status"] not in OVER:
        expect(time.monotonic() < deadline, f"after {LONGEST_S:g} s it is {found['status']!r}")
        await asyncio.sleep(0.2)
    return found


async def _rows(served: Served, file: str) -> dict[str, Any]:
    reply = await served.request("GET", f"/v1/files/{file}/content")
    if reply.status != 200:
        raise Rejected(reply, "GET /v1/files/…/content")
    rows = [json.loads(line) for line in reply.text.splitlines() if line]
    return {row["custom_id"]: row for row in rows}
