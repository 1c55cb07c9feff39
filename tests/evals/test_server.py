"""The app `evals` behind its door, in front of echo models behind theirs: suites, cases, runs, cancelling, restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gateway.apps import AppContext
from gateway.errors import ConfigError
from gateway.ingress.auth import AppDoor, hash_keys
from gateway.types import ASGIApp, Receive, Scope, Send
from gateway_evals import register_apps
from gateway_evals.server.options import read
from tests.playground.house import House, on_a_port

pytestmark = pytest.mark.slow

KEY = "k-for-these-tests-only"


class Served:
    """A house and the app beside it, as Serve mounts it."""

    def __init__(self, base_url: str, *, keys: tuple[str, ...] = (), options: Mapping[str, Any] | None = None) -> None:
        self._house = House(base_url, keys)
        offers: list[Any] = []
        register_apps(offers.append)
        self._app = AppDoor(offers[0].build(AppContext(base_url, "/evals", options or {})), protected=True)
        self._app.admit(hash_keys(keys))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        inside: ASGIApp = self._house
        if scope["type"] == "lifespan":
            inside = self._app
        elif scope["path"].startswith("/evals"):
            inside, scope = self._app, {**scope, "root_path": "/evals"}
        await inside(scope, receive, send)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "model-gateway" / "evals"


@contextmanager
def app(**settings: Any) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {settings['keys'][0]}"} if "keys" in settings else {}
    with (
        on_a_port(lambda url: Served(url, **settings)) as (url, _),
        httpx.Client(base_url=f"{url}/evals", headers=headers, timeout=30, trust_env=False) as client,
    ):
        yield client


def add_cases(client: httpx.Client, count: int, suite: str = "mine") -> None:
    for number in range(count):
        asked = {"question": f"say {number}", "answers": [f"say {number}"]}
        assert client.post(f"/suites/{suite}/samples", json=asked).status_code == 201


def until(client: httpx.Client, run_id: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        view = client.get(f"/runs/{run_id}").json()
        if reached(view):
            return view
        assert view["state"] == "running", view
        time.sleep(0.1)
    raise AssertionError(view)


def running() -> list[psutil.Process]:
    """Runs of an app in this process. It may have other children, which other tests' libraries keep to the end."""
    found: list[psutil.Process] = []
    for each in psutil.Process().children():
        with suppress(psutil.Error):  # it may end while it is looked at
            if "gateway_evals.server.child" in each.cmdline():
                found.append(each)
    return found


def over(view: dict[str, Any]) -> bool:
    return view["state"] != "running"


@pytest.mark.slow
def test_a_run_from_its_start_to_its_figures_with_the_callers_key(state: Path) -> None:
    with app(keys=(KEY,)) as client:
        assert httpx.get(f"{client.base_url}runs", trust_env=False).status_code == 401
        add_cases(client, 3)
        started = client.post("/runs", json={"suite": "mine", "models": ["quick"], "limit": 2})
        assert started.status_code == 202, started.text
        assert started.json()["state"] == "running"
        run_id = started.json()["id"]
        (child,) = running()
        assert KEY not in " ".join(child.cmdline())
        done = until(client, run_id, over)
        assert (done["state"], done["done"], done["total"], done["failed"]) == ("done", 2, 2, 0), done
        assert done["results"]["quick"]["results"]["mine"]["exact_match,none"] == 1.0
        assert done["progress"] == {"quick": {"done": 2, "failed": 0, "total": 2}}
        assert client.get("/runs").json()["data"][0]["id"] == run_id
        report = client.get(f"/runs/{run_id}/report")
        assert report.headers["content-type"] == "text/html; charset=utf-8"
        assert "sandbox" in report.headers["content-security-policy"]
        assert report.text.startswith("<!doctype html>")
        assert "exact_match" in report.text
        assert client.delete(f"/runs/{run_id}").status_code == 409
        for file in state.rglob("*"):
            assert not file.is_file() or KEY.encode() not in file.read_bytes(), f"{file} holds the key"
    with app(keys=(KEY,)) as again:
        assert until(again, run_id, over) == done, "a run outlives the app"


@pytest.mark.slow
def test_runs_are_bounded_cancelled_and_end_with_the_app(state: Path) -> None:
    with app(options={"max_runs": 1, "concurrency": 1}) as client:
        add_cases(client, 60)
        asked = {"suite": "mine", "models": ["slow"]}
        first = client.post("/runs", json=asked).json()["id"]
        refused = client.post("/runs", json=asked)
        assert refused.status_code == 429
        assert first in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "10"
        part = until(client, first, lambda view: view["done"] > 1)
        assert part["total"] == 60
        early = client.get(f"/runs/{first}/report")
        assert early.status_code == 409
        assert "it is running" in early.json()["error"]["message"]
        assert part["eta_s"] > 0
        cancelled = client.delete(f"/runs/{first}").json()
        assert cancelled["state"] == "cancelled"
        assert 0 < cancelled["done"] < 60
        assert client.delete(f"/runs/{first}").json()["state"] == "cancelled", "twice is as good as once"
        second = client.post("/runs", json=asked).json()["id"]
        until(client, second, lambda view: view["done"] > 0)
        children = running()
        assert len(children) == 1
    _, alive = psutil.wait_procs(children, timeout=1)
    assert alive == [], "a run ends with its app"
    with app() as client:
        assert [run["state"] for run in client.get("/runs").json()["data"]] == ["interrupted", "cancelled"]
        assert list((state / "runs" / second / "results").rglob("journal_*")), "what was finished is kept"


def test_a_run_ends_when_its_app_is_killed(state: Path, tmp_path: Path) -> None:
    # Its parent is a process that can be killed, with the same pipe between them.
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import threading, time; from gateway_evals.server import child; child.GRACE_S = 0.5; "
        "threading.Thread(target=child._end_with_parent, daemon=True).start(); print(1, flush=True); time.sleep(60)'], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_another_apps_run_is_seen_and_left_alone(state: Path) -> None:
    with app(options={"concurrency": 1}) as ours, app() as theirs:
        add_cases(ours, 40)
        run_id = ours.post("/runs", json={"suite": "mine", "models": ["slow"]}).json()["id"]
        assert theirs.get(f"/runs/{run_id}").json()["state"] == "running"
        refused = theirs.delete(f"/runs/{run_id}")
        assert refused.status_code == 409
        assert "another gateway" in refused.json()["error"]["message"]


@pytest.mark.slow
def test_a_run_that_fails_says_why(state: Path) -> None:
    with app() as client:
        add_cases(client, 2)
        run_id = client.post("/runs", json={"suite": "mine", "models": ["down"]}).json()["id"]
        (child,) = running()
        child.send_signal(signal.SIGKILL)
        failed = until(client, run_id, over)
        assert failed["state"] == "failed"
        broken = state / "suites" / "mine.jsonl"
        broken.write_text('{"question": "where is the end?')
        run_id = client.post("/runs", json={"suite": "mine", "models": ["quick"]}).json()["id"]
        failed = until(client, run_id, over)
        assert failed["state"] == "failed"
        assert "mine.jsonl:1 is not JSON" in failed["errors"][0]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"suite": "nobody's", "models": ["quick"]}, 400, "suite"),
        ({"suite": "nobodys", "models": ["quick"]}, 404, "there are: "),
        ({"suite": "smoke", "models": ["gpt-9"]}, 400, "no model 'gpt-9'"),
        ({"suite": "smoke", "models": []}, 400, "models"),
        ({"suite": "smoke", "models": ["quick"], "limit": 0}, 400, "limit"),
        ({"suite": "smoke", "models": ["quick"], "limit": 1.5}, 400, "a number of rows"),
        ({"suite": "smoke", "models": ["quick"], "modle": 1}, 400, "modle"),
        ({"suite": "../../etc/passwd", "models": ["quick"]}, 400, "suite"),
        ([], 400, ""),
    ],
)
def test_what_cannot_be_run_is_said_at_once(state: Path, body: Any, status: int, words: str) -> None:
    with app() as client:
        refused = client.post("/runs", json=body)
        assert refused.status_code == status
        assert words in refused.json()["error"]["message"]
        assert client.get("/runs").json()["data"] == []


def test_cases_go_into_suites_of_ones_own_and_never_into_the_package(state: Path) -> None:
    case = {"question": "<b>What</b> is 12 + 7?", "answers": ["19", "nineteen"]}
    with app() as client:
        added = client.post("/suites/sums/samples", json=case)
        assert added.status_code == 201
        assert added.json() == {"suite": "sums", "samples": 1, "path": str(state / "suites" / "sums.yaml")}
        again = client.post("/suites/sums/samples", json=case)
        assert again.status_code == 409
        shipped = client.post("/suites/smoke/samples", json=case)
        assert shipped.status_code == 409
        assert "ships with the package" in shipped.json()["error"]["message"]
        for bad in ({"question": " ", "answers": ["a"]}, {"question": "a", "answers": []}, {"question": "a"}):
            assert client.post("/suites/sums/samples", json=bad).status_code == 400
        assert client.post("/suites/..%2Fsums/samples", json=case).status_code in (400, 404)
        assert client.post("/suites/.hidden/samples", json=case).status_code == 400
        assert client.post("/suites/sums/samples", content=b" " * 2_000_000).status_code == 413
        rows = {row["name"]: row for row in client.get("/suites").json()["data"]}
        assert rows["sums"]["own"]
        assert not rows["smoke"]["own"]
        assert rows["smoke"]["licence"]
        changed = state / "suites" / "sums.yaml"
        changed.write_text(changed.read_text().replace("sums.jsonl", "other.jsonl"))
        refused = client.post("/suites/sums/samples", json={"question": "new", "answers": ["a"]})
        assert refused.status_code == 409
        assert "changed by hand" in refused.json()["error"]["message"]
    kept = [json.loads(line) for line in (state / "suites" / "sums.jsonl").read_text().splitlines()]
    assert kept == [case]
    assert [path.name for path in (state / "suites").iterdir() if path.is_dir()] == [], "nothing unfinished is left"


def test_pages_that_are_not_there_and_the_document_of_those_that_are(state: Path) -> None:
    with app() as client:
        for path in ("/nothing", "/runs/nothing", "/runs/..%2F..", "/runs/20260101-000000-ffffff"):
            missing = client.get(path)
            assert missing.status_code == 404, path
            assert missing.json()["error"]["code"] == "not_found"
        assert client.put("/runs").status_code == 405
        assert client.get("/runs", headers={"host": "evil.example"}).status_code == 403
        paths = client.get("/openapi.json").json()["paths"]
        assert {"/suites", "/runs", "/runs/{run_id}", "/suites/{name}/samples"} <= set(paths)


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_run"):
        read({"max_run": 2})
    assert os.environ.get("GATEWAY_API_KEY") is None
