"""Who may come in: keys as hashes, loopback names without them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.ingress.auth import AppDoor, hash_key, hash_keys, is_loopback, require_loopback_or_keys
from gateway.ingress.doors import DoorPolicy
from gateway.testing import AppClient
from gateway.types import Receive, Scope, Send

KEY = "k-test"
LOCKED = DoorPolicy(key_hashes=(hash_key(KEY),))


def with_headers(client: AppClient, *headers: tuple[str, str]) -> AppClient:
    return AppClient(client.app, headers)


@pytest.mark.parametrize(
    "headers", [("authorization", f"Bearer {KEY}"), ("authorization", f"bearer {KEY}"), ("x-api-key", KEY)]
)
async def test_a_known_key_comes_in_through_both_doors(doors: Any, headers: tuple[str, str]) -> None:
    gateway = doors(policy=LOCKED)
    wide = await with_headers(gateway.wide, headers).post("/v1/completions", {"prompt": "a"})
    lane = await with_headers(gateway.lanes["echo"], headers).post("/m/echo/v1/completions", {"prompt": "a"})
    assert wide.status == lane.status == 200
    await gateway.door.close()
    assert gateway.records[0].key_id == hash_key(KEY)[:8]
    assert KEY not in repr(gateway.records)


@pytest.mark.parametrize(
    "headers",
    [(), (("authorization", "Bearer wrong"),), (("authorization", f"Basic {KEY}"),), (("authorization", "Bearer "),)],
)
async def test_everybody_else_is_401(doors: Any, headers: tuple[tuple[str, str], ...]) -> None:
    gateway = doors(policy=LOCKED)
    for client, path in ((gateway.wide, "/v1/completions"), (gateway.lanes["echo"], "/m/echo/v1/completions")):
        answer = await with_headers(client, *headers).post(path, {"prompt": "a"})
        assert answer.status == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    await gateway.door.close()
    assert [record.outcome for record in gateway.records] == ["rejected", "rejected"]


async def test_probes_need_no_key_and_metrics_do(doors: Any) -> None:
    gateway = doors(policy=LOCKED)
    assert (await gateway.wide.get("/health")).status == 200
    assert (await gateway.wide.get("/metrics")).status == 401
    assert (await gateway.wide.get("/v1/models")).status == 401


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("host", "localhost:8000", 200),
        ("host", "[::1]:8000", 200),
        ("host", "127.0.0.1", 200),
        ("host", "evil.example", 403),
        ("host", "127.0.0.1.evil.example:8000", 403),
        ("origin", "http://localhost:3000", 200),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
    ],
)
async def test_without_keys_only_loopback_names_are_answered(doors: Any, name: str, value: str, status: int) -> None:
    answer = await with_headers(doors().wide, (name, value)).get("/v1/models")
    assert answer.status == status


def test_hosts_beyond_this_machine_need_a_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        require_loopback_or_keys(host, [])
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        require_loopback_or_keys(host, ["x"])
        with pytest.raises(ConfigError, match="GATEWAY_API_KEYS"):
            require_loopback_or_keys(host, [])


def test_keys_are_kept_as_hashes() -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    assert hash_keys(["abc", " abc ", "", f"sha256:{digest}"]) == [digest]
    assert not is_loopback("localhost.evil.example")


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


async def test_an_app_behind_keys_asks_for_one_only_where_it_is_protected() -> None:
    for protected, status in ((True, 401), (False, 200)):
        door = AppDoor(page, protected=protected)
        door.admit([hash_key(KEY)])
        assert (await AppClient(door).get("/evals/runs")).status == status
        for header in (("authorization", f"Bearer {KEY}"), ("x-api-key", KEY)):
            # With keys a name need not be loopback.
            assert (await AppClient(door, (header, ("host", "gateway.example"))).get("/evals/runs")).status == 200
    refused = await AppClient(AppDoor(page, protected=True), (("x-api-key", "made up"),)).get("/evals/runs")
    assert refused.status == 200, "without keys everybody on this machine may come"


async def test_an_app_without_keys_answers_to_loopback_names_alone() -> None:
    door = AppDoor(page, protected=True)
    assert (await AppClient(door, (("host", "evil.example"),)).get("/evals")).json()["error"]["code"] == "forbidden"
    assert (await AppClient(door, (("origin", "https://evil.example"),)).get("/evals")).status == 403
    door.admit([hash_key(KEY)])
    door.admit([])
    assert (await AppClient(door).get("/evals")).status == 200, "keys come and go in place"
