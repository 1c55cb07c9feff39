"""The evaluations' app in a real gateway: a run started over HTTP asks the gateway as any client does."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.running import Gateway


@pytest.mark.slow
def test_a_run_over_http(gateway: Gateway) -> None:
    with httpx.Client(base_url=f"{gateway.url}/evals", timeout=30, trust_env=False) as client:
        assert "smoke" in [row["name"] for row in client.get("/suites").json()["data"]]
        started = client.post("/runs", json={"suite": "smoke", "models": ["echo"], "limit": 1})
        assert started.status_code == 202, started.text
        run_id = started.json()["id"]
        deadline = time.monotonic() + 120
        while (view := client.get(f"/runs/{run_id}").json())["state"] == "running":
            assert time.monotonic() < deadline, view
            time.sleep(0.2)
        assert (view["state"], view["done"]) == ("done", 3), view
        assert view["results"]["echo"]["results"]["smoke_choice"]
        assert client.get("/runs").json()["data"][0]["id"] == run_id
