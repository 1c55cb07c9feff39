"""Which prompts, or pieces of them, are computed next: a pure choice over rows. Knows no model and no thread."""

from __future__ import annotations

from collections.abc import Sequence

from gateway_torch.row import Row


def pick(rows: Sequence[Row], budget: int, *, oldest: bool) -> tuple[list[Row], int]:
    """Rows to be computed side by side, and how many tokens of each at most: their product stays within `budget`.

    The oldest leads, or where `oldest` is false the one with the least left; the scheduler takes turns, so that neither
    a long prompt keeps short ones waiting nor the other way round. Those that cost least beside the leader come along.
    Prompts to be scored need other logits than those to be continued: only one kind is computed at a time.
    """
    leader = min(rows, key=lambda row: row.arrival if oldest else row.pending)
    picked, width = [leader], min(leader.pending, budget)
    alike = [row for row in rows if row is not leader and row.scored == leader.scored]
    for row in sorted(alike, key=lambda row: row.pending):
        wider = max(width, row.pending)
        if (len(picked) + 1) * wider > budget:
            break
        picked.append(row)
        width = wider
    return picked, width
