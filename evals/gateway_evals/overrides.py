"""What a command line changes of a suite's tasks: few-shot, template, system prompt, generation, which tasks at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import yaml
from pydantic import ValidationError

from gateway_evals.errors import SuiteError
from gateway_evals.suite import Suite, TaskSpec


def change(suite: Suite, settings: Mapping[str, Any]) -> Suite:
    """The suite with `tasks`, `num_fewshot`, `apply_chat_template`, `system_instruction` and `gen_kwargs` applied.

    Raises SuiteError that says what there is.
    """
    tasks = _chosen(suite, settings.get("tasks"))
    return suite.model_copy(update={"tasks": [_changed(spec, settings) for spec in tasks]})


def _chosen(suite: Suite, names: Sequence[str] | None) -> list[TaskSpec]:
    if not names:
        return list(suite.tasks)
    there = {spec.task: spec for spec in suite.tasks}
    unknown = [name for name in names if name not in there]
    if unknown:
        raise SuiteError(f"suite {suite.suite} has no task {', '.join(unknown)}; there are: {', '.join(there)}")
    return [there[name] for name in dict.fromkeys(names)]


def _changed(spec: TaskSpec, settings: Mapping[str, Any]) -> TaskSpec:
    update: dict[str, Any] = {
        name: settings[name]
        for name in ("num_fewshot", "apply_chat_template", "system_instruction")
        if settings.get(name) is not None
    }
    if settings.get("gen_kwargs"):
        given = {**spec.generation_kwargs.model_dump(exclude_unset=True), **settings["gen_kwargs"]}
        try:
            update["generation_kwargs"] = type(spec.generation_kwargs).model_validate(given)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_url=False)]
            raise SuiteError("\n".join(f"--gen_kwargs: {line}" for line in lines)) from error
    return spec.model_copy(update=update)


def parse_gen_kwargs(text: str) -> dict[str, Any]:
    """`temperature=0.7,max_gen_toks=64` or a JSON object. Raises ValueError."""
    if text.lstrip().startswith("{"):
        found: Any = yaml.safe_load(text)
        return cast("dict[str, Any]", found)
    settings: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{part!r} is no setting: expected temperature=0.7,max_gen_toks=64 or a JSON object")
        settings[name.strip()] = yaml.safe_load(value)
    return settings
