"""What a run was asked to do, in `run_TIME.json` beside its results: written before the first request, so that whatever
ends it, `gateway eval resume` knows how to go on. Holds no key."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway_evals.errors import EvaluationError
from gateway_evals.limits import Limit


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's command line, and what it found when it began."""

    run: str
    """The run's id: when it started, as file names tell it."""
    suite: str
    """The suite's file, or its name."""
    models: tuple[str, ...]
    base_url: str
    limit: Limit | None
    concurrency: int
    seed: int
    timeout_s: float
    fail_on_error: float | None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the command line changed of the suite's tasks."""
    cache: str | None = None
    stream: bool = True
    tasks: Mapping[str, str] = field(default_factory=dict[str, str])
    """Task to digest."""
    identities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    """Model to what decides its answers: digest, engine, data type."""
    finished: bool = False

    @property
    def started(self) -> datetime:
        day, _, clock = self.run.partition("T")
        return datetime.fromisoformat(f"{day}T{clock.replace('-', ':')}").replace(tzinfo=UTC)

    def path(self, output: Path) -> Path:
        return output / f"run_{self.run}.json"

    def write(self, output: Path) -> None:
        """Whole or not at all. Raises EvaluationError."""
        path = self.path(output)
        part = path.with_name(f".{path.name}.part")
        try:
            output.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(part, path)  # noqa: PTH105
        except OSError as error:
            raise EvaluationError(
                f"{path} cannot be written: {error.strerror}; choose another folder with --output"
            ) from error


def find_manifest(reference: str, output: Path) -> tuple[Manifest, Path]:
    """By id, the beginning of one, `last`, or the file itself; and the run's folder. Raises EvaluationError that says
    what there is."""
    path = Path(reference)
    if not path.is_file():
        names = sorted((file.name[4:-5] for file in output.glob("run_*.json")), reverse=True)
        if reference == "last" and names:
            reference = names[0]
        matching = [name for name in names if reference and name.startswith(reference)]
        if len(matching) != 1:
            problem = "several runs begin with" if matching else "no run"
            raise EvaluationError(
                f"{problem} {reference!r} in {output}; the newest are: {', '.join(names[:5]) or 'none'} "
                "(another folder: --output)"
            )
        path = output / f"run_{matching[0]}.json"
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
        body["models"] = tuple(body["models"])
        return Manifest(**body), path.parent
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path} describes no run ({type(error).__name__}: {error})") from error
