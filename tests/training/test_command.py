"""`gateway adapters train` as its user meets it: a process that is killed and goes on, what is registered, what is
refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.registry import Registry
from gateway.adapters.version import AdapterVersion
from gateway.store import Store
from tests.running import GATEWAY, run
from tests.training.conftest import COLOURS, Write

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(config_file: Path, write_rows: Write) -> list[str]:
    return [
        "adapters", "train", "--base", "tiny", "--config", str(config_file), "--data", str(write_rows()),
        "--out", "colours", "--max-steps", "24", "--epochs", "1000", "--batch-size", "4", "--checkpoint-every", "3",
        "--patience", "100", "--lr", "0.02", "--rank", "4",
    ]  # fmt: skip


async def registered(config_file: Path) -> list[AdapterVersion]:
    store = Store(f"sqlite:///{config_file.parent / 'gateway.db'}")
    try:
        return list((await Registry(store).catalog()).versions)
    finally:
        await store.close()


async def test_a_killed_training_goes_on_and_ends_the_same(
    arguments: list[str], config_file: Path, tmp_path: Path
) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    whole = run(*arguments, "--folder", str(tmp_path / "whole"), "--json", env=env)
    assert whole.returncode == 0, whole.stderr
    first: dict[str, Any] = json.loads(whole.stdout)

    checkpoint = tmp_path / "state" / "model-gateway" / "adapters" / ".colours.training" / "checkpoint.safetensors"
    process = subprocess.Popen([*GATEWAY, *arguments], env={**os.environ, **env}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert len(await registered(config_file)) == 1

    again = run(*arguments, env=env)
    assert again.returncode == 1
    assert "holds an unfinished training: --resume goes on, --restart begins again" in again.stderr

    resumed = run(*arguments, "--resume", "--json", env=env)
    assert resumed.returncode == 0, resumed.stderr
    second: dict[str, Any] = json.loads(resumed.stdout)
    assert not checkpoint.parent.exists()
    weights = [(Path(each["folder"]) / "adapter_model.safetensors").read_bytes() for each in (first, second)]
    assert weights[0] == weights[1]
    versions = await registered(config_file)
    # The same adapter is no second version.
    assert [version.label for version in versions] == ["colours@1"]
    (version,) = versions
    assert (version.base, version.rank, version.state) == ("tiny", 4, "verified")
    assert version.base_digest == second["base_digest"]
    assert version.metrics["data_digest"] == second["data_digest"]
    assert version.metrics["validation_loss"] < version.metrics["validation_loss_before"]


def test_wrong_commands_end_in_one_clear_line_and_leave_nothing(
    arguments: list[str], write_rows: Write, tmp_path: Path
) -> None:
    def refused(*more: str) -> str:
        done = run(*arguments, *more, env={"XDG_STATE_HOME": str(tmp_path / "state")})
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.split())

    assert "no model 'none' in the config and no such folder; models: tiny (or a source" in refused("--base", "none")
    assert "echo is a model without weights" in refused("--base", "echo")
    assert "--rank: Input should be greater than or equal to 1" in refused("--rank", "0")
    assert "cannot be an adapter's name" in refused("--out", "a b")
    assert "holds no unfinished training: leave out --resume" in refused("--resume")
    bad = write_rows([*COLOURS, '{"prompt": 3}'], "bad.jsonl")
    assert "1 of 13 rows are bad, more than --max-bad 0.05" in (said := refused("--data", str(bad)))
    assert "bad.jsonl:13: prompt: Input should be a valid string" in said
    assert list((tmp_path / "state").rglob("*training*")) == []
