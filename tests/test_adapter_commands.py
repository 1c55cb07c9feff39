"""`gateway adapters` as people run it: a registry of its own, the real base's weights, one clear line on errors."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.adapter_commands import adapters
from gateway.adapters.registry import Registry
from gateway.adapters.version import read_reference
from gateway.errors import GatewayError
from gateway.store import Store
from tests.adapters.making import write_adapter

pytestmark = pytest.mark.slow


class Cli:
    """Commands in this process; what `gateway` itself adds, one line for an error of ours, is tried once."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        text = f"models: {{smollm2: {{backend: echo, source: '{base}', adapters: {{}}}}, plain: {{backend: echo}}}}\n"
        (folder / "config.yaml").write_text(f"server: {{store: 'sqlite:///{folder}/gateway.db'}}\n{text}")

    def __call__(self, *arguments: str) -> str:
        done = CliRunner().invoke(adapters, [*arguments, "--config", "config.yaml"])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        done = CliRunner().invoke(adapters, [*arguments, "--config", "config.yaml"])
        if isinstance(done.exception, GatewayError):
            return done.exception.message
        assert done.exit_code == 1, done.output
        return done.stderr


@pytest.fixture
def cli(tmp_path: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(tmp_path, smollm2_folder)


def test_an_error_is_one_clear_line(cli: Cli) -> None:
    command = [sys.executable, "-m", "gateway", "adapters", "promote", "nobody@1", "--config", "config.yaml"]
    done = subprocess.run(command, cwd=cli.folder, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.strip()) == (1, "error: no adapter nobody@1; there are: none")


def test_from_added_to_removed(cli: Cli) -> None:
    write_adapter(cli.folder / "one", layers=1)
    write_adapter(cli.folder / "two", layers=1, seed=2)
    assert cli.json("add", "one", "--base", "smollm2", "--name", "support")["version"] == 1
    assert cli.json("add", "one", "--base", "smollm2", "--name", "support")["version"] == 1, "the same is not new"
    assert "smollm2:support@2 is registered" in cli("add", "two", "--base", "smollm2", "--name", "support")
    cli("promote", "support@1")
    assert cli.json("promote", "smollm2:support@2")["version"] == 2
    assert [row["aliases"] for row in cli.json("list")] == [[], ["prod"]]
    assert "support@2" in cli("list")
    assert cli.json("rollback", "support")["version"] == 1
    assert cli.json("verify", "support")["ok"]
    assert "promote another one first" in cli.refused("remove", "support@1")
    assert cli.json("remove", "support@2")[0]["id"] == "smollm2:support@2"
    assert len(cli.json("remove", "support")) == 1
    assert cli.json("list") == []


def test_what_is_wrong_is_said(cli: Cli) -> None:
    write_adapter(cli.folder / "wide", layers=1, rank=32)
    said = cli.refused("add", "wide", "--base", "smollm2", "--name", "a")
    assert "does not fit smollm2" in said
    assert "32 is more than 16" in said
    write_adapter(cli.folder / "good", layers=1)
    assert "the config has no model 'nobody'" in cli.refused("add", "good", "--base", "nobody", "--name", "a")
    assert "has no weights" in cli.refused("add", "good", "--base", "plain", "--name", "a")
    assert "cannot be an adapter's name" in cli.refused("add", "good", "--base", "smollm2", "--name", "../a")
    assert "no adapter nobody@1; there are: none" in cli.refused("promote", "nobody@1")
    assert "which version of nobody?" in cli.refused("promote", "nobody")
    assert cli.json("list") == []


def test_one_that_was_damaged_fails_and_one_that_is_worse_needs_force(cli: Cli, tmp_path: Path) -> None:
    write_adapter(cli.folder / "one", layers=1)
    cli.json("add", "one", "--base", "smollm2", "--name", "support")

    async def judge() -> None:
        store = Store(f"sqlite:///{tmp_path}/gateway.db")
        registry = Registry(store)
        version = await registry.find(read_reference("support"))
        await registry.set_verdict(version, {"verdict": "worse"})
        await store.close()

    asyncio.run(judge())
    assert "--force" in cli.refused("promote", "support@1")
    assert cli.json("promote", "support@1", "--force")["alias"] == "prod"
    shutil.rmtree(cli.folder / "cache" / "adapters")
    write_adapter(cli.folder / "one", layers=1, seed=9)
    assert "is no longer what was registered" in cli.refused("verify", "support")
    assert cli.json("list")[0]["state"] == "failed"
    write_adapter(cli.folder / "one", layers=1)
    assert cli.json("verify", "support")["ok"]
    assert cli.json("list")[0]["state"] == "verified"
