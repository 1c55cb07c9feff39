"""How an adapter is trained: what the command line may say, checked at once. Knows no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from gateway.errors import ConfigError

Module = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]


class TrainingOptions(BaseModel):
    """One training. Two with the same options, data and base, on one machine, make the same adapter."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    rank: int = Field(default=8, ge=1, le=512)
    alpha: int | None = Field(default=None, ge=1)
    """The adapter's weight is alpha / rank; default: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of an adapter's inputs that is left out in each step."""
    targets: tuple[Module, ...] = ()
    """Names of linear layers that get an adapter (`q_proj`); default: all but the head."""
    last_layers: int | None = Field(default=None, ge=1)
    """Adapters in the last so many layers only: nothing below them is differentiated, which saves time."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    """The highest: it rises over the first tenth of all steps and falls to zero with the last."""
    weight_decay: float = Field(default=0.0, ge=0, lt=1)
    batch_size: int = Field(default=8, ge=1, le=4096)
    """Rows of one step."""
    epochs: float = Field(default=3, gt=0, le=1000)
    """How often every row is seen."""
    max_steps: int | None = Field(default=None, ge=1)
    """At most so many steps, however many epochs that is."""
    max_length: int = Field(default=1024, ge=8)
    """Longest row in tokens; a longer one is a bad row: cut, it would teach an end that is none."""
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows that is kept apart to measure on, where no file for that is named."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between two looks at the validation rows; default: a tenth of all steps."""
    patience: int = Field(default=3, ge=1)
    """Training ends after so many looks without a smaller validation loss; the best adapter is what is kept."""
    checkpoint_every: int = Field(default=20, ge=1)
    """Steps between two checkpoints: what a kill costs at most."""
    max_bad: float = Field(default=0.05, ge=0, le=1)
    """Share of bad rows beyond which nothing is trained."""
    as_chat: bool = False
    """Rows of prompt and completion are a user's message and its answer, not plain text."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the base's weights while training; auto: float32 on a CPU, bfloat16 on a GPU."""
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def scale(self) -> int:
        return self.alpha if self.alpha is not None else 2 * self.rank

    def steps(self, rows: int) -> int:
        """How many steps there are at most for so many rows."""
        a_round = -(-rows // self.batch_size)
        steps = max(1, round(a_round * self.epochs))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def look_every(self, steps: int) -> int:
        return self.evaluate_every or max(1, steps // 10)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of one step, counted from 0."""
        rise = max(1, steps // 10)
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        return self.learning_rate * (steps - step) / max(1, steps - rise)


def read_options(**given: object) -> TrainingOptions:
    """What was said on the command line; None is not said. Raises ConfigError that names each option."""
    try:
        return TrainingOptions.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        lines = [f"--{str(each['loc'][0]).replace('_', '-')}: {each['msg']}" for each in error.errors()]
        raise ConfigError("\n".join(lines)) from error
