"""`gateway eval validate`: every error of a suite, without a gateway."""

from __future__ import annotations

from gateway_evals.commands.shared import AsJson, SuiteArgument, console, errors, find_suite, print_json


def validate(suite: SuiteArgument, as_json: AsJson = False) -> None:
    """Find every error of a suite, its data, templates, metrics and scorers, without a gateway."""
    from gateway_evals.evaluation import EvaluationPlan, prepare

    with errors(as_json):
        loaded = find_suite(suite, as_json)
        tasks = prepare(EvaluationPlan(loaded, ()))
        if as_json:
            print_json({"ok": True, "tasks": {task.name: task.count for task, _ in tasks}})
            return
        counts = ", ".join(f"{task.name} ({task.count})" for task, _ in tasks)
        console().print(f"[green]✓[/] {loaded.suite}: {counts}", soft_wrap=True)
