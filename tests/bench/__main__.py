"""`python -m tests.bench`: measures, prints, writes JSON. Ends with 0 whatever the figures are: they are no test."""

from __future__ import annotations

import argparse
import signal
import sys
import traceback
from pathlib import Path

from rich.console import Console

from tests.bench import adapters, doors, engines, evals, footprint, surface
from tests.bench.figures import Figures

PARTS = ("doors", "engines", "surface", "footprint", "evals", "adapters")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part alone; may be repeated")
    parser.add_argument(
        "--rounds", type=int, default=9, help="short rounds of the doors, taken in turns; medians are shown"
    )
    parser.add_argument("--seconds", type=float, default=0.7, help="length of one measurement of a rate")
    parser.add_argument("--out", type=Path, default=Path("bench-results"), help="folder for the JSON file")
    arguments = parser.parse_args()
    # Whoever ends the run early ends what it started as well.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    console = Console(width=150 if not Console().is_terminal else None)
    figures = Figures()
    for part in arguments.only or PARTS:
        console.print(f"measuring {part} …")
        try:
            if part == "doors":
                doors.measure(figures, rounds=arguments.rounds, seconds=arguments.seconds)
            elif part == "engines":
                engines.measure(figures)
            elif part == "surface":
                surface.measure(figures)
            elif part == "evals":
                evals.measure(figures)
            elif part == "adapters":
                adapters.measure(figures)
            else:
                footprint.measure(figures)
        except Exception as error:
            # One part that cannot be measured here takes nothing from the others; it is told below the table.
            traceback.print_exc()
            figures.failed[part] = f"{type(error).__name__}: {error}"
    figures.print(console)
    console.print(f"written to {figures.write(arguments.out)}", soft_wrap=True)


if __name__ == "__main__":
    main()
