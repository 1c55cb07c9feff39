"""Real training of a tiny model: what it learns, when it ends, what a cut leaves, and that it ends the same again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.adapters.sources import digest_of
from gateway.adapters.verify import Base as Held
from gateway.adapters.verify import verify
from gateway.backend import silent
from gateway.errors import ConfigError, SourceError
from gateway_training.base import Base
from gateway_training.options import read_options
from gateway_training.work import FILES, Job, train
from tests.training.conftest import COLOURS, Write

pytestmark = pytest.mark.slow

QUICK = {"learning_rate": 0.02, "batch_size": 4, "max_steps": 24, "epochs": 100, "evaluate_every": 6, "rank": 4}


class Stop(Exception):
    """A test's own end of a training."""


def job_of(base: Path, data: Path, validation: Path | None = None, **options: Any) -> Job:
    return Job(Base("tiny", str(base)), read_options(**{**QUICK, **options}), data, validation, "colours")


def trained(folder: Path, job: Job, stop_at: int | None = None) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)

    def report(what: str, share: float) -> None:
        if stop_at is not None and what.startswith(f"step {stop_at}/"):
            raise Stop

    return train(job, folder, report)


def test_the_loss_falls_and_the_files_say_so(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    measured = trained(tmp_path / "a", job_of(tiny_base, write_rows()))
    assert {path.name for path in (tmp_path / "a").iterdir()} >= set(FILES)
    curves = json.loads((tmp_path / "a" / "curves.json").read_text())
    losses = [point["loss"] for point in curves["train"]]
    assert [point["step"] for point in curves["train"]] == list(range(1, 25))
    assert [point["step"] for point in curves["validation"]] == [0, 6, 12, 18, 24]
    assert sum(losses[-4:]) < 0.75 * sum(losses[:4])
    assert measured["validation_loss"] == pytest.approx(min(p["loss"] for p in curves["validation"]), abs=1e-6)
    assert (measured["rows"], measured["validation_rows"], measured["bad_rows"]) == (11, 1, 0)
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_leaves_fits_its_base_and_no_other(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    measured = trained(tmp_path / "a", job_of(tiny_base, write_rows(), max_steps=4))
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert config["gateway_base_digest"] == measured["base_digest"]
    assert config["gateway_data_digest"] == measured["data_digest"]
    assert config["base_model_name_or_path"] == str(tiny_base)
    assert verify(tmp_path / "a", Held("tiny", measured["base_digest"], tiny_base)) == 4
    with pytest.raises(Exception, match="was trained on other weights"):
        verify(tmp_path / "a", Held("other", "f" * 64, tiny_base))
    assert not [path for path in (tmp_path / "a").iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_the_same_seed_makes_the_same_adapter(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    data = write_rows()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(tmp_path / name, job_of(tiny_base, data, seed=seed, dropout=0.1, max_steps=6))
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b") != digest_of(tmp_path / "c")


def test_a_cut_training_goes_on_and_ends_as_if_never_cut(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    job = job_of(tiny_base, write_rows(), dropout=0.1, checkpoint_every=5)
    whole = trained(tmp_path / "whole", job)
    for stop_at in (8, 16):
        with pytest.raises(Stop):
            trained(tmp_path / "cut", job, stop_at)
    resumed = trained(tmp_path / "cut", job)
    assert digest_of(tmp_path / "cut") == digest_of(tmp_path / "whole")
    assert (tmp_path / "cut" / "curves.json").read_bytes() == (tmp_path / "whole" / "curves.json").read_bytes()
    assert {**whole, "seconds": 0} == {**resumed, "seconds": 0}


def test_another_training_does_not_go_on_from_a_checkpoint(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        trained(tmp_path / "a", job_of(tiny_base, write_rows(), checkpoint_every=2), 4)
    with pytest.raises(ConfigError, match=r"holds another training \(data_digest was .*options was .*--restart"):
        trained(tmp_path / "a", job_of(tiny_base, write_rows(COLOURS[:8]), seed=9))


def test_a_damaged_checkpoint_is_told(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    job = job_of(tiny_base, write_rows(), checkpoint_every=2)
    with pytest.raises(Stop):
        trained(tmp_path / "a", job, 4)
    path = tmp_path / "a" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"is damaged .*--restart"):
        trained(tmp_path / "a", job)


def test_it_ends_early_and_keeps_the_best(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    # Answers that contradict those it learns from: what is measured soon grows worse.
    other = [
        {"messages": [row["messages"][0], {"role": "assistant", "content": "none of your business"}]} for row in COLOURS
    ]
    job = job_of(
        tiny_base, write_rows(), validation=write_rows(other, "validation.jsonl"), evaluate_every=2, patience=2,
        max_steps=200, learning_rate=0.05,
    )  # fmt: skip
    measured = trained(tmp_path / "a", job)
    assert measured["stopped_early"]
    assert measured["steps"] < 200
    curves = json.loads((tmp_path / "a" / "curves.json").read_text())
    last = curves["validation"][-3:]
    assert last[0]["loss"] < min(last[1]["loss"], last[2]["loss"])
    assert measured["best_step"] == last[0]["step"]
    assert measured["validation_digest"] != measured["data_digest"]


def test_what_rows_begin_with_is_computed_once_and_changes_nothing(tiny_base: Path) -> None:
    import torch

    from gateway_training.encoding import Example
    from gateway_training.learner import Learner

    ends = [(7, 8, 9), (7, 21, 22, 23, 24), (30, 31)]
    rows = [Example((*range(100, 120), *end), (False,) * (19 + len(end)) + (True,)) for end in ends]
    found: list[tuple[float, list[torch.Tensor]]] = []
    for shares in (True, False):
        learner = Learner(tiny_base, read_options(rank=4, last_layers=1))
        learner._shares = shares  # pyright: ignore[reportPrivateUsage]
        for _ in range(3):
            loss = learner.step(rows, 0.01)
        found.append((loss, [each for _, each in sorted(learner.adapter().items())]))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3)


def test_wrong_wishes_say_what_there_is(tiny_base: Path, write_rows: Write, tmp_path: Path) -> None:
    data = write_rows()
    with pytest.raises(ConfigError, match=r"--targets: .*linear layers are: down_proj, gate_proj, k_proj"):
        trained(tmp_path / "a", job_of(tiny_base, data, targets=["c_attn"]))
    with pytest.raises(ConfigError, match="--last-layers: 9 is more than the model's 2"):
        trained(tmp_path / "a", job_of(tiny_base, data, last_layers=9))
    with pytest.raises(SourceError, match="no such file or folder"):
        train(Job(Base("none", "/nowhere/at/all"), read_options(), data, None, "x"), tmp_path, silent)
