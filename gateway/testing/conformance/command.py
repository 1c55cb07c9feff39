"""`gateway conformance`: connects, runs, shows. Imported when the command runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from gateway import console
from gateway.testing.conformance import report
from gateway.testing.conformance.check import Check, Result
from gateway.testing.conformance.run import choose, run
from gateway.testing.served import connect, find


def conformance(
    url: str, models: Sequence[str], api_key: str, only: Sequence[str], at_once: int, *, as_json: bool, markdown: bool
) -> bool:
    """Check a running server and print what was found. Returns whether nothing failed. Raises ConfigError."""
    results = asyncio.run(_check(url, models, api_key, choose(only), at_once))
    if as_json:
        console.print_json(report.as_json(results))
    elif markdown:
        sys.stdout.write(report.markdown(results))
    else:
        report.show(results)
    return not report.failed(results)


async def _check(
    url: str, names: Sequence[str], api_key: str, checks: Sequence[Check], at_once: int
) -> dict[str, list[Result]]:
    async with connect(url, api_key) as http:
        found = await find(http, url, names)
        with console.progress() as bars:
            tasks = {served.model: bars.add_task(served.model, total=len(checks), note="") for served in found}
            return await run(
                found, checks, lambda model, result: bars.update(tasks[model], advance=1, note=result.name), at_once
            )
