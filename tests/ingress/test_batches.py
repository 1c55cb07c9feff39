"""/v1/files and /v1/batches: handed in, answered as if each request came alone, told as files, each to its own key."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.batches import worker
from gateway.ingress.auth import hash_keys
from gateway.ingress.doors import DoorPolicy

OVER = ("completed", "cancelled", "failed", "expired")
CHAT = "/v1/chat/completions"


@pytest.fixture
def policy(tmp_path: Path) -> DoorPolicy:
    return DoorPolicy(store=f"sqlite:///{tmp_path / 'gateway.db'}")


def line(custom_id: str, body: dict[str, Any], url: str = CHAT, **more: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more}


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **more}


class Client:
    """A real HTTP client, in this process, of one wide door."""

    def __init__(self, gateway: Any, key: str | None = None) -> None:
        self.door = gateway.door
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(app=gateway.door)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    async def upload(self, lines: list[Any] | bytes, **data: str) -> httpx.Response:
        content = lines if isinstance(lines, bytes) else "".join(json.dumps(each) + "\n" for each in lines).encode()
        form = {"purpose": "batch", **data}
        return await self.http.post("/v1/files", files={"file": ("in.jsonl", content)}, data=form)

    async def begin(self, lines: list[Any] | bytes, endpoint: str = CHAT, **more: Any) -> Any:
        file = (await self.upload(lines)).json()
        asked = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", **more}
        answer = await self.http.post("/v1/batches", json=asked)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def end(self, batch: Any) -> Any:
        deadline = time.monotonic() + 20
        while batch["status"] not in OVER:
            assert time.monotonic() < deadline, batch
            await asyncio.sleep(0.02)
            batch = await self.get(f"/v1/batches/{batch['id']}")
        return batch

    async def answered(self, batch: Any) -> int:
        """How many lines have an answer, as soon as one has."""
        deadline = time.monotonic() + 20
        while not (done := (await self.get(f"/v1/batches/{batch['id']}"))["request_counts"]["completed"]):
            assert time.monotonic() < deadline, batch
            await asyncio.sleep(0.02)
        return done

    async def rows(self, file_id: str) -> dict[str, Any]:
        content = (await self.http.get(f"/v1/files/{file_id}/content")).text
        return {row["custom_id"]: row for row in map(json.loads, content.splitlines())}


@pytest.fixture
async def client(doors: Callable[..., Any], policy: DoorPolicy) -> Any:
    opened: list[Client] = []

    def make(
        data: dict[str, Any] | None = None, key: str | None = None, of: DoorPolicy = policy, **more: Any
    ) -> Client:
        opened.append(Client(doors(data, policy=of, **more), key))
        return opened[-1]

    yield make
    for each in opened:
        await each.door.close()
        await each.http.aclose()


async def test_answers_are_those_of_single_requests(client: Any) -> None:
    one = client()
    asked = {f"q{number}": chat(f"say {number}", max_tokens=2, seed=number) for number in range(40)}
    asked["wrong"] = chat("x", temperature="hot")
    asked["nobody"] = {**chat("x"), "model": "nobody"}
    batch = await one.begin([line(name, body) for name, body in asked.items()], metadata={"run": "1"})
    assert (batch["object"], batch["endpoint"], batch["status"]) == ("batch", CHAT, "in_progress")
    assert batch["request_counts"]["total"] == 42
    batch = await one.end(batch)
    assert (batch["status"], batch["metadata"]) == ("completed", {"run": "1"})
    assert batch["request_counts"] == {"total": 42, "completed": 40, "failed": 2}
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["completed_at"] <= batch["expires_at"]
    good, bad = await one.rows(batch["output_file_id"]), await one.rows(batch["error_file_id"])
    assert list(good) == [f"q{number}" for number in range(40)]
    for rows in (good, bad):
        for name, row in rows.items():
            alone = await one.http.post(CHAT, json=asked[name])
            assert row["response"]["status_code"] == alone.status_code
            told = row["response"]["body"]
            if alone.status_code == 200:
                assert told.keys() == alone.json().keys()
                assert (told["choices"], told["usage"]) == (alone.json()["choices"], alone.json()["usage"])
            else:
                assert told == alone.json()
    assert {row["response"]["status_code"] for row in bad.values()} == {400, 404}


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [("/v1/completions", {"model": "echo", "prompt": "a b"}), ("/v1/responses", {"model": "echo", "input": "a b"})],
)
async def test_other_endpoints(client: Any, endpoint: str, body: dict[str, Any]) -> None:
    one = client()
    batch = await one.end(await one.begin([line("a", body, endpoint)], endpoint))
    (row,) = (await one.rows(batch["output_file_id"])).values()
    assert "a b" in json.dumps(row["response"]["body"])
    assert batch["error_file_id"] is None


async def test_requests_are_counted_and_recorded(client: Any, doors: Any, policy: DoorPolicy) -> None:
    gateway = doors(policy=policy)
    one = Client(gateway)
    await one.end(await one.begin([line("a", chat("hi")), line("b", chat("hi"))]))
    await one.door.close()
    assert [record.path for record in gateway.records].count(CHAT) == 2


async def test_cancelled_while_it_runs(client: Any) -> None:
    one = client({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}}}})
    batch = await one.begin([line(f"{number}", chat("a b c d")) for number in range(200)])
    await one.answered(batch)
    said = (await one.http.post(f"/v1/batches/{batch['id']}/cancel")).json()
    assert said["status"] in ("cancelling", "cancelled")
    batch = await one.end(said)
    counts = batch["request_counts"]
    assert batch["status"] == "cancelled"
    assert batch["cancelled_at"] >= batch["cancelling_at"]
    assert 0 < counts["completed"] < 200
    assert len(await one.rows(batch["output_file_id"])) == counts["completed"]
    left = await one.rows(batch["error_file_id"])
    assert len(left) == 200 - counts["completed"]
    assert {row["error"]["code"] for row in left.values()} == {"batch_cancelled"}
    again = (await one.http.post(f"/v1/batches/{batch['id']}/cancel")).json()
    assert again == batch


async def test_another_gateway_goes_on_where_one_stopped(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"models": {"echo": {"backend": "echo", "options": {"delay_ms": 20}}}}
    one = client(slow)
    batch = await one.begin([line(f"{number}", chat("a b c d")) for number in range(100)])
    await one.answered(batch)
    await one.door.close()
    two = client(slow)
    counts = (await two.get(f"/v1/batches/{batch['id']}"))["request_counts"]
    assert 0 < counts["completed"] < 100
    two.door.start()
    batch = await two.end(batch)
    assert batch["request_counts"] == {"total": 100, "completed": 100, "failed": 0}
    assert len(await two.rows(batch["output_file_id"])) == 100


async def test_a_gateway_that_died_is_followed_when_its_lease_ends(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.batches.desk.LEASE_S", 0.5)
    monkeypatch.setattr(worker, "_POLL_S", 0.1)
    one = client({"models": {"echo": {"backend": "echo", "options": {"delay_ms": 200}}}})
    batch = await one.begin([line(f"{number}", chat("a b c d")) for number in range(40)])
    await asyncio.sleep(0.2)
    # Its loop is gone with its process: nothing is renewed, and nothing given back.
    tasks = [one.door._batches._worker._looking, *one.door._batches._worker._jobs.values()]
    for name in ("renew", "give_back"):
        monkeypatch.setattr(one.door._batches._worker._desk, name, _gone)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    two = client()
    two.door.start()
    batch = await two.end(batch)
    assert batch["request_counts"] == {"total": 40, "completed": 40, "failed": 0}


async def _gone(*_: Any, **__: Any) -> None:
    return None


async def test_a_model_that_is_not_there_yet_is_waited_for(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_FIRST_PAUSE_S", 0.05)
    one = client(down=["echo"])
    batch = await one.begin([line("a", chat("hi"))])
    await asyncio.sleep(0.3)
    assert (await one.get(f"/v1/batches/{batch['id']}"))["status"] == "in_progress"
    await one.door.close()
    two = client()
    two.door.start()
    assert (await two.end(batch))["request_counts"] == {"total": 1, "completed": 1, "failed": 0}


async def test_what_is_late_expires(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.batches.desk.WINDOW_S", 1)
    one = client(down=["echo"])
    batch = await one.end(await one.begin([line("a", chat("hi"))]))
    assert batch["status"] == "expired"
    assert (await one.rows(batch["error_file_id"]))["a"]["error"]["code"] == "batch_expired"


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"nonsense", "invalid_json_line", None),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": 5}', "invalid_json_line", None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None),
        (json.dumps(line("a", {}, "/v1/completions")).encode(), "mismatched_url", "url"),
        (json.dumps(line("a", {}, method="GET")).encode(), "invalid_method", "method"),
        (json.dumps(line("", {})).encode(), "invalid_custom_id", "custom_id"),
        (json.dumps(line("a", {"stream": True})).encode(), "invalid_request", "body.stream"),
    ],
)
async def test_a_wrong_file_fails_whole_and_says_where(client: Any, content: bytes, code: str, param: str) -> None:
    one = client()
    batch = await one.begin(json.dumps(line("fine", chat("hi"))).encode() + b"\n\n" + content)
    (error,) = batch["errors"]["data"]
    assert (batch["status"], error["code"], error["line"], error["param"]) == ("failed", code, 3, param)
    assert batch["output_file_id"] is None


async def test_an_id_that_stands_twice_is_an_error(client: Any) -> None:
    batch = await client().begin([line("a", chat("hi")), line("a", chat("ho"))])
    assert [(error["code"], error["line"]) for error in batch["errors"]["data"]] == [("duplicate_custom_id", 2)]


async def test_files_are_listed_read_and_deleted(client: Any) -> None:
    one = client()
    ids = [(await one.upload(f'{{"n": {number}}}'.encode())).json()["id"] for number in range(3)]
    page = await one.get("/v1/files?limit=2&order=asc")
    assert ([row["id"] for row in page["data"]], page["has_more"]) == (ids[:2], True)
    rest = await one.get(f"/v1/files?after={ids[1]}&order=asc&purpose=batch")
    assert ([row["id"] for row in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert [row["id"] for row in (await one.get("/v1/files"))["data"]] == ids[::-1]
    row = await one.get(f"/v1/files/{ids[0]}")
    assert (row["bytes"], row["filename"], row["purpose"]) == (8, "in.jsonl", "batch")
    assert (await one.http.get(f"/v1/files/{ids[0]}/content")).content == b'{"n": 0}'
    assert (await one.http.delete(f"/v1/files/{ids[0]}")).json() == {"id": ids[0], "object": "file", "deleted": True}
    assert (await one.http.get(f"/v1/files/{ids[0]}")).status_code == 404


async def test_nobody_sees_what_another_key_handed_in(client: Any, policy: DoorPolicy) -> None:
    keyed = DoorPolicy(tuple(hash_keys(["k-one", "k-two"])), store=policy.store)
    one, two = client(key="k-one", of=keyed), client(key="k-two", of=keyed)
    batch = await one.end(await one.begin([line("a", chat("hi"))]))
    for path in (f"/v1/batches/{batch['id']}", f"/v1/files/{batch['output_file_id']}/content"):
        assert (await one.http.get(path)).status_code == 200
        assert (await two.http.get(path)).status_code == 404
    for path in ("/v1/batches", "/v1/files"):
        assert (await two.get(path))["data"] == []
        assert len((await one.get(path))["data"]) > 0
    assert (await two.http.post(f"/v1/batches/{batch['id']}/cancel")).status_code == 404
    assert (await two.http.delete(f"/v1/files/{batch['input_file_id']}")).status_code == 404
    stolen = {"input_file_id": batch["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    assert (await two.http.post("/v1/batches", json=stolen)).status_code == 404
    assert (await two.http.get(f"/v1/files?after={batch['input_file_id']}")).status_code == 400


ASKED = {"input_file_id": "file-none", "endpoint": CHAT, "completion_window": "24h"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/v1/batches", ASKED, 404, "input_file_id"),
        ("POST", "/v1/batches", {**ASKED, "input_file_id": None}, 400, "input_file_id"),
        ("POST", "/v1/batches", {**ASKED, "endpoint": "/v1/images"}, 400, "endpoint"),
        ("POST", "/v1/batches", {**ASKED, "completion_window": "1h"}, 400, "completion_window"),
        ("POST", "/v1/batches", {**ASKED, "metadata": {"a": 1}}, 400, "metadata"),
        ("POST", "/v1/batches", {**ASKED, "metadata": {"a": "b" * 513}}, 400, "metadata"),
        ("POST", "/v1/batches", {**ASKED, "output_expires_after": {"seconds": 1}}, 400, "output_expires_after"),
        ("GET", "/v1/batches?limit=0", None, 400, "limit"),
        ("GET", "/v1/batches?limit=x", None, 400, "limit"),
        ("GET", "/v1/batches?after=x", None, 400, "after"),
        ("GET", "/v1/batches/batch_x", None, 404, "batch_id"),
        ("DELETE", "/v1/batches/batch_x", None, 405, None),
        ("POST", "/v1/batches/batch_x/cancel", None, 404, "batch_id"),
        ("GET", "/v1/batches/batch_x/more", None, 404, None),
        ("GET", "/v1/files/file-x", None, 404, "file_id"),
        ("GET", "/v1/files/file-x/content", None, 404, "file_id"),
        ("DELETE", "/v1/files/file-x", None, 404, "file_id"),
        ("PUT", "/v1/files", None, 405, None),
        ("POST", "/v1/files", {"purpose": "batch"}, 400, None),
    ],
)
async def test_what_is_wrong_is_told(
    client: Any, method: str, path: str, body: dict[str, Any] | None, status: int, param: str | None
) -> None:
    answer = await client().http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("files", "data", "param"),
    [
        ({"file": ("a", b"x")}, {}, "purpose"),
        ({"file": ("a", b"x")}, {"purpose": "fine-tune"}, "purpose"),
        ({"file": ("a", b" \n")}, {"purpose": "batch"}, "file"),
        ({"other": ("a", b"x")}, {"purpose": "batch"}, "other"),
        ({"a": ("a", b"x"), "file": ("a", b"x")}, {"purpose": "batch"}, None),
        ({"file": ("a", b"x")}, {"purpose": "batch", "expires_after[seconds]": "60"}, "expires_after[seconds]"),
    ],
)
async def test_wrong_uploads(client: Any, files: Any, data: dict[str, str], param: str | None) -> None:
    answer = await client().http.post("/v1/files", files=files, data=data)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("content", [b"", b"--x", b"--x\r\n\r\nhi", b"\xff" * 100])
@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary=\xff"]
)
async def test_broken_forms(client: Any, content: bytes, kind: str) -> None:
    headers = [(b"content-type", kind.encode("latin-1"))]
    answer = await client().http.post("/v1/files", content=content, headers=headers)
    assert answer.status_code == 400


async def test_nothing_is_opened_where_nothing_was_kept(doors: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "gateway.db"
    gateway = doors(policy=DoorPolicy(store=f"sqlite:///{path}"))
    gateway.door.start()
    assert (await gateway.wide.post(CHAT, chat("hi"))).status == 200
    await gateway.door.close()
    assert not path.parent.exists()
