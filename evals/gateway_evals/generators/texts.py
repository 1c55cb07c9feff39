"""Small tasks over texts that are drawn by seed: lists, extraction, formats, reasoning."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway_evals.generators.drawing import ANIMALS, CITIES, COLOURS, DAYS, MONTHS, NAMES, THINGS, checked, drawing
from gateway_evals.python_task import PythonTask

Row = dict[str, Any]
COMPLETION: Mapping[str, Any] = {
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "answer",
    "fewshot_split": "train",
    "num_fewshot": 3,
    "fewshot_config": {"sampler": "first_n"},
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 32},
    "filter_list": [{"name": "line", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
    "metric_list": [{"metric": "exact_match", "ignore_case": True}, {"metric": "f1"}],
    "metadata": {"version": 1},
}


def _task(name: str, one: Callable[[random.Random], Row], **changes: Any) -> PythonTask:
    def rows(size: int = 60, seed: int = 1) -> Mapping[str, Sequence[Row]]:
        draw, examples = drawing(name, seed), drawing(f"{name} examples", 0)
        return {"test": [one(draw) for _ in range(checked(size))], "train": [one(examples) for _ in range(6)]}

    return PythonTask({**COMPLETION, **changes}, rows)


def _list(draw: random.Random) -> Row:
    words = draw.sample(ANIMALS, draw.randint(3, 5))
    kind = draw.choice(["sorted", "last", "count", "reversed"])
    told = ", ".join(words)
    if kind == "sorted":
        return {"question": f"Write in alphabetical order: {told}", "answer": ", ".join(sorted(words)), "kind": kind}
    if kind == "reversed":
        return {"question": f"Write in reverse order: {told}", "answer": ", ".join(words[::-1]), "kind": kind}
    if kind == "last":
        return {"question": f"What is the last word of this list: {told}", "answer": words[-1], "kind": kind}
    return {"question": f"How many words has this list: {told}", "answer": str(len(words)), "kind": kind}


def lists() -> PythonTask:
    """Sort, reverse, count, pick the last."""
    return _task("lists", _list)


def _extraction(draw: random.Random) -> Row:
    name, other = draw.sample(NAMES, 2)
    city, number, thing = draw.choice(CITIES), draw.randint(3, 97), draw.choice(THINGS)
    day = draw.choice(DAYS)
    text = f"On {day}, {name} sold {number} {thing} to {other} in {city}."
    asked, answer = draw.choice(
        [
            ("Who sold something?", name),
            ("Who bought something?", other),
            ("In which city?", city),
            ("On which day?", day),
            (f"How many {thing}?", str(number)),
        ]
    )
    return {"question": f"{text} {asked}", "answer": answer, "asked": asked.split()[0]}


def extraction() -> PythonTask:
    """One fact out of a sentence."""
    return _task("extraction", _extraction)


def _format(draw: random.Random) -> Row:
    year, month, day = draw.randint(1950, 2049), draw.randint(1, 12), draw.randint(1, 28)
    name, number = draw.choice(NAMES), draw.randint(1, 99)
    kind = draw.choice(["date", "json", "upper", "money"])
    if kind == "date":
        return {"question": f"Write as YYYY-MM-DD: {MONTHS[month - 1]} {day}, {year}",
                "answer": f"{year}-{month:02}-{day:02}", "kind": kind}  # fmt: skip
    if kind == "json":
        return {"question": f"Write as JSON with the keys name and age: {name} is {number}.",
                "answer": f'{{"name": "{name}", "age": {number}}}', "kind": kind}  # fmt: skip
    if kind == "upper":
        return {"question": f"Write in capital letters: {name.lower()}", "answer": name.upper(), "kind": kind}
    return {"question": f"Write as dollars with two decimals: {number} dollars",
            "answer": f"${number}.00", "kind": kind}  # fmt: skip


def formats() -> PythonTask:
    """Dates, JSON, capitals, money: written as asked, to the letter."""
    return _task("formats", _format, metric_list=[{"metric": "exact_match"}])


def _reasoning(draw: random.Random) -> Row:
    first, second, third = draw.sample(NAMES, 3)
    kind = draw.choice(["taller", "left", "colour"])
    if kind == "taller":
        text = f"{first} is taller than {second}. {second} is taller than {third}. Who is the shortest?"
        right, wrong = third, [first, second]
    elif kind == "left":
        number, taken = draw.randint(5, 20), draw.randint(1, 4)
        text = f"{first} has {number} {draw.choice(THINGS)} and gives {taken} to {second}. How many are left?"
        right, wrong = str(number - taken), [str(number), str(number + taken)]
    else:
        shades = draw.sample(COLOURS, 3)
        text = (
            f"{first}'s box is {shades[0]}, {second}'s is {shades[1]} and {third}'s is {shades[2]}. "
            f"{first} and {second} swap their boxes. Which colour is {first}'s box now?"
        )
        right, wrong = shades[1], [shades[0], shades[2]]
    choices = [right, *wrong]
    draw.shuffle(choices)
    return {"question": text, "choices": choices, "answer": choices.index(right), "kind": kind}


def reasoning() -> PythonTask:
    """Two steps of thought, three choices."""
    return _task(
        "reasoning",
        _reasoning,
        output_type="multiple_choice",
        doc_to_choice="choices",
        filter_list=[],
        metric_list=[{"metric": "acc"}, {"metric": "brier_score"}, {"metric": "ece"}],
    )
