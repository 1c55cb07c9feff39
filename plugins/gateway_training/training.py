"""One training from its first step to the files of an adapter: looks, checkpoints, early end. Knows no terminal, no
registry and no cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gateway.backend import Report
from gateway_training import checkpoint
from gateway_training.checkpoint import Progress, Tensors
from gateway_training.encoding import Example, batch_of
from gateway_training.learner import Learner
from gateway_training.options import TrainingOptions

Saved = Callable[[bytes], None]
"""Told a checkpoint's content after it was written."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is learned, on what, and what it is measured on."""

    base: Path
    """The base's folder in Hugging Face's layout."""
    job: dict[str, Any]
    """What makes it this training: digests of base and data, options."""
    learned: Sequence[Example]
    measured: Sequence[Example]
    options: TrainingOptions


@dataclass(slots=True)
class Training:
    """Runs a lesson in a folder, from the checkpoint that is there or from the beginning."""

    lesson: Lesson
    folder: Path
    report: Report
    saved: Saved | None = None
    _best: Tensors = field(default_factory=Tensors, init=False)

    def run(self) -> Progress:
        """Blocks for as long as it takes; then the best adapter stands in the folder. Raises ConfigError, SourceError.

        Whatever interrupts it, the next run in the same folder goes on from the last checkpoint and ends the same.
        """
        lesson, options = self.lesson, self.lesson.options
        progress = Progress(lesson.job)
        tensors: Tensors | None = None
        if (self.folder / checkpoint.NAME).exists():
            progress, tensors = checkpoint.read(self.folder)
            checkpoint.refuse_other_job(progress, lesson.job, self.folder)
        self.report("loading the model", 0.0)
        learner = Learner(lesson.base, options)
        if tensors is not None:
            learner.restore(tensors)
            self._best = {name[5:]: each for name, each in tensors.items() if name.startswith("best.")}
        steps = options.steps(len(lesson.learned))
        every = options.look_every(steps)
        began = time.perf_counter() - progress.seconds
        if not progress.looks:
            self._look(learner, progress, steps)
        while progress.step < steps and progress.since_best < options.patience:
            rows = [lesson.learned[place] for place in batch_of(progress.step, len(lesson.learned), options)]
            progress.losses.append(learner.step(rows, options.rate(progress.step, steps)))
            progress.step += 1
            self._tell(progress, steps)
            if progress.step % every == 0 or progress.step == steps:
                self._look(learner, progress, steps)
            progress.seconds = time.perf_counter() - began
            if progress.step % options.checkpoint_every == 0 or progress.step == steps:
                self._save(learner, progress)
        learner.put(self._best)
        learner.save(self.folder)
        return progress

    def _look(self, learner: Learner, progress: Progress, steps: int) -> None:
        loss = learner.measure(self.lesson.measured)
        progress.looks.append((progress.step, loss))
        if loss <= progress.best:
            progress.best_step = progress.step
            self._best = learner.adapter()
        self._tell(progress, steps)

    def _save(self, learner: Learner, progress: Progress) -> None:
        best = {f"best.{name}": each for name, each in self._best.items()}
        content = checkpoint.to_bytes(progress, learner.state() | best)
        checkpoint.write(self.folder, content)
        if self.saved is not None:
            self.saved(content)

    def _tell(self, progress: Progress, steps: int) -> None:
        recent = progress.losses[-10:]
        loss = f"  loss {sum(recent) / len(recent):.3f}" if recent else ""
        look = f"  validation {progress.looks[-1][1]:.3f}" if progress.looks else ""
        self.report(f"step {progress.step}/{steps}{loss}{look}", progress.step / steps)


def figures(progress: Progress, steps: int) -> dict[str, Any]:
    """What a training measured, for the registry."""
    return {
        "steps": progress.step,
        "best_step": progress.best_step,
        "stopped_early": progress.step < steps,
        "train_loss": round(sum(progress.losses[-10:]) / max(1, len(progress.losses[-10:])), 6),
        "validation_loss_before": round(progress.looks[0][1], 6),
        "validation_loss": round(progress.best, 6),
        "seconds": round(progress.seconds, 1),
    }


def facts(lesson: Lesson) -> dict[str, Any]:
    """What went into it."""
    return {
        **lesson.job,
        "rows": len(lesson.learned),
        "validation_rows": len(lesson.measured),
        "answer_tokens": sum(sum(example.learned) for example in lesson.learned),
    }


def to_json(progress: Progress) -> bytes:
    """The learning curves, for programs."""
    body = {
        "train": [{"step": step, "loss": loss} for step, loss in enumerate(progress.losses, start=1)],
        "validation": [{"step": step, "loss": loss} for step, loss in progress.looks],
        "best_step": progress.best_step,
    }
    return msgspec.json.format(msgspec.json.encode(body), indent=1)
