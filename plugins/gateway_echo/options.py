"""`options:` of a model with `backend: echo`: how slow it is and how it fails, for tests of everything around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError, GatewayError, Unavailable

Status = Annotated[int, Field(ge=400, le=599)]


class EchoOptions(BaseModel):
    """Checked when the backend is made."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    delay_ms: float = Field(default=0, ge=0)
    """Time before each token; 0: all tokens come at once."""
    first_delay_ms: float = Field(default=0, ge=0)
    """Time before the first token, beside its `delay_ms`."""
    fail: Literal["start", "always", "load"] | Status | None = None
    """`start`: never starts; `always`: 503 to every generation; a number: that status to every generation; `load`: no
    adapter can be loaded."""
    fail_after: int | None = Field(default=None, ge=0)
    """503 after so many tokens of every generation, when a stream has long begun."""
    load_ms: float = Field(default=0, ge=0)
    """Time to load an adapter. One answers as the base does, after the `says` of its adapter_config.json, or else its
    id: `support: hello`."""

    @classmethod
    def parse(cls, options: Mapping[str, Any], model: str) -> EchoOptions:
        """Raises ConfigError with every problem, each with its path."""
        try:
            return cls.model_validate(dict(options), strict=True)
        except ValidationError as error:
            lines = [
                f"models.{model}.options.{'.'.join(map(str, problem['loc'][:1]))}: {problem['msg']}"
                for problem in error.errors(include_url=False)
            ]
            raise ConfigError("\n".join(dict.fromkeys(lines))) from error

    def error(self) -> GatewayError | None:
        """What every generation is told instead of an answer."""
        if self.fail == "always":
            return Unavailable("the echo engine was told to fail")
        if isinstance(self.fail, int):
            kind = type("ToldToFail", (GatewayError,), {"status": self.fail, "code": "told_to_fail"})
            return kind(f"the echo engine was told to answer {self.fail}")
        return None
