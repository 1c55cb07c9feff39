from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway_evals.errors import SuiteError
from gateway_evals.likelihood import boundary
from gateway_evals.prompt import doc_to_choice, doc_to_target, target_choice
from gateway_evals.suite import Suite, TaskSpec
from gateway_evals.task import Task, build_tasks


def spec(**changes: Any) -> TaskSpec:
    fields = {
        "task": "t",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": "rows.jsonl"},
        "doc_to_text": "Q: {{q}}\nA:",
        "doc_to_target": "a",
    }
    return TaskSpec.model_validate(fields | changes)


def choice_spec(**changes: Any) -> TaskSpec:
    return spec(output_type="multiple_choice", **({"doc_to_choice": "c"} | changes))


def built(folder: Path, of: TaskSpec, rows: int, **options: Any) -> Task:
    (folder / "rows.jsonl").write_text("".join(f'{{"q": "q{n}", "a": "a{n}"}}\n' for n in range(rows)))
    placed = of.model_copy(update={"folder": folder})
    return build_tasks(Suite(suite="s", tasks=[placed]), **options)[0]


def test_few_shot_examples_never_hold_the_row_itself_and_depend_on_nothing_but_row_and_seed(tmp_path: Path) -> None:
    task = built(tmp_path, spec(num_fewshot=2, description="D\n"), 6)
    prompts = [sample.prompt for sample in task.samples()]
    for number, prompt in enumerate(prompts):
        assert prompt.startswith("D\nQ: ")
        assert prompt.count(f"q{number}\n") == 1
        assert prompt.count("\n\n") == 2
        assert prompt.endswith(f"Q: q{number}\nA:")
    assert [
        sample.prompt for sample in built(tmp_path, spec(num_fewshot=2, description="D\n"), 6, limit=3).samples()
    ] == prompts[:3]
    assert [
        sample.prompt for sample in built(tmp_path, spec(num_fewshot=2, description="D\n"), 6, seed=2).samples()
    ] != prompts


@pytest.mark.parametrize(("limit", "count"), [(None, 10), (3, 3), (0.25, 2), (0.01, 1), (99, 10)])
def test_limits(tmp_path: Path, limit: float | None, count: int) -> None:
    assert built(tmp_path, spec(), 10, limit=limit).count == count


def test_the_right_choice_is_found_as_lm_eval_finds_it() -> None:
    choices = ["10", "3", "x"]
    assert target_choice(choice_spec(), {"a": 2}, choices, "") == 2
    assert target_choice(choice_spec(), {"a": "3"}, choices, "") == 1, "a column's text is a choice"
    assert target_choice(choice_spec(doc_to_target="{{a}}"), {"a": "2"}, choices, "") == 2, (
        "a template's digits are an index"
    )
    assert target_choice(choice_spec(doc_to_target=1), {}, choices, "") == 1
    for wrong in (3, -1, "y", None):
        with pytest.raises(SuiteError, match=r"at\.doc_to_target"):
            target_choice(choice_spec(), {"a": wrong}, choices, "at")


def test_choices_come_from_a_column_a_list_or_a_template() -> None:
    assert doc_to_choice(choice_spec(), {"c": ["a", "b"]}, "") == ["a", "b"]
    assert doc_to_choice(choice_spec(doc_to_choice=["no", "yes"]), {}, "") == ["no", "yes"]
    assert doc_to_choice(choice_spec(doc_to_choice="{{[x, 'z']}}"), {"x": "y"}, "") == ["y", "z"]
    for wrong in ("one", ["one"], ["a", ""]):
        with pytest.raises(SuiteError, match=r"at\.doc_to_choice"):
            doc_to_choice(choice_spec(), {"c": wrong}, "at")


def test_targets_may_be_many() -> None:
    assert doc_to_target(spec(), {"a": ["7", "seven"]}, "") == ["7", "seven"]
    assert doc_to_target(spec(), {"a": "['7', 'seven']"}, "") == ["7", "seven"]
    assert doc_to_target(spec(), {"a": 7}, "") == ["7"]


def test_blanks_move_from_the_context_to_the_continuation() -> None:
    assert boundary("Answer: \n", ["yes", "no"]) == ("Answer:", [" \nyes", " \nno"])
    assert boundary("Answer:", [" yes"]) == ("Answer:", [" yes"])


def test_csv_and_splits(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('q,a\n"one, two",1\n')
    (tmp_path / "test.csv").write_text("q,a\nthree,2\n")
    files = {"data_files": {"train": "train.csv", "test": "test.csv"}}
    made = spec(dataset_path="csv", dataset_kwargs=files, fewshot_split="train", num_fewshot=1, doc_to_text="q")
    suite = Suite(suite="s", tasks=[made.model_copy(update={"folder": tmp_path})])
    (task,) = build_tasks(suite)
    assert task.sample(0).prompt == "one, two 1\n\nthree"
