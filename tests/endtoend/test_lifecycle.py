"""`gateway serve`, `apply` and their ends: all that is started is ended, changes drop nothing, errors are one line."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.adapters.making import write_adapter
from tests.running import Gateway, free_port, run, serving

pytestmark = pytest.mark.slow


def write(path: Path, port: int, **changes: Any) -> Path:
    config: dict[str, Any] = {
        "server": {"port": port},
        "models": {"echo": {"backend": "echo"}, "other": {"backend": "echo", "options": {"delay_ms": 5}}},
        "routes": {"chat": {"targets": ["echo", "other"]}},
        **changes,
    }
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


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


def test_a_gateway_with_keys_is_applied_to_under_load_and_ends_whole(tmp_path: Path) -> None:
    port = free_port()
    first = write(tmp_path / "a.yaml", port)
    key = {"Authorization": "Bearer k-lifecycle"}
    env = {"GATEWAY_API_KEYS": "k-lifecycle", "GATEWAY_CACHE": str(tmp_path / "cache")}
    with serving(first, port, env=env) as gateway:
        assert "k-lifecycle" not in gateway.output
        assert httpx.get(f"{gateway.url}/v1/models").status_code == 401
        assert httpx.get(f"{gateway.url}/v1/models", headers=key).status_code == 200
        for process in gateway.descendants():
            with suppress(psutil.NoSuchProcess):
                assert "k-lifecycle" not in str(process.environ()), process.cmdline()
        leads_to_itself_alone(gateway)

        answers: list[int] = []
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(headers=key, timeout=30) as http:
                while not stop.is_set():
                    for address, model in ((f"{gateway.url}/v1", "chat"), (f"{gateway.url}/m/echo/v1", "echo")):
                        body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
                        answers.append(http.post(f"{address}/chat/completions", json=body).status_code)
                    # What takes place meanwhile needs the machine too.
                    time.sleep(0.05)

        workers = [threading.Thread(target=load) for _ in range(4)]
        for worker in workers:
            worker.start()
        second = write(
            tmp_path / "b.yaml",
            port,
            models={
                "echo": {"backend": "echo", "options": {"delay_ms": 1}},
                "added": {"backend": "echo"},
            },
            routes={"chat": {"targets": ["added", "echo"]}, "new": {"targets": ["added"]}},
        )
        applied = run("apply", str(second), "--port", str(port), env={"GATEWAY_CACHE": str(tmp_path / "cache")})
        time.sleep(1)
        stop.set()
        for worker in workers:
            worker.join(60)
        assert applied.returncode == 0, applied.stderr
        assert "added model-added" in applied.stdout
        assert "removed model-other" in applied.stdout
        assert len(answers) > 50
        assert set(answers) == {200}
        rows = httpx.get(f"{gateway.url}/v1/models", headers=key).json()["data"]
        assert [row["id"] for row in rows] == ["echo", "added", "chat", "new"]
        answer = httpx.post(f"{gateway.url}/v1/completions", json={"model": "new", "prompt": "x"}, headers=key)
        assert answer.headers["x-gateway-target"] == "added"
        gone = httpx.post(f"{gateway.url}/m/other/v1/completions", json={"prompt": "x"}, headers=key)
        assert gone.status_code == 404

        status = run("status", "--port", str(port), "--json", env={"GATEWAY_CACHE": str(tmp_path / "cache")})
        assert json.loads(status.stdout)["models"] == {"echo": "up", "added": "up"}
        busy = run("serve", str(first), "--port", str(port), env={"GATEWAY_CACHE": str(tmp_path / "cache")})
        assert busy.returncode == 1
        assert f"port {port} on 127.0.0.1 is in use" in busy.stderr
        assert gateway.stop(signal.SIGINT) < 15


def ends_by_sigterm_without_a_trace(gateway: Gateway) -> None:
    folders = {word for command in gateway.commands().values() for word in command if "--temp-dir=" in word}
    assert gateway.stop(signal.SIGTERM) < 15
    assert gateway.process.returncode == 0
    assert gateway.output.rstrip().endswith("Stopping …")
    assert folders
    assert not any(Path(word.partition("=")[2]).exists() for word in folders)


def test_a_model_that_cannot_start_is_one_clear_line_and_leaves_nothing(tmp_path: Path) -> None:
    port = free_port()
    models = {"echo": {"backend": "echo", "options": {"fail": "start"}}}
    config = write(tmp_path / "a.yaml", port, models=models, routes={})
    failed = run("serve", str(config), "--port", str(port), env={"GATEWAY_CACHE": str(tmp_path / "cache")})
    assert failed.returncode == 1
    assert "error: model-echo could not start: " in failed.stderr
    assert "told not to start" in failed.stderr
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    assert not list((tmp_path / "cache" / "run").glob("*.json"))


def test_a_killed_replica_comes_back_and_batches_and_adapters_outlive_their_gateway(
    tmp_path: Path, smollm2_folder: Path
) -> None:
    port = free_port()
    frail = {"backend": "echo", "options": {"delay_ms": 10}, "source": str(smollm2_folder), "adapters": {}}
    models = {"frail": frail, "echo": {"backend": "echo"}}
    server = {"port": port, "store": f"sqlite:///{tmp_path / 'gateway.db'}"}
    routes = {"chat": {"targets": ["frail", "echo"]}}
    config = write(tmp_path / "a.yaml", port, models=models, routes=routes, server=server)
    env = {"GATEWAY_CACHE": str(tmp_path / "cache")}
    with serving(config, port, env=env) as gateway:
        says = {"lora_name": "support", "lora_path": str(write_adapter(tmp_path / "a", layers=1, says="A"))}
        assert httpx.post(f"{gateway.url}/v1/load_lora_adapter", json=says, timeout=60).status_code == 200
        answers: list[httpx.Response] = []
        stop = threading.Event()

        def load(stream: bool) -> None:
            body = {"model": "chat", "stream": stream, "messages": [{"role": "user", "content": "hello there " * 4}]}
            with httpx.Client(timeout=30) as http:
                while not stop.is_set():
                    answers.append(http.post(f"{gateway.url}/v1/chat/completions", json=body))

        workers = [threading.Thread(target=load, args=(number % 2 == 0,)) for number in range(4)]
        for worker in workers:
            worker.start()
        wait_for(lambda: any(answer.headers.get("x-gateway-target") == "frail" for answer in answers))
        (replica,) = [p for p, command in gateway.commands().items() if "ServeReplica:model-frail" in " ".join(command)]
        replica.kill()
        killed = len(answers)
        # The other target answers meanwhile, not only what was under way, and the first does again once it is back.
        wait_for(lambda: sum(answer.headers.get("x-gateway-target") == "echo" for answer in answers[killed:]) >= 12)
        wait_for(lambda: all(answer.headers.get("x-gateway-target") == "frail" for answer in answers[-8:]))
        stop.set()
        for worker in workers:
            worker.join(60)
        failed = [answer for answer in answers if answer.status_code != 200 or '"error"' in answer.text]
        assert len(failed) <= len(workers), [answer.text for answer in failed]
        for answer in failed:
            # Whole answers and streams that had begun: told in OpenAI's shape, and by whom.
            said = answer.text.rpartition("data: {")[2].partition("\n")[0] if answer.status_code == 200 else answer.text
            error = json.loads("{" + said if answer.status_code == 200 else said)["error"]
            assert error["code"] in ("unavailable", "backend_failed"), error
        lane = httpx.post(f"{gateway.url}/m/frail/v1/completions", json={"prompt": "x"}, timeout=30)
        assert lane.status_code == 200
        assert adapter_said(gateway.url) == "A: hello"
        batch = begin_batch(gateway.url, 200)
        time.sleep(1.5)
    with serving(config, port, env=env) as gateway:
        # Loaded as the replica starts, before anybody asks for it.
        wait_for(lambda: httpx.get(f"{gateway.url}/v1/adapters").json()["data"][0]["resident"] != [], 30)
        assert adapter_said(gateway.url) == "A: hello"
        deadline = time.monotonic() + 90
        counts: list[int] = []
        while batch["status"] != "completed":
            assert time.monotonic() < deadline, batch
            batch = httpx.get(f"{gateway.url}/v1/batches/{batch['id']}").json()
            counts.append(batch["request_counts"]["completed"])
            time.sleep(0.1)
        assert 0 < counts[0] <= 200
        assert counts == sorted(counts)
        assert batch["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
        output = httpx.get(f"{gateway.url}/v1/files/{batch['output_file_id']}/content").text
        rows = [json.loads(line) for line in output.splitlines()]
        assert [row["custom_id"] for row in rows] == [f"{number}" for number in range(200)]
        texts = {row["response"]["body"]["choices"][0]["text"] for row in rows}
        assert texts == {httpx.post(f"{gateway.url}/v1/completions", json=ASKED).json()["choices"][0]["text"]}
        ends_by_sigterm_without_a_trace(gateway)


def adapter_said(url: str) -> str:
    body = {"model": "frail:support", "messages": [{"role": "user", "content": "hello"}]}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()["choices"][0]["message"]["content"]


ASKED = {"model": "frail", "prompt": "one two three four five six seven eight"}


def begin_batch(url: str, requests: int) -> dict[str, Any]:
    lines = [
        {"custom_id": f"{number}", "method": "POST", "url": "/v1/completions", "body": ASKED}
        for number in range(requests)
    ]
    files = {"file": ("in.jsonl", "\n".join(json.dumps(line) for line in lines))}
    file = httpx.post(f"{url}/v1/files", files=files, data={"purpose": "batch"}).json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/completions", "completion_window": "24h"}
    return httpx.post(f"{url}/v1/batches", json=asked).json()


def wait_for(met: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
