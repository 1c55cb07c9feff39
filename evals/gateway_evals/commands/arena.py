"""`gateway eval arena`: which of several models a judge prefers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway_evals.commands import options as option
from gateway_evals.commands.shared import AsJson, console, errors, print_json

if TYPE_CHECKING:
    from gateway.arena.strength import Strength


def arena(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Runs' ids, RUN:MODEL, results files, folders or models.")
    ],
    judge: Annotated[str, typer.Option("--judge", help="A served model that compares answers.")],
    base_url: option.BaseUrl = "http://127.0.0.1:8000",
    api_key: option.ApiKey = None,
    output: option.Output = Path("results"),
    questions: Annotated[
        int | None, typer.Option("--questions", min=1, help="The first so many of each task.", show_default="all")
    ] = None,
    guided: Annotated[
        bool, typer.Option("--guided", help="The judge can say nothing but a verdict: also a small one is read then.")
    ] = False,
    seed: option.Seed = 1234,
    as_json: AsJson = False,
) -> None:
    """Let a served model judge answers of finished runs, each pair in both orders; rank by Bradley-Terry."""
    import asyncio

    from gateway_evals.arena import Arena, battle
    from gateway_evals.checks.judge import JudgeSettings
    from gateway_evals.client import GatewayClient
    from gateway_evals.saved import find_result

    async def whole() -> Arena:
        results = [find_result(reference, output) for reference in runs]
        async with GatewayClient(base_url, api_key) as client:
            return await battle(client, results, JudgeSettings(model=judge, guided=guided), limit=questions, seed=seed)

    with errors(as_json):
        found = asyncio.run(whole())
        counts = {"judged": found.judged, "agreement": found.agreement, "unreadable": found.unreadable,
                  "failed": found.failed}  # fmt: skip
        if as_json:
            rows = [{"model": each.name, "rating": each.rating, "low": each.low, "high": each.high, "wins": each.wins,
                     "losses": each.losses, "ties": each.ties} for each in found.ranking]  # fmt: skip
            print_json({**counts, "ranking": rows})
            return
        from gateway.console import table

        table(
            f"judged by {judge}",
            ["model", "rating", "95 %", "wins", "losses", "ties"],
            [
                [each.name, f"{each.rating:.0f}", f"{each.low:.0f} to {each.high:.0f}", *map(str, _counts(each))]
                for each in found.ranking
            ],
        )
        agreement = "–" if found.agreement is None else f"{found.agreement:.0%}"
        console().print(
            f"{found.judged} pairs, both orders agree in {agreement}; {found.unreadable} verdicts could not be read, "
            f"{found.failed} failed",
            soft_wrap=True,
        )


def _counts(strength: Strength) -> tuple[int, int, int]:
    return strength.wins, strength.losses, strength.ties
