"""lm-eval's task format: what is read as there, what is refused. Scores: tests/endtoend/test_lm_eval.py."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gateway_evals.errors import SuiteError
from gateway_evals.fewshot import drawn
from gateway_evals.filters import build_chain
from gateway_evals.likelihood import windows
from gateway_evals.spec import FilterSpec, TaskSpec
from gateway_evals.suite_file import load_suite, python_suite
from gateway_evals.task import Task, build_tasks

ROWS = [{"q": f"q{n}", "a": f"a{n}"} for n in range(8)]
TASK: dict[str, Any] = {
    "task": "small",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "rows.jsonl", "train": "train.jsonl"}},
    "doc_to_text": "Q: {{q}}\nA:",
    "doc_to_target": "a",
}


def built(folder: Path, **changes: Any) -> Task:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "train.jsonl").write_text("".join(json.dumps({"q": f"t{n}", "a": f"b{n}"}) + "\n" for n in range(20)))
    path = folder / "task.yaml"
    path.write_text(json.dumps(TASK | changes))
    return build_tasks(load_suite(path))[0]


def test_examples_are_lm_evals_own_draws_for_the_same_seed() -> None:
    from lm_eval.api.samplers import ContextSampler, FirstNSampler

    train = [{"q": str(n)} for n in range(30)]
    for apart, pool in ((False, train), (True, ROWS)):
        theirs = ContextSampler(pool, rnd=1234)
        expected = [list(theirs.sample(3, eval_doc=row if apart else None)) for row in ROWS]
        ours = drawn(pool, ROWS, 3, seed=1234, first=False, apart=apart)
        assert [[pool[place] for place in places] for places in ours] == expected
    first = FirstNSampler(train)
    assert drawn(train, ROWS, 3, seed=1, first=True, apart=False) == [(0, 1, 2)] * 8
    assert first.sample(3) == train[:3]


def test_doubles_of_a_row_are_no_examples_for_it() -> None:
    from lm_eval.api.samplers import ContextSampler

    rows = [{"q": "same"}] * 4 + [{"q": str(n)} for n in range(3)]
    theirs = ContextSampler(rows, rnd=5)
    expected = [list(theirs.sample(3, eval_doc=row)) for row in rows]
    found = drawn(rows, rows, 3, seed=5, first=False, apart=True)
    assert [[rows[place] for place in places] for places in found] == expected
    assert all(rows[place] != row for row, places in zip(rows, found, strict=True) for place in places)


def test_fewshot_config_changes_examples_alone(tmp_path: Path) -> None:
    own = {"sampler": "first_n", "doc_to_text": "{{q}} is", "target_delimiter": " = ", "fewshot_delimiter": " | "}
    task = built(tmp_path, num_fewshot=2, fewshot_split="train", fewshot_config=own, description="D. ")
    assert task.sample(0).prompt == "D. t0 is = b0 | t1 is = b1 | Q: q0\nA:"
    fixed = built(tmp_path, num_fewshot=1, fewshot_config={"samples": [{"q": "x", "a": "y"}]})
    assert fixed.sample(3).prompt == "Q: x\nA: y\n\nQ: q3\nA:"


def test_chats_hold_examples_as_turns_or_in_one_message(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"num_fewshot": 1, "fewshot_config": {"samples": [{"q": "x", "a": "y"}]}}
    fields |= {"apply_chat_template": True, "description": "Be brief.", "system_instruction": "You are kind."}
    system = {"role": "system", "content": "You are kind.\n\nBe brief."}
    asked = {"role": "user", "content": "Q: q0\nA:"}
    turns = [system, {"role": "user", "content": "Q: x\nA:"}, {"role": "assistant", "content": "y"}, asked]
    assert list(built(tmp_path, **fields).sample(0).messages) == turns
    single = built(tmp_path, **fields, fewshot_as_multiturn=False).sample(0).messages
    assert list(single) == [system, {"role": "user", "content": "Q: x\nA: y\n\nQ: q0\nA:"}]
    begun = built(tmp_path, apply_chat_template=True, gen_prefix="It is").sample(0).messages
    assert list(begun) == [asked, {"role": "assistant", "content": "It is"}]


def test_includes_groups_tags_and_changed_tasks(tmp_path: Path) -> None:
    built(tmp_path)
    (tmp_path / "other.yaml").write_text("include: task.yaml\ntask: other\ntag: mine\nnum_fewshot: 1\n")
    (tmp_path / "broken.yaml").write_text("task: x\nprocess_docs: !function code.run\n")
    group = tmp_path / "group.yaml"
    group.write_text(
        "group: both\ntask: [mine, {task: small, num_fewshot: 2}]\n"
        "aggregate_metric_list: [{metric: exact_match, weight_by_size: false}]\nmetadata: {version: 1}\n"
    )
    suite = load_suite(group)
    assert (suite.suite, [(task.task, task.num_fewshot) for task in suite.tasks]) == (
        "both",
        [("other", 1), ("small", 2)],
    )
    assert not suite.aggregate_metric_list[0].weight_by_size
    (tmp_path / "task.yaml").write_text("include: other.yaml\n")
    with pytest.raises(SuiteError, match="includes this file again"):
        load_suite(tmp_path / "other.yaml")


# ruff: noqa: E501 (a table reads as one)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"process_results": "x"}, "process_results: unknown setting: write a scorer (register_scorers)"),
        ({"dataset_path": "gsm8k"}, "dataset_path: json and csv are read, from local files; a hub is not asked"),
        ({"fewshot_config": {"sampler": "balanced"}}, "fewshot_config.sampler"),
        ({"metric_list": [{"metric": "exact_match", "aggregation": "median"}]}, "'exact_match' knows mean, not 'median'"),
        ({"metric_list": [{"metric": "acc"}]}, "'acc' reads multiple_choice, loglikelihood, and the task's output_type"),
        ({"repeats": 3, "filter_list": [{"name": "all", "filter": [{"function": "lowercase"}]}]}, "end with take_first"),
        ({"dataset_kwargs": {"data_files": "rows.jsonl", "streaming": True}}, "dataset_kwargs.streaming: unknown setting"),
        ({"doc_to_messages": "q"}, "doc_to_messages: expected a list of messages"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    from gateway_evals.offers import Offers

    with pytest.raises(SuiteError) as caught:
        Offers().judge(built(tmp_path, **change))
    assert expected in caught.value.message


def test_filters_over_repeats() -> None:
    def answers(*steps: dict[str, Any]) -> list[tuple[str, bool]]:
        chain = build_chain(FilterSpec.model_validate({"name": "n", "filter": list(steps)}), "at", 4, many=True)
        return chain.extract_all(["I say B", "A it is", "none", "B"])

    letter = {"function": "regex", "regex_pattern": r"\b([AB])\b"}
    assert answers(letter) == [("B", True), ("A", True), ("[invalid]", False), ("B", True)]
    assert answers(letter, {"function": "majority_vote"}) == [("B", True)]
    assert answers(letter, {"function": "take_first_k", "k": 2}) == [("B", True), ("A", True)]
    mapped = {"function": "map", "mapping_dict": {"A": "yes", "B": "no"}}
    assert answers(letter, mapped, {"function": "take_first"}) == [("no", True)]


def test_windows_are_lm_evals() -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    for length in (1, 9, 10, 11, 35):
        tokens = [random.Random(length).randrange(99) for _ in range(length)]
        theirs = map(make_disjoint_window, get_rolling_token_windows(tokens, 7, max_seq_len=10, context_len=1))
        assert list(windows(tokens, 7, 10)) == [(list(context), list(part)) for context, part in theirs]


def test_python_tasks_come_by_name_and_are_the_same_for_the_same_seed() -> None:
    (one,) = build_tasks(python_suite("arithmetic"))
    (two,) = build_tasks(python_suite("arithmetic"))
    assert [one.sample(n).prompt for n in range(9)] == [two.sample(n).prompt for n in range(9)]
    with pytest.raises(SuiteError, match="no task 'wish'; there are: arithmetic"):
        python_suite("wish")


def test_python_tasks_refuse_unknown_keywords(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("tasks: [{python: lists, dataset_kwargs: {sise: 3}}]")
    with pytest.raises(SuiteError, match=r"tasks\[0\]\.dataset_kwargs: unknown setting sise; there are: size, seed"):
        load_suite(path)
    path.write_text("tasks: [{python: lists, dataset_kwargs: {size: 3, seed: 9}, num_fewshot: 0}]")
    assert build_tasks(load_suite(path))[0].count == 3
    path.write_text("tasks: [{python: lists, dataset_kwargs: {size: 0}}]")
    with pytest.raises(SuiteError, match="expected 1 to 100000, found 0"):
        build_tasks(load_suite(path))


def test_a_task_of_its_own_keeps_its_types() -> None:
    assert TaskSpec.model_validate(TASK).metrics[0].metric == "exact_match"
