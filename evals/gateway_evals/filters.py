"""From a model's texts to its answers, step by step, in lm-eval's spelling. Says where no answer was found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from gateway_evals.errors import SuiteError
from gateway_evals.spec import FilterSpec, FilterStep

Found = tuple[str, bool]
"""A text, and False where a step found no answer in it. Later steps see what stands in its place, as in lm-eval."""

Step = Callable[[list[Found]], list[Found]]
"""All answers to one sample: one, or as many as the task repeats."""

INVALID = "[invalid]"
"""What lm-eval puts in the place of an answer that was not found."""


class Chain:
    """Named steps in order."""

    def __init__(self, name: str, steps: Sequence[Step]) -> None:
        self.name = name
        self._steps = steps

    def extract(self, text: str) -> Found:
        """The answer and True, or what stands in its place and False."""
        return self.extract_all([text])[0]

    def extract_all(self, texts: Sequence[str]) -> list[Found]:
        """Of several answers to one sample: those that the steps leave, at least one."""
        current: list[Found] = [(text, True) for text in texts]
        for step in self._steps:
            current = step(current)
        return [(text, found and bool(text.strip())) for text, found in current]


PLAIN = FilterSpec.model_validate({"name": "none", "filter": [{"function": "take_first"}]})
"""What happens without a `filter_list`: the first answer, as it came."""


def build_chain(spec: FilterSpec, where: str, repeats: int = 1, *, many: bool = False) -> Chain:
    """Raises SuiteError for steps and settings that do not exist, and where more than one of `repeats` answers is left
    although not `many`. `where` is the task's YAML path."""
    steps: list[Step] = []
    left = repeats
    for index, step in enumerate(spec.filter):
        place = f"{where}.filter_list ({spec.name}): filter[{index}]"
        build = _STEPS.get(step.function)
        if build is None:
            raise SuiteError(f"{place}.function: no filter {step.function!r}; there are: {', '.join(sorted(_STEPS))}")
        settings = step.settings
        if step.function == "take_first_k":
            left = min(left, _wanted(settings, left, place))
        elif step.function in {"take_first", "majority_vote"}:
            left = 1
        steps.append(build(step, settings, place))
        if settings:
            raise SuiteError(f"{place}: unknown setting {', '.join(settings)}")
    if left > 1 and not many:
        raise SuiteError(
            f"{where}.filter_list ({spec.name}): {left} answers are left of {repeats} repeats: end with take_first or "
            "majority_vote, or measure pass_at_k"
        )
    return Chain(spec.name, steps)


def _wanted(settings: dict[str, Any], left: int, place: str) -> int:
    wanted = settings.get("k")
    if not isinstance(wanted, int) or not 1 <= wanted <= left:
        raise SuiteError(f"{place}.k: expected a number from 1 to the {left} answers there are (see repeats)")
    return wanted


def _regex(step: FilterStep, settings: dict[str, Any], place: str) -> Step:
    group = settings.pop("group_select", 0)
    fallback = str(settings.pop("fallback", INVALID))
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

    def each(answer: Found) -> Found:
        text = find(answer[0])
        return (fallback, False) if text is None else (text, answer[1])

    return lambda answers: [each(answer) for answer in answers]


def _map(step: FilterStep, settings: dict[str, Any], place: str) -> Step:
    mapping = settings.pop("mapping_dict", {})
    default = settings.pop("default_value", None)
    if not isinstance(mapping, dict):
        raise SuiteError(f"{place}.mapping_dict: expected a mapping from texts to texts")
    texts = {str(key): str(value) for key, value in cast("dict[Any, Any]", mapping).items()}

    def each(answer: Found) -> Found:
        if answer[0] in texts:
            return texts[answer[0]], answer[1]
        return (INVALID, False) if default is None else (str(default), answer[1])

    return lambda answers: [each(answer) for answer in answers]


def _take_first_k(step: FilterStep, settings: dict[str, Any], place: str) -> Step:
    wanted: int = settings.pop("k")
    return lambda answers: answers[:wanted]


def _majority(answers: list[Found]) -> list[Found]:
    """The text that came most often; the earliest among equals."""
    most = Counter(text for text, _ in answers).most_common(1)[0][0]
    return [next(answer for answer in answers if answer[0] == most)]


def _texts(change: Callable[[str], str]) -> Callable[[FilterStep, dict[str, Any], str], Step]:
    return lambda step, settings, place: lambda answers: [(change(text), found) for text, found in answers]


_STEPS: dict[str, Callable[[FilterStep, dict[str, Any], str], Step]] = {
    "regex": _regex,
    "map": _map,
    "remove_whitespace": _texts(str.strip),
    "lowercase": _texts(str.lower),
    "uppercase": _texts(str.upper),
    "take_first": lambda step, settings, place: lambda answers: answers[:1],
    "take_first_k": _take_first_k,
    "majority_vote": lambda step, settings, place: _majority,
}
