"""`/status`: what it counts, what it remembers of failures, and what it must not."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from gateway.errors import Unavailable
from gateway.ingress.auth import hash_keys
from gateway.ingress.doors import DoorPolicy
from gateway.ingress.status import Application, Failures, FleetReport, ReplicaReport, Totals, page
from gateway.testing import AppClient
from gateway.types import ModelCard, RequestRecord

CHAT = {"messages": [{"role": "user", "content": "a-private-prompt"}]}
FAILING = {
    "models": {
        "echo": {"backend": "echo"},
        "breaks": {"backend": "echo", "options": {"fail_after": 2, "delay_ms": 1}},
        "away": {"backend": "echo"},
        "ill": {"backend": "echo", "options": {"fail": "always"}},
    },
    "routes": {"chat": {"targets": ["away", "echo"]}},
}


async def status(gateway: Any) -> dict[str, Any]:
    answer = await gateway.wide.get("/status")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


async def test_it_says_what_is_there_and_counts_both_doors(doors: Any) -> None:
    gateway = doors(FAILING, down=["away"])
    await gateway.wide.post("/v1/chat/completions", {"model": "echo", "stream": True, **CHAT})
    await gateway.lanes["echo"].post("/m/echo/v1/chat/completions", CHAT)
    found = await status(gateway)
    assert (found["object"], found["status"]) == ("gateway.status", "degraded")
    assert found["uptime_s"] > 0
    # This request is one in flight.
    assert found["gateway"]["in_flight"] == 1
    models = {row["id"]: row for row in found["models"]}
    assert list(models) == ["echo", "breaks", "away", "ill"]
    assert [row["state"] for row in models.values()] == ["up", "up", "down", "up"]
    echo = models["echo"]
    assert echo["backend"] == "echo"
    assert (echo["totals"]["requests"], echo["totals"]["streams"], echo["totals"]["failed"]) == (2, 1, 0)
    assert echo["totals"]["completion_tokens"] > 0
    assert [(one["id"], one["limit"]) for one in echo["replicas"]] == [("echo-r1", 64)]
    assert echo["replicas"][0]["memory_bytes"] > 1_000_000
    assert models["away"]["replicas"] == []
    assert found["routes"] == [{"id": "chat", "targets": ["away", "echo"], "up": True}]
    assert found["errors"] == []
    assert (await gateway.wide.post("/status", {})).status == 405


async def test_failures_are_remembered_with_their_code_and_without_what_was_said(doors: Any) -> None:
    gateway = doors(FAILING, down=["away"])
    await gateway.wide.post("/v1/chat/completions", {"model": "away", **CHAT})
    await gateway.wide.post("/v1/chat/completions", {"model": "ill", **CHAT})
    await gateway.wide.post("/v1/chat/completions", {"model": "breaks", "stream": True, **CHAT})
    await gateway.wide.post("/v1/chat/completions", {"model": "a-private-name", **CHAT})
    await gateway.wide.post("/v1/chat/completions", {"model": "echo", "max_tokens": 10**6, **CHAT})
    await gateway.wide.post("/v1/chat/completions", b'{"messages": "a-private-prompt')
    text = (await gateway.wide.get("/status")).body.decode()
    assert "private" not in text
    errors = list(reversed(json.loads(text)["errors"]))
    assert [(error["status"], error["outcome"], error["code"], error.get("target")) for error in errors] == [
        (503, "server_error", "unavailable", "away"),
        (503, "server_error", "unavailable", "ill"),
        (200, "server_error", "unavailable", "breaks"),
        (404, "client_error", "model_not_found", None),
        (400, "client_error", "context_length_exceeded", "echo"),
        (400, "client_error", "invalid_request_error", None),
    ]
    assert errors[0]["message"] == "away is not running"
    assert all(error["replica"] == "r1" and error["path"] == "/v1/chat/completions" for error in errors)
    models = {row["id"]: row for row in json.loads(text)["models"]}
    assert models["breaks"]["totals"]["failed"] == 1
    await gateway.door.close()
    assert [record.error_code for record in gateway.records][:3] == ["unavailable"] * 3


async def test_a_key_opens_it_where_keys_are_on_and_stands_nowhere_in_it(doors: Any) -> None:
    gateway = doors({}, policy=DoorPolicy(key_hashes=tuple(hash_keys(["k-secret"]))))
    assert (await gateway.wide.get("/status")).status == 401
    assert (await AppClient(gateway.door, [("authorization", "Bearer k-wrong")]).get("/status")).status == 401
    answer = await AppClient(gateway.door, [("authorization", "Bearer k-secret")]).get("/status")
    assert answer.status == 200
    assert b"k-" not in answer.body
    assert [error["code"] for error in answer.json()["errors"]] == ["invalid_api_key"] * 2


async def test_replicas_are_asked_once_for_all_who_ask_at_a_time(doors: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = doors()
    asked = 0
    report = gateway.fleet.report

    async def counted() -> FleetReport:
        nonlocal asked
        asked += 1
        return await report()

    monkeypatch.setattr(gateway.fleet, "report", counted)
    for _ in range(5):
        await status(gateway)
    assert asked == 1


def record(**fields: Any) -> RequestRecord:
    return RequestRecord(
        **{
            "request_id": "r", "door": "wide", "path": "/v1/completions", "model": "m", "target": "m", "status": 500,
            "outcome": "server_error", "stream": False, "started_at": 1.0, "duration_s": 0.1, "first_byte_s": None,
            **fields,
        }
    )  # fmt: skip


def test_many_strangers_push_no_crash_out_of_sight() -> None:
    failures = Failures()
    failures.keep(record(request_id="crash"))
    for number in range(500):
        failures.keep(record(request_id=f"stranger-{number}", outcome="rejected", status=401))
    failures.keep(record(outcome="ok", status=200))
    failures.keep(record(outcome="disconnected"))
    kept = [failure.request_id for failure in failures]
    assert "crash" in kept
    assert len(kept) == 21
    failures.keep(record(path="/x" * 5000, request_id="y" * 5000))
    assert all(len(failure.path) <= 120 and len(failure.request_id) <= 120 for failure in failures)


def test_replicas_of_one_model_are_one_row_and_the_cluster_says_what_is_starting() -> None:
    def replica(name: str, model: str, **fields: Any) -> ReplicaReport:
        return ReplicaReport(name, model, time.time() - 5, fields.pop("in_flight", 1), 64, **fields)

    failures = Failures()
    failures.keep(record())
    found = FleetReport(
        [
            replica("door-1", "", totals={"m": Totals(requests=2, first_token_s=0.5, streams=1)}),
            replica("m-1", "m", totals={"m": Totals(requests=3)}, generating=2, failures=list(failures)),
            replica("m-2", "m", in_flight=4, generating=1),
        ],
        models={
            "m": Application("running", {"running": 2, "starting": 1}),
            "new": Application("deploying", {"starting": 1}),
            "bad": Application("deploy_failed", {}, "no weights"),
        },
        apps={"playground": Application("running", {"running": 1})},
    )
    made = page({"m": ModelCard("m", "echo"), "new": None, "bad": None}, found, {})
    rows = {row["id"]: row for row in made["models"]}
    assert (rows["m"]["in_flight"], rows["m"]["generating"]) == (5, 3)
    assert rows["m"]["totals"] == Totals(requests=5, first_token_s=0.5, streams=1)
    assert rows["m"]["replica_states"] == {"running": 2, "starting": 1}
    assert (rows["new"]["state"], rows["bad"]["state"]) == ("deploying", "deploy_failed")
    assert rows["bad"]["message"] == "no weights"
    assert [app["id"] for app in made["apps"]] == ["playground"]
    assert [error.replica for error in made["errors"]] == ["m-1"]


def test_errors_that_speak_of_the_request_are_kept_as_codes_alone() -> None:
    from gateway.errors import InvalidRequest
    from gateway.ingress.request import GatewayRequest

    def request() -> GatewayRequest:
        return GatewayRequest.arrived({"method": "POST", "headers": []}, "wide", "/v1/completions")

    quoting, own = request(), request()
    quoting.failed(InvalidRequest("`prompt` is not understood: a secret"))
    own.failed(Unavailable("m is not up"))
    assert (quoting.record().error_code, quoting.record().error_message) == ("invalid_request_error", "")
    assert (own.record().error_code, own.record().error_message) == ("unavailable", "m is not up")
    for body, code in [
        (b'{"error":{"message":"secret","type":"BadRequestError","code":400}}', "BadRequestError"),
        (b'data: {"error":{"message":"secret","type":"t","code":"c"}}\n\ndata: [DONE]\n\n', "c"),
        (b'{"type":"error","error":{"type":"api_error","message":"secret"}}', "api_error"),
        (b"<html>secret</html>", ""),
        (b'{"detail":"secret"}', ""),
        (b"\xff{", ""),
    ]:
        seen = request()
        seen.failed_with(body)
        assert (seen.record().error_code, seen.record().error_message) == (code, "")
