"""Runs the checks: models beside each other, and as many of a model's checks as are wanted. Knows no output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.errors import ConfigError
from gateway.testing.conformance import (
    batches,
    chat,
    completions,
    failures,
    guided,
    messages,
    responses,
    sampling,
    scoring,
    tokens,
    tools,
)
from gateway.testing.conformance.check import Check, Result
from gateway.testing.served import Served

GROUPS = (
    chat.GROUP,
    completions.GROUP,
    sampling.GROUP,
    scoring.GROUP,
    tokens.GROUP,
    tools.GROUP,
    guided.GROUP,
    responses.GROUP,
    messages.GROUP,
    batches.GROUP,
    failures.GROUP,
)
"""All there is, in the order of the table."""


def choose(only: Sequence[str] = ()) -> list[Check]:
    """The checks of these groups, or of these names; all of them where none is named. Raises ConfigError."""
    checks = [check for group in GROUPS for check in group.checks]
    known = {group.name for group in GROUPS} | {check.name for check in checks}
    if unknown := [name for name in only if name not in known]:
        groups = ", ".join(group.name for group in GROUPS)
        raise ConfigError(f"no group or check {', '.join(unknown)}; groups are: {groups}")
    return [check for check in checks if not only or check.group in only or check.name in only]


async def run(
    models: Sequence[Served],
    checks: Sequence[Check],
    done: Callable[[str, Result], None] | None = None,
    at_once: int = 1,
) -> dict[str, list[Result]]:
    """All checks on all models. `done(model, result)` is told of each. Results are in the checks' order.

    `at_once`: checks under way on each model. With more than one, a server whose greedy answers depend on what it
    computes beside them fails checks that it passes otherwise.
    """

    async def one(served: Served) -> list[Result]:
        room = asyncio.Semaphore(at_once)

        async def tried(check: Check) -> Result:
            async with room:
                result = await check(served)
            if done is not None:
                done(served.model, result)
            return result

        return await asyncio.gather(*map(tried, checks))

    found = await asyncio.gather(*(one(served) for served in models))
    return {served.model: results for served, results in zip(models, found, strict=True)}
