"""`gateway adapters prove` against a real server with a real registry: an adapter that is better, one that is worse."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.adapters.registry import Registry
from gateway.adapters.version import AdapterVersion, read_reference
from gateway.backend import BackendContext
from gateway.cli import app as gateway_command
from gateway.commands import add_plugin_commands
from gateway.config import AdaptersSpec, ModelSpec
from gateway.errors import AdapterError
from gateway.store import Store
from gateway.types import AdapterFiles
from gateway_echo.backend import EchoBackend
from gateway_evals import intents
from gateway_evals.catalog import shipped
from gateway_evals.proving import joined
from gateway_evals.suite_file import load_suite
from tests.evals.conftest import generation

Serve = Callable[[Any], str]


@pytest.fixture
def url(serve: Serve, tmp_path: Path) -> str:
    """An echo with an adapter: the base repeats, `echo:polite@1` says `yes: ` before it."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"says": "yes"}))
    backend = EchoBackend(BackendContext("echo", ModelSpec(backend="echo", adapters=AdaptersSpec()), None))
    asyncio.run(backend.load_adapter(AdapterFiles("echo:polite@1", folder, "d" * 64, 8)))
    return serve(backend.app)


class Desk:
    """The registry behind a config, and the command in front of it."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.store = f"sqlite:///{tmp_path / 'gateway.db'}"
        self.config = tmp_path / "config.yaml"
        self.config.write_text(
            yaml.safe_dump({"server": {"store": self.store}, "models": {"echo": {"backend": "echo"}}})
        )
        self.output = tmp_path / "results"
        self.url = url
        self.work(
            lambda registry: registry.add(
                base="echo", name="polite", base_digest="b" * 64, digest="d" * 64, source="x", rank=8
            )
        )

    def work(self, do: Callable[[Registry], Any]) -> Any:
        async def whole() -> Any:
            store = Store(self.store)
            try:
                return await do(Registry(store))
            finally:
                await store.close()

        return asyncio.run(whole())

    @property
    def version(self) -> AdapterVersion:
        return self.work(lambda registry: registry.find(read_reference("polite")))

    def prove(self, suite: Path, *more: str) -> Any:
        add_plugin_commands(gateway_command)
        arguments = ["adapters", "prove", "polite", "--suite", str(suite), "--base-url", self.url]
        arguments += ["--config", str(self.config), "-o", str(self.output), "--json", *more]
        return CliRunner().invoke(gateway_command, arguments, catch_exceptions=False)


@pytest.fixture
def desk(tmp_path: Path, url: str) -> Desk:
    return Desk(tmp_path, url)


def suite_of(suite_file: Callable[..., Path], targets: Callable[[str], str]) -> Path:
    texts = [f"question {number}" for number in range(24)]
    return suite_file(generation(), rows={"repeat.jsonl": [{"text": t, "target": targets(t)} for t in texts]})


def test_a_better_one_is_told_with_its_figures_and_promoted(desk: Desk, suite_file: Callable[..., Path]) -> None:
    done = desk.prove(suite_of(suite_file, lambda text: f"yes: {text}"))
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    (row,) = said["rows"]
    assert (said["verdict"], said["adapter"], said["against"], said["suite"]) == ("better", "polite@1", "echo", "tried")
    assert (row["base"], row["adapter"], row["difference"], row["samples"]) == (0, 1, 1, 24)
    assert (row["wins"], row["losses"], row["test"]) == (24, 0, "mcnemar")
    # Exact: 24 of 24 one way, two-sided.
    assert row["p_value"] == pytest.approx(2 * 0.5**24)
    assert row["interval"] == [1, 1]
    verdict = desk.version.verdict
    assert (verdict["verdict"], verdict["proofs"][0]["rows"]) == ("better", [row])
    version = desk.version
    desk.work(lambda registry: registry.promote(version))


def test_a_worse_one_is_promoted_by_force_alone(desk: Desk, suite_file: Callable[..., Path]) -> None:
    assert json.loads(desk.prove(suite_of(suite_file, lambda text: text)).stdout)["verdict"] == "worse"
    version = desk.version
    with pytest.raises(AdapterError, match="did worse than its base"):
        desk.work(lambda registry: registry.promote(version))
    desk.work(lambda registry: registry.promote(version, force=True))


def test_no_difference_is_no_verdict(desk: Desk, suite_file: Callable[..., Path]) -> None:
    assert json.loads(desk.prove(suite_of(suite_file, lambda _: "something else")).stdout)["verdict"] == "undecided"
    assert not desk.version.is_worse


def test_what_cannot_be_proved_says_why_and_writes_nothing(desk: Desk, suite_file: Callable[..., Path]) -> None:
    suite = suite_of(suite_file, lambda text: text)

    def refused(*more: str) -> str:
        done = desk.prove(suite, *more)
        assert done.exit_code == 2, done.output
        return json.loads(done.stdout)["errors"][0]

    assert "no metric 'bleu' with a value for each sample; there are: exact_match" in refused("--metric", "bleu")
    assert "no model 'none', 'none:polite@1' at http" in refused("--against", "none")
    desk.work(
        lambda registry: registry.add(
            base="echo", name="polite", base_digest="b" * 64, digest="e" * 64, source="x", rank=8
        )
    )
    # Registered, but nobody serves this version.
    assert "polite@2" in refused()
    assert desk.version.verdict == {}


def test_one_engine_that_does_worse_is_worse() -> None:
    def proof(against: str, verdict: str) -> dict[str, Any]:
        return {"suite": "s", "against": against, "verdict": verdict, "rows": []}

    verdict = joined({}, proof("a", "better"))
    assert verdict["verdict"] == "better"
    verdict = joined(verdict, proof("b", "worse"))
    assert (verdict["verdict"], len(verdict["proofs"])) == ("worse", 2)
    assert joined(verdict, proof("b", "undecided"))["verdict"] == "better"


class TestIntents:
    """The shipped example's data."""

    def test_the_files_are_what_the_generator_writes(self, tmp_path: Path) -> None:
        for path in intents.write(tmp_path):
            assert path.read_bytes() == (shipped()["intents"].parent / "intents" / path.name).read_bytes()

    def test_held_out_rows_share_no_sentence_and_no_word_of_a_slot_with_training(self) -> None:
        trained = {sentence for each in intents.TRAINED.sentences.values() for sentence in each}
        held_out = [sentence for each in intents.HELD_OUT.sentences.values() for sentence in each]
        assert len(set(held_out)) == len(held_out) == 80
        assert not trained & set(held_out)
        for slot, words in intents.TRAINED.words.items():
            assert not set(words) & set(intents.HELD_OUT.words[slot])

    def test_every_held_out_sentence_is_asked_once_and_every_intent_equally_often(self) -> None:
        rows = intents.messages(intents.HELD_OUT, 10, random.Random(1))
        assert len({text for text, _ in rows}) == 80
        assert all(sum(found == intent for _, found in rows) == 10 for intent in intents.INTENTS)

    def test_the_suite_asks_as_training_taught(self) -> None:
        (task,) = load_suite(shipped()["intents"]).tasks
        assert task.doc_to_text == f"{intents.INSTRUCTION}\n{{{{message}}}}"
