"""What people may set for the playground in YAML, strict. Knows no Gradio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError


class PlaygroundOptions(BaseModel):
    """`options:` of an app that is the playground."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True, strict=True)

    title: str = Field(default="Model playground", min_length=1, max_length=80)
    """The page's heading and its name in the browser's tab."""
    system_prompt: str = ""
    """What stands in the system prompt's field when the page opens."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Where the temperature stands when the page opens; 0 is greedy."""
    max_tokens: int = Field(default=512, ge=1, le=32768)
    """Longest answer, in tokens, when the page opens."""
    max_streams: int = Field(default=32, ge=1, le=1000)
    """Answers that stream at the same time; further ones wait in a queue, and their people see their place in it."""
    read_timeout_s: float = Field(default=300, gt=0)
    """Longest silence of a model before the page gives an answer up, in seconds."""


def read(values: Mapping[str, Any]) -> PlaygroundOptions:
    """Check an app's options. Raises ConfigError with every problem at once, one a line."""
    try:
        return PlaygroundOptions.model_validate(dict(values))
    except ValidationError as error:
        lines = [
            f"playground: options.{'.'.join(map(str, problem['loc']))}: "
            + ("unknown setting" if problem["type"] == "extra_forbidden" else problem["msg"])
            for problem in error.errors(include_url=False)
        ]
        raise ConfigError("\n".join(lines)) from error
