"""Every sample of every model in a table of columns, packed for a page: JSON, gzip, base64. Nothing in it is markup."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from typing import Any, cast

from gateway_evals.front import primary
from gateway_evals.saved import SavedTask

LONGEST = 20_000
"""Characters of one text that the page holds; the samples file has all of it."""

RIGHT, PARTLY, WRONG, NOT_EXTRACTED, FAILED, SCORED, NOT_ASKED = "r", "p", "w", "u", "f", "s", "-"


class Samples:
    """Rows are questions; each model has its columns. Filled one line of a samples file at a time."""

    def __init__(self, models: list[str]) -> None:
        self._models = models
        self._tasks: dict[str, dict[str, str]] = {}
        self._places: dict[tuple[str, int], int] = {}
        self._task: list[int] = []
        self._doc: list[int] = []
        self._question: list[str] = []
        self._target: list[str] = []
        self._said: list[dict[int, dict[str, Any]]] = [{} for _ in models]

    def __len__(self) -> int:
        return len(self._doc)

    def add(self, task: SavedTask, model: int, row: Mapping[str, Any]) -> None:
        """One line: what one model said to one question, as one of the task's filters sees it."""
        place = self._place(task, row)
        told: Mapping[str, Any] = row["gateway"]
        values = {f"{metric}": row[metric] for metric in row.get("metrics", ())}
        said = self._said[model].get(place)
        if said is None:
            figure = primary(task)
            judged = figure.metric if figure is not None else ""
            said = self._said[model][place] = {
                "s": _status(told, values, judged),
                "a": _cut(_answer(row)) if "error" not in told else "",
                "e": _cut(str(told["error"])) if "error" in told else "",
                "l": told.get("latency_s"),
                "n": told.get("completion_tokens"),
                "d": str(told.get("finish_reason") or ""),
                "v": [],
            }
        if "error" not in told:
            said["v"].append([row["filter"], _cut(_extracted(row)), told.get("extracted", True), values])

    def _place(self, task: SavedTask, row: Mapping[str, Any]) -> int:
        key = (task.name, int(row["doc_id"]))
        place = self._places.get(key)
        question = _question(row)
        if place is None:
            place = self._places[key] = len(self._doc)
            self._tasks.setdefault(task.name, {"name": task.name, "title": task.alias})
            self._task.append(list(self._tasks).index(task.name))
            self._doc.append(int(row["doc_id"]))
            self._question.append(_cut(question))
            self._target.append(_cut(str(row.get("target", ""))))
        elif not self._question[place]:
            self._question[place] = _cut(question)
        return place

    def packed(self) -> str:
        """Base64 of gzip of JSON."""
        count = len(self._doc)
        models = [
            {
                "status": "".join(said[place]["s"] if place in said else NOT_ASKED for place in range(count)),
                "answer": [said[place]["a"] if place in said else "" for place in range(count)],
                # What only the panel shows stays together by sample.
                "more": [
                    [said[place][key] for key in ("e", "l", "n", "d", "v")] if place in said else 0
                    for place in range(count)
                ],
            }
            for said in self._said
        ]
        table = {
            "models": self._models,
            "tasks": list(self._tasks.values()),
            "task": self._task,
            "doc": self._doc,
            "question": self._question,
            "target": self._target,
            "said": models,
        }
        text = json.dumps(table, ensure_ascii=False, separators=(",", ":"), default=str)
        # No time in it: the same run gives the same file.
        return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _status(told: Mapping[str, Any], values: Mapping[str, Any], judged: str) -> str:
    if "error" in told:
        return FAILED
    if not told.get("extracted", True):
        return NOT_EXTRACTED
    value = values.get(judged)
    if value is None:
        return SCORED
    return RIGHT if value >= 1 else WRONG if value <= 0 else PARTLY


def _question(row: Mapping[str, Any]) -> str:
    """The prompt; for a sample that failed, its row of data."""
    arguments = cast("dict[str, dict[str, Any]]", row.get("arguments") or {})
    first = arguments.get("gen_args_0")
    if first is None:
        return "" if not row.get("doc") else _text(row["doc"])
    asked = first.get("arg_0", "")
    return _conversation(cast("list[Any]", asked)) if isinstance(asked, list) else _text(asked)


def _conversation(messages: list[Any]) -> str:
    """What was said, and by whom where the user was not alone."""
    told = [cast("dict[str, Any]", each) for each in messages if isinstance(each, dict)]
    if len(told) != len(messages) or not all(isinstance(each.get("content"), str) for each in told):
        return _text(messages)
    if len(told) == 1:
        return str(told[0]["content"])
    return "\n\n".join(f"{each.get('role')}: {each['content']}" for each in told)


def _answer(row: Mapping[str, Any]) -> str:
    """What the model said: its text, or the choice it gave the highest likelihood, and the likelihoods of all."""
    responses = cast("list[Any]", row.get("resps") or [])
    if not responses:
        return ""
    if not _is_likelihood(responses[0]):
        repeats = [cast("list[Any]", each) if isinstance(each, list) else [each] for each in responses]
        return "\n\n".join(_text(part) for parts in repeats for part in parts)
    choices = [_text(argument.get("arg_1", "")).strip() for argument in row["arguments"].values()]
    if len(choices) == 1:
        return f"log-likelihood {responses[0][0][0]}"
    chosen = cast("dict[str, Any]", row["gateway"].get("answers") or {}).get("answer")
    lines = [
        f"{'→' if place == chosen else '  '} {float(response[0][0]):.2f}  {choice}"
        for place, (choice, response) in enumerate(zip(choices, responses, strict=False))
    ]
    return "\n".join(lines)


def _is_likelihood(response: Any) -> bool:
    """`[["-1.5", "True"]]`, as lm-eval writes them."""
    if not isinstance(response, list) or not response or not isinstance(response[0], list):
        return False
    parts = cast("list[Any]", response[0])
    return len(parts) == 2 and str(parts[1]) in ("True", "False")


def _extracted(row: Mapping[str, Any]) -> str:
    found = cast("list[Any]", row.get("filtered_resps") or [])
    return _text(found[0]) if len(found) == 1 else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n… ({len(text) - LONGEST} more characters in the samples file)"
