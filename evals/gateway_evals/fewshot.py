"""Which examples stand before each row's question: lm-eval's own draws for the same seed. Knows no template."""

from __future__ import annotations

import random
from collections.abc import Sequence

from gateway_evals.prompt import Row


def drawn(
    pool: Sequence[Row], rows: Sequence[Row], wanted: int, *, seed: int, first: bool, apart: bool
) -> list[tuple[int, ...]]:
    """Places in `pool` for each of `rows`, in order.

    One generator goes through all rows, as in lm-eval, so that the same seed gives the same examples; all draws are
    made at once, so that a limit or another order changes none of them. `first`: the first ones instead. `apart`: the
    pool is what is asked, so no row may see itself (nor its double). Raises ValueError where doubles leave too few.
    """
    if not wanted:
        return [()] * len(rows)
    generator = random.Random(seed)  # noqa: S311 (no secret)
    places = range(len(pool))
    found: list[tuple[int, ...]] = []
    for row in rows:
        if first:
            others = (place for place in places if not apart or pool[place] != row)
            found.append(tuple(place for place, _ in zip(others, range(wanted), strict=False)))
            continue
        draw = generator.sample(places, wanted + 1 if apart else wanted)
        if apart:
            draw = [place for place in draw if pool[place] != row][:wanted]
            if len(draw) < wanted:
                draw = generator.sample([place for place in places if pool[place] != row], wanted)
        found.append(tuple(draw))
    return found
