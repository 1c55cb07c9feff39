"""From a model's text to its answer, step by step, in lm-eval's spelling of filters. Says where no answer was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from gateway_evals.errors import SuiteError
from gateway_evals.suite import FilterSpec, FilterStep

Step = Callable[[str], str | None]
"""The text after the step, or None where it holds no answer."""

INVALID = "[invalid]"
"""What lm-eval puts in the place of an answer that was not found."""


class Chain:
    """Named steps in order."""

    def __init__(self, name: str, steps: Sequence[Step], fallback: str = INVALID) -> None:
        self.name = name
        self._steps = steps
        self._fallback = fallback

    def extract(self, text: str) -> tuple[str, bool]:
        """The answer and True, or the fallback and False."""
        current: str | None = text
        for step in self._steps:
            current = step(current)
            if current is None:
                return self._fallback, False
        return current, bool(current.strip())


def build_chain(spec: FilterSpec, where: str) -> Chain:
    """Raises SuiteError for steps and settings that do not exist. `where` is the task's YAML path."""
    fallback = INVALID
    steps: list[Step] = []
    for index, step in enumerate(spec.filter):
        place = f"{where}.filter_list ({spec.name}): filter[{index}]"
        build = _STEPS.get(step.function)
        if build is None:
            raise SuiteError(f"{place}.function: no filter {step.function!r}; there are: {', '.join(sorted(_STEPS))}")
        settings = step.settings
        if step.function == "regex":
            fallback = str(settings.pop("fallback", fallback))
        steps.append(build(step, settings, place))
        if settings:
            raise SuiteError(f"{place}: unknown setting {', '.join(settings)}")
    return Chain(spec.name, steps, fallback)


def _regex(step: FilterStep, settings: dict[str, Any], place: str) -> Step:
    group = settings.pop("group_select", 0)
    source = settings.pop("regex_pattern", r"#### (\-?[0-9\.\,]+)")
    try:
        pattern = re.compile(str(source))
    except re.error as error:
        raise SuiteError(f"{place}.regex_pattern: {error}") from error
    if not isinstance(group, int):
        raise SuiteError(f"{place}.group_select: expected which match counts, as a number (0: first, -1: last)")

    def find(text: str) -> str | None:
        matches: list[Any] = pattern.findall(text)
        if not -len(matches) <= group < len(matches):
            return None
        match = matches[group]
        if isinstance(match, tuple):
            parts = [part for part in cast("tuple[str, ...]", match) if part]
            return parts[0].strip() if parts else None
        return str(match).strip()

    return find


_STEPS: dict[str, Callable[[FilterStep, dict[str, Any], str], Step]] = {
    "regex": _regex,
    "remove_whitespace": lambda step, settings, place: str.strip,
    "lowercase": lambda step, settings, place: str.lower,
    "uppercase": lambda step, settings, place: str.upper,
    "take_first": lambda step, settings, place: str,
}
