"""README.md stays true: its commands run, its configs are valid, its tree is there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from gateway import plugins
from gateway.adapters import intake
from gateway.adapters.registry import Registry
from gateway.adapters.verify import Base
from gateway.cache import cache_root
from gateway.config import parse
from gateway.store import Store
from tests.loras import write_lora
from tests.running import Gateway

ROOT = Path(__file__).parents[2]
INTENTS = ROOT / "evals" / "suites" / "intents"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.S)
COMMANDS = [text.strip() for kind, text in BLOCKS if kind == "sh"]


@pytest.fixture(scope="module")
def support(gateway: Gateway, smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two versions of an adapter, promoted one after the other, where a reader would have trained them."""
    folder = tmp_path_factory.mktemp("support")
    base = Base("smollm2", smollm2_folder.name.removesuffix("-hf1"), smollm2_folder)

    async def register() -> None:
        store = Store(f"sqlite:///{gateway.config.parent / 'gateway.db'}")
        registry, find = Registry(store), plugins.load().adapter_source
        for number in (1, 2):
            source = write_lora(folder / str(number), smollm2_folder, seed=number, modules=["q_proj"]).path
            version = await intake.add(registry, str(source), name="support", base=base, find=find, cache=cache_root())
            await registry.promote(version)
        await store.close()

    asyncio.run(register())
    yield
    httpx.post(f"{gateway.url}/v1/unload_lora_adapter", json={"lora_name": "smollm2:support"}, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith("make ")])
def test_its_commands_run(command: str, gateway: Gateway, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if "apply" in command:
        # The same words against a config of this gateway: the shipped one would take away the tests' own models.
        command = command.replace("deployments/local.yaml", f"{gateway.config} --port {gateway.port}")
    if "adapters" in command or ":support" in command:
        request.getfixturevalue("support")
    if "adapters" in command:
        command += f" --config {gateway.config}"
        # One step for forty; four rows to validate it, and two of eighty to prove it.
        command = command.replace("--max-steps 40", "--max-steps 1")
        some = tmp_path / "some.jsonl"
        some.write_text("".join((INTENTS / "validation.jsonl").read_text().splitlines(keepends=True)[:4]))
        command = command.replace("evals/suites/intents/validation.jsonl", str(some))
    if "adapters prove" in command:
        command += f" --limit 2 --url {gateway.url} --output {tmp_path}"
    if "status" in command:
        command += f" --port {gateway.port}"
    if "eval run" in command:
        command += f" --limit 4 --output {tmp_path}"
    if "conformance" in command:
        # All of it over all engines is what test_conformance.py does.
        command += " --model echo --only chat"
    if "parity" in command:
        (tmp_path / "prompts.jsonl").write_text('{"prompt": "The capital of France is"}\n')
        command += f" --prompts {tmp_path / 'prompts.jsonl'}"
    command = command.replace("build/gateway-shout", str(tmp_path / "gateway-shout"))
    command = command.replace("127.0.0.1:8000", f"127.0.0.1:{gateway.port}")
    result = subprocess.run(
        command.split("#")[0], shell=True, cwd=ROOT, capture_output=True, text=True, timeout=240, env=os.environ
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout
    assert '"error":{' not in result.stdout


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("make ")])
def test_its_make_targets_exist(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.M)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_its_configs_are_valid(text: str) -> None:
    parse(yaml.safe_load(text))


def test_its_tree_is_there() -> None:
    tree = re.search(r"## Where things are\n\n```text\n(.*?)```", README, flags=re.S)
    assert tree is not None
    parent = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            parent = name
            assert (ROOT / name).is_dir(), name
        else:
            assert (ROOT / parent / name).is_dir(), name
