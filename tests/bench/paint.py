"""The playground as a browser meets it: how long until something is seen, and until one can write."""

from __future__ import annotations

from statistics import median

from tests.bench.figures import Figure, Figures
from tests.playground.driver import PlaygroundPage, chromium

FIRST_PAINT_S = 2.0
VISITS = 5


def measure(figures: Figures, playground_url: str) -> None:
    """Medians over visits by browsers that know nothing yet. The first, which warms the server, is left out."""
    painted: list[float] = []
    ready: list[float] = []
    with chromium() as browser:
        for _ in range(VISITS + 1):
            tab = PlaygroundPage.tab(browser, playground_url).open()
            entries = tab.page.evaluate(
                "Object.fromEntries(performance.getEntriesByType('paint').map(one => [one.name, one.startTime]))"
            )
            painted.append(entries["first-contentful-paint"] / 1000)
            ready.append(tab.page.evaluate("performance.now()") / 1000)
            tab.close()
    figures.add(
        Figure("playground", "first contentful paint", "s", median(painted[1:]), how="ours", target=FIRST_PAINT_S),
        Figure("playground", "models listed, one can write", "s", median(ready[1:]), how="ours"),
    )
