"""A whole training as one piece of work that can be done anywhere: bytes of data in, files of an adapter out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.backend import Report
from gateway_training.base import Base, bring_base
from gateway_training.encoding import encode, split
from gateway_training.options import TrainingOptions
from gateway_training.rows import Rows, read_rows

CONFIG = "adapter_config.json"
FILES = (CONFIG, "adapter_model.safetensors", "curves.json", "curves.png", "training.json")
"""What a finished training leaves."""

SPIN_COUNT = "10000"
"""How long a compute thread that waits for another keeps its core: OpenMP's own 300,000 starve a machine that does
something else too (see the torch backend)."""

Noted = Callable[[int, int, str], None]
"""Told how many of how many rows of a file are left out, and the first of them in words, before anything is trained."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained."""

    base: Base
    options: TrainingOptions
    data: Path
    validation: Path | None
    """Rows to measure on; None: a share of the data."""
    title: str
    """The adapter's name, for the picture."""


def train(
    job: Job,
    folder: Path,
    report: Report,
    *,
    noted: Noted | None = None,
    saved: Callable[[bytes], None] | None = None,
) -> dict[str, Any]:
    """Train in a folder, go on from a checkpoint that is there, and leave `FILES`. Gives what was measured.

    Blocks. Raises ConfigError for options, rows or a checkpoint that do not fit, SourceError for a base that cannot be
    had.
    """
    # OpenMP reads it when torch is imported, which is below.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    from gateway import plugins
    from gateway.openai.tokenizer import HuggingFaceTokenizer

    options = job.options
    files = [read_rows(path) for path in (job.data, job.validation) if path is not None]
    for rows in files:
        rows.refuse_too_many_bad(options.max_bad)
    found = bring_base(job.base, plugins.load(), report)
    tokenizer = HuggingFaceTokenizer(found.path)
    parts = [encode(rows, tokenizer, options) for rows in files]
    for rows in files:
        rows.refuse_too_many_bad(options.max_bad)
    _note(files, noted)
    learned, measured = parts if len(parts) == 2 else split(parts[0], options.validation_share, options.seed)

    from gateway_training import curves
    from gateway_training.training import Lesson, Training, facts, figures, to_json

    identity: dict[str, Any] = {
        "base_digest": found.digest,
        "data_digest": files[0].digest,
        "options": options.model_dump(mode="json", exclude={"device", "checkpoint_every", "max_bad"}),
    }
    if len(files) == 2:
        identity["validation_digest"] = files[1].digest
    lesson = Lesson(found.path, identity, learned, measured, options)
    progress = Training(lesson, folder, report, saved).run()
    measurements = {
        **figures(progress, options.steps(len(learned))),
        **facts(lesson),
        "bad_rows": sum(len(rows.bad) for rows in files),
    }
    _say_what_it_was_trained_on(folder / CONFIG, job.base, found.digest, files[0].digest)
    (folder / "curves.json").write_bytes(to_json(progress))
    curves.draw(progress, f"{job.title} on {job.base.name}", folder / "curves.png")
    (folder / "training.json").write_text(json.dumps(measurements, indent=1) + "\n", encoding="utf-8")
    return measurements


def _note(files: list[Rows], noted: Noted | None) -> None:
    for rows in files:
        if rows.bad and noted is not None:
            noted(len(rows.bad), rows.count, rows.listing())


def _say_what_it_was_trained_on(path: Path, base: Base, digest: str, data: str) -> None:
    """PEFT writes this machine's folder as the base; what counts anywhere is its source and its digest."""
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = base.source
    config["gateway_base_digest"] = digest
    config["gateway_data_digest"] = data
    # A set in PEFT: written in another order by each process.
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
