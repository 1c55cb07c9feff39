"""What the tabs know without a page: test cases out of conversations, rates out of counters, tables, and plots."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gateway_playground.tabs.adapters import facts
from gateway_playground.tabs.evaluations import cases, views
from gateway_playground.tabs.operations import plots, tables
from gateway_playground.tabs.operations.rates import KEPT, History

HOSTILE = "<script>alert(1)</script>"
CHAT = {
    "id": "c", "title": "t",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "two?"}]},
        {"role": "assistant", "content": "2", "target": "m"},
        {"role": "user", "content": "three?"},
    ],
}  # fmt: skip


def test_a_conversation_is_a_list_of_questions_with_their_answers() -> None:
    found = cases.exchanges(CHAT)
    assert [(one.question, one.answer, one.earlier) for one in found] == [
        ("one?", "1", 0), ("two?", "2", 1), ("three?", "", 2),
    ]  # fmt: skip
    assert cases.read(json.dumps(CHAT["messages"])) == found
    assert cases.read(json.dumps({"conversations": [CHAT, CHAT]})) == [*found, *found]
    assert cases.read(json.dumps([CHAT])) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{}", "no question"),
        ("3", "no question"),
        ('{"messages": [1, {"role": "assistant", "content": "x"}]}', "no question"),
        ("[" * 100000, "nested too deeply"),
        ('"' + "x" * 2_000_001, "longer than"),
    ],
)
def test_what_is_no_conversation_says_what_it_should_be(text: str, says: str) -> None:
    with pytest.raises(cases.ConversationProblem) as problem:
        cases.read(text)
    assert says in str(problem.value)


def status(at: float, **counters: float) -> dict[str, Any]:
    totals = {"requests": 0, "failed": 0, "completion_tokens": 0, "streams": 0, "first_token_s": 0.0, **counters}
    model = {
        "id": "m", "state": "up", "backend": "echo", "in_flight": 3, "generating": 2, "totals": totals,
        "replicas": [
            {"id": "r", "uptime_s": 5.0, "in_flight": 3, "limit": None, "generating": 2, "memory_bytes": 2**30}
        ],
        "replica_states": {"running": 1},
    }  # fmt: skip
    return {
        "status": "ok", "version": "1", "uptime_s": 100.0, "time": at, "models": [model], "errors": [],
        "gateway": {"in_flight": 2, "replicas": []}, "routes": [], "apps": [],
    }  # fmt: skip


def test_rates_are_what_changed_between_two_looks() -> None:
    history = History()
    history.add(status(100.0, requests=50, completion_tokens=1000, streams=5, first_token_s=1.0))
    assert list(history.points) == []
    history.add(status(102.0, requests=54, failed=1, completion_tokens=1100, streams=7, first_token_s=1.5))
    # The same page again is no look of its own.
    history.add(status(102.0, requests=54))
    (point,) = history.points
    assert (point.requests_per_s, point.failed_per_s, point.tokens_per_s) == (2.0, 0.5, 50.0)
    assert (point.first_token_s, point.in_flight) == (0.25, 3)
    history.add(status(104.0, requests=54, completion_tokens=1100, streams=7, first_token_s=1.5))
    assert history.points[-1].first_token_s is None
    # A replica that went took its counters along.
    history.add(status(106.0, requests=4))
    assert history.points[-1].requests_per_s == 0
    assert list(copy.deepcopy(history).points) == []
    for second in range(500):
        history.add(status(200.0 + second))
    assert len(history.points) == KEPT


def test_a_plot_says_in_words_what_it_shows_and_breaks_where_nothing_is_known() -> None:
    drawn = plots.line("Speed <b>", [1.0, None, 3.0, 2.0], lambda value: f"{value:.0f}/s", points=10)
    assert 'aria-label="Speed &lt;b&gt;: now 2/s, highest 3/s in view"' in drawn
    assert drawn.count("<polyline") == 2
    assert "<b>" not in drawn.replace("<b>2/s</b>", "")
    empty = plots.line("Speed", [], str, points=10)
    assert "nothing yet" in empty
    assert "<polyline" not in empty
    assert "<polyline" in plots.line("Speed", [0.0, 0.0], str, points=10)


def test_nothing_from_the_gateway_becomes_markup() -> None:
    seen = status(100.0)
    seen["models"][0] |= {"id": HOSTILE, "message": HOSTILE, "backend": HOSTILE, "state": HOSTILE}
    seen["models"][0]["replicas"][0]["id"] = HOSTILE
    seen["routes"] = [{"id": HOSTILE, "targets": [HOSTILE], "up": True}]
    seen["apps"] = [{"id": HOSTILE, "state": HOSTILE, "message": HOSTILE}]
    seen["errors"] = [
        {"time": 90.0, "status": 500, "outcome": "server_error", "path": HOSTILE, "duration_s": 0.1,
         "request_id": HOSTILE, "code": HOSTILE}
    ]  # fmt: skip
    run = {
        "id": HOSTILE, "suite": HOSTILE, "models": [HOSTILE], "state": HOSTILE, "created": 1.0, "errors": [HOSTILE],
        "results": {HOSTILE: {"figures": [{"task": HOSTILE, "metric": HOSTILE, "value": 0.5}]}},
    }  # fmt: skip
    adapter = {
        "id": HOSTILE, "name": HOSTILE, "base": HOSTILE, "version": HOSTILE, "aliases": [HOSTILE], "rank": HOSTILE,
        "state": "failed", "reason": HOSTILE, "source": HOSTILE, "verdict": {"verdict": HOSTILE, HOSTILE: [HOSTILE]},
        "metrics": {HOSTILE: {HOSTILE: HOSTILE}}, "resident": [{"model": HOSTILE, "replica": HOSTILE}],
        "places": [{"model": HOSTILE, "state": "failed", "reason": HOSTILE}],
    }  # fmt: skip
    pages = [
        tables.overview(seen), tables.models(seen), tables.replicas(seen), tables.neighbours(seen), tables.errors(seen),
        views.overview([run]), views.detail(run), views.suite({"description": HOSTILE, "tasks": [{"task": HOSTILE}]}),
        views.suite({"error": HOSTILE}), facts.overview([adapter]), facts.detail(adapter),
    ]  # fmt: skip
    for page in pages:
        assert "<script" not in page
    assert sum("&lt;script" in page for page in pages) == len(pages) - 1  # the overview of the gateway has no names


def test_a_run_shows_how_far_it_is_and_what_it_found() -> None:
    run = {
        "id": "r", "suite": "smoke", "models": ["a", "b"], "state": "running", "created": 1.0, "done": 3, "total": 10,
        "failed": 1, "eta_s": 130.0, "progress": {"a": {"done": 3, "total": 5}},
    }  # fmt: skip
    going = views.detail(run)
    assert '<progress max="10" value="3"' in going
    assert "3 of 10 samples · about 2 min left" in going
    assert "a: 3 of 5" in going
    assert "3 of 10, 1 failed" in views.overview([run])
    figures = [{"task": "t", "metric": "acc", "filter": "none", "value": 0.51234, "stderr": 0.1}]
    done = views.detail({**run, "state": "done", "results": {"a": {"figures": figures}}})
    assert "0.512 ± 0.100" in done
    assert ">acc<" in done
    assert "preparing" in views.detail({**run, "total": None, "done": 0})


def test_nested_figures_of_an_adapter_are_rows() -> None:
    found = facts.flat({"loss": {"first": 2.0, "last": 0.5}, "steps": 10, "curve": [0.1234567] * 20})
    assert found[:3] == [("loss.first", 2.0), ("loss.last", 0.5), ("steps", 10)]
    assert found[3][1].startswith("0.1235, 0.1235")
    assert found[3][1].endswith("…")
    shown = facts.detail({"id": "m:a@1", "verdict": {"verdict": "better", "p": 0.01}, "metrics": {}, "created": 1.0})
    assert "better" in shown
    assert "Nothing is known of its training" in shown
    assert facts.title({"id": "m:a@1", "aliases": ["prod"]}) == "m:a@1 (@prod)"
