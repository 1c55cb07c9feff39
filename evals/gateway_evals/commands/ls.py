"""`gateway eval ls`: the suites that ship with this package."""

from __future__ import annotations

from gateway_evals.commands.shared import AsJson, print_json


def list_suites(as_json: AsJson = False) -> None:
    """List the suites that ship with this package."""
    from gateway_evals import catalog

    found = catalog.listing()
    if as_json:
        rows = [
            {
                "name": each.name,
                "path": str(each.path),
                "tasks": [task.task for task in each.suite.tasks] if each.suite else [],
                "description": each.suite.description if each.suite else "",
                "licence": each.suite.licence if each.suite else "",
                "questions": each.suite.questions if each.suite else None,
                "minutes": each.suite.minutes if each.suite else None,
                "known": each.suite.known if each.suite else {},
                "error": each.problem or None,
            }
            for each in found
        ]
        print_json(rows)
        return
    from gateway.console import table

    table(
        "",
        ["suite", "tasks", "questions", "minutes", "licence", "about"],
        [
            [
                each.name,
                ", ".join(task.task for task in each.suite.tasks),
                str(each.suite.questions or ""),
                f"{each.suite.minutes:g}" if each.suite.minutes else "",
                each.suite.licence,
                each.suite.description,
            ]
            if each.suite
            else [each.name, "", "", "", "", f"cannot be read: {each.problem.splitlines()[0]}"]
            for each in found
        ],
    )
