"""The app's settings in a config, under `options:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError


class EvalsOptions(BaseModel):
    """`apps: {evals: {app: evals, options: {…}}}`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    max_runs: int = Field(default=2, ge=1, le=64)
    """Runs at the same time; beyond them: 429."""
    concurrency: int = Field(default=8, ge=1, le=1024)
    """Samples in flight of each run: what a run takes, other people's requests wait for."""


def read(options: Mapping[str, Any]) -> EvalsOptions:
    """Raises ConfigError that names every option that is wrong."""
    try:
        return EvalsOptions.model_validate(dict(options))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
        raise ConfigError("\n".join(f"options of the app `evals`: {problem}" for problem in problems)) from error
