"""`gateway serve`, `apply` and their ends: all that is started is ended, changes drop nothing, errors are one line."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from gateway.serve.node import COMPANIONS
from tests.adapters.making import write_adapter
from tests.running import Gateway, free_port, run, serving

pytestmark = pytest.mark.slow


KEY = "k-lifecycle"
TEXT = "hello there " * 4
"""Half a second of the frail model's, a tenth of the other's."""
ASKED = {"model": "frail", "prompt": "one two three four five six seven eight"}
BATCH = 200
"""Requests in a batch: more than are answered before the first life ends."""


def write(path: Path, port: int, **config: Any) -> Path:
    path.write_text(yaml.safe_dump({"server": {"port": port}, **config}, sort_keys=False))
    return path


def test_two_lives_of_a_gateway(tmp_path: Path, smollm2_folder: Path) -> None:
    """A replica is killed in the first; the second has what the first one kept, and is changed while it answers."""
    port = free_port()
    server = {"port": port, "store": f"sqlite:///{tmp_path / 'gateway.db'}"}
    frail = {"backend": "echo", "options": {"delay_ms": 10}, "source": str(smollm2_folder), "adapters": {}}
    echo = {"backend": "echo", "options": {"delay_ms": 2}}
    routes = {"chat": {"targets": ["frail", "echo"]}}
    config = write(tmp_path / "a.yaml", port, server=server, models={"frail": frail, "echo": echo}, routes=routes)
    env = {"GATEWAY_API_KEYS": KEY, "GATEWAY_CACHE": str(tmp_path / "cache")}
    with serving(config, port, env=env) as gateway, asking(gateway) as http:
        asks_for_keys_and_tells_none(gateway)
        leads_to_itself_alone(gateway)
        runs_nothing_that_serves_nobody(gateway)
        adapter = {"lora_name": "support", "lora_path": str(write_adapter(tmp_path / "a", layers=1, says="A"))}
        assert http.post("/v1/load_lora_adapter", json=adapter).status_code == 200
        a_killed_replica_comes_back(gateway)
        assert adapter_said(http) == "A: hello"
        refuses_its_port_to_another(config, port, env)
        batch = begin_batch(http)
        time.sleep(1.5)
        assert 0 < http.get(f"/v1/batches/{batch['id']}").json()["request_counts"]["completed"] < BATCH
        assert gateway.stop(signal.SIGINT) < 15
    with serving(config, port, env=env) as gateway, asking(gateway) as http:
        # Loaded as the replica starts, before anybody asks for it.
        wait_for(lambda: http.get("/v1/adapters").json()["data"][0]["resident"] != [], 30)
        assert adapter_said(http) == "A: hello"
        goes_on_with(batch, http)
        faster = {**frail, "options": {"delay_ms": 1}}
        routes = {"chat": {"targets": ["added", "frail"]}, "new": {"targets": ["added"]}}
        models = {"frail": faster, "added": {"backend": "echo"}}
        changed = write(tmp_path / "b.yaml", port, server=server, models=models, routes=routes)
        an_apply_drops_nothing(changed, gateway, env)
        rows = [row for row in http.get("/v1/models").json()["data"] if row.get("parent") is None]
        assert [row["id"] for row in rows] == ["frail", "added", "chat", "new"]
        answer = http.post("/v1/completions", json={"model": "new", "prompt": "x"})
        assert answer.headers["x-gateway-target"] == "added"
        assert http.post("/m/echo/v1/completions", json={"prompt": "x"}).status_code == 404
        assert adapter_said(http) == "A: hello"
        status = run("status", "--port", str(port), "--json", env=env)
        assert json.loads(status.stdout)["models"] == {"frail": "up", "added": "up"}
        ends_by_sigterm_without_a_trace(gateway)


def test_a_model_that_cannot_start_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    port = free_port()
    config = write(tmp_path / "a.yaml", port, models={"echo": {"backend": "echo", "options": {"fail": "start"}}})
    failed = run("serve", str(config), "--port", str(port), env={"GATEWAY_CACHE": str(tmp_path / "cache")})
    assert failed.returncode == 1
    assert "error: model-echo could not start: " in failed.stderr
    assert "told not to start" in failed.stderr
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    assert not list((tmp_path / "cache" / "run").glob("*.json"))


def asking(gateway: Gateway) -> httpx.Client:
    """Somebody with a key."""
    return httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)


def asks_for_keys_and_tells_none(gateway: Gateway) -> None:
    assert KEY not in gateway.output
    assert httpx.get(f"{gateway.url}/v1/models").status_code == 401
    with asking(gateway) as http:
        assert http.get("/v1/models").status_code == 200
    for process in gateway.descendants():
        with suppress(psutil.NoSuchProcess):
            assert KEY not in str(process.environ()), process.cmdline()


def leads_to_itself_alone(gateway: Gateway) -> None:
    """Another gateway on this machine may ask for other keys, or none."""
    own: set[int] = set()
    for process in gateway.descendants():
        with suppress(psutil.NoSuchProcess):
            connections = process.net_connections("tcp")
            own |= {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    (proxy,) = (command for command in gateway.commands().values() if command and Path(command[0]).name == "haproxy")
    servers = re.findall(r"^\s+server \S+ [\d.]+:(\d+)", Path(proxy[proxy.index("-f") + 1]).read_text(), flags=re.M)
    assert servers
    assert {int(port) for port in servers} <= own
    assert 8500 not in own


def runs_nothing_that_serves_nobody(gateway: Gateway) -> None:
    programs = {Path(word).name for command in gateway.commands().values() for word in command[:4]}
    assert {"raylet", "gcs_server", "haproxy"} <= programs
    assert not programs & set(COMPANIONS.values())


@contextmanager
def load(gateway: Gateway, *asked: tuple[str, dict[str, Any]]) -> Iterator[list[httpx.Response]]:
    """Clients that each ask for one of these again and again, two for each; what they were answered so far."""
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def ask(path: str, body: Mapping[str, Any]) -> None:
        with asking(gateway) as http:
            while not stop.is_set():
                answers.append(http.post(path, json={"messages": [{"role": "user", "content": TEXT}], **body}))

    workers = [threading.Thread(target=ask, args=each) for each in asked for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        yield answers
    finally:
        stop.set()
        for worker in workers:
            worker.join(60)


def a_killed_replica_comes_back(gateway: Gateway) -> None:
    """The other target answers meanwhile, not only what was under way, and the first does again once it is back. Whole
    answers of the fast lane, which has no other target, wait for that."""
    wide, lane = "/v1/chat/completions", "/m/frail/v1/chat/completions"
    asked = (wide, {"model": "chat"}), (wide, {"model": "chat", "stream": True}), (lane, {"model": "frail"})
    with load(gateway, *asked) as answers:
        wait_for(lambda: any(answer.headers.get("x-gateway-target") == "frail" for answer in answers))
        (replica,) = [p for p, command in gateway.commands().items() if "ServeReplica:model-frail" in " ".join(command)]
        replica.kill()
        killed = len(answers)
        wait_for(lambda: sum(answer.headers.get("x-gateway-target") == "echo" for answer in answers[killed:]) >= 12)
        wait_for(lambda: all(answer.headers.get("x-gateway-target") == "frail" for answer in answers[-8:]))
    failed = [answer for answer in answers if answer.status_code != 200 or '"error"' in answer.text]
    assert len(failed) <= 4, [answer.text for answer in failed]
    for answer in failed:
        assert answer.request.url.path == wide
        # Whole answers and streams that had begun: told in OpenAI's shape, and by whom.
        said = answer.text.rpartition("data: {")[2].partition("\n")[0] if answer.status_code == 200 else answer.text
        error = json.loads("{" + said if answer.status_code == 200 else said)["error"]
        assert error["code"] in ("unavailable", "backend_failed"), error
    with asking(gateway) as http:
        assert http.post("/m/frail/v1/completions", json={"prompt": "x"}).status_code == 200


def an_apply_drops_nothing(config: Path, gateway: Gateway, env: Mapping[str, str]) -> None:
    """Through both doors, while models come, change and go: not even what takes seconds."""
    long = {"messages": [{"role": "user", "content": TEXT * 6}], "stream": True}
    lane, wide = "/m/frail/v1/chat/completions", "/v1/chat/completions"
    asked = (wide, {"model": "chat"}), (lane, {"model": "frail"}), (wide, {"model": "chat", **long}), (lane, long)
    with load(gateway, *asked) as answers:
        applied = run("apply", str(config), "--port", str(gateway.port), env=env)
        time.sleep(1)
    assert applied.returncode == 0, applied.stderr
    assert "added model-added" in applied.stdout
    assert "removed model-echo" in applied.stdout
    assert len(answers) > 50
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        streamed = answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.endswith("data: [DONE]\n\n") or not streamed, answer.text[-200:]
        assert '"error"' not in answer.text


def refuses_its_port_to_another(config: Path, port: int, env: Mapping[str, str]) -> None:
    busy = run("serve", str(config), "--port", str(port), env=env)
    assert busy.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in busy.stderr


def ends_by_sigterm_without_a_trace(gateway: Gateway) -> None:
    assert not re.search(r"^ERROR ", gateway.output, flags=re.M), gateway.output
    folders = {word for command in gateway.commands().values() for word in command if "--temp-dir=" in word}
    assert gateway.stop(signal.SIGTERM) < 15
    assert gateway.process.returncode == 0
    assert gateway.output.rstrip().endswith("Stopping …")
    assert folders
    assert not any(Path(word.partition("=")[2]).exists() for word in folders)


def adapter_said(http: httpx.Client) -> str:
    body = {"model": "frail:support", "messages": [{"role": "user", "content": "hello"}]}
    return http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]


def begin_batch(http: httpx.Client) -> dict[str, Any]:
    lines = [
        {"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": ASKED} for number in range(BATCH)
    ]
    files = {"file": ("in.jsonl", "\n".join(json.dumps(line) for line in lines))}
    file = http.post("/v1/files", files=files, data={"purpose": "batch"}).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    return http.post("/v1/batches", json=asked).json()


def goes_on_with(batch: dict[str, Any], http: httpx.Client) -> None:
    """Until all of it is answered, each request as if it came alone."""
    counts: list[int] = []
    deadline = time.monotonic() + 90
    while batch["status"] != "completed":
        assert time.monotonic() < deadline, batch
        batch = http.get(f"/v1/batches/{batch['id']}").json()
        counts.append(batch["request_counts"]["completed"])
        time.sleep(0.1)
    assert 0 < counts[0] <= BATCH
    assert counts == sorted(counts)
    assert batch["request_counts"] == {"total": BATCH, "completed": BATCH, "failed": 0}
    output = http.get(f"/v1/files/{batch['output_file_id']}/content").text
    rows = [json.loads(line) for line in output.splitlines()]
    assert [row["custom_id"] for row in rows] == [f"{number}" for number in range(BATCH)]
    texts = {row["response"]["body"]["choices"][0]["text"] for row in rows}
    assert texts == {http.post("/v1/completions", json=ASKED).json()["choices"][0]["text"]}


def wait_for(met: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
