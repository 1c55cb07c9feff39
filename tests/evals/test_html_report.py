"""`gateway eval report`: one file, opened in a real browser from disk; what models wrote is text there and no more."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from gateway_evals.front import front
from gateway_evals.html_report.plots import Dot, scatter, track
from gateway_evals.saved import read_results
from tests.evals.conftest import generation
from tests.evals.reporting import write_long_run
from tests.evals.test_run import invoke
from tests.playground.driver import chromium

HOSTILE = [
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\"> & <b>bold</b>",
    "<!-- <script> ${1+1} {{7*7}} ]]> \u2028 'quoted' \"twice\"",
    "plain words that both say",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, echo_url: str) -> Path:
    """A report of a run over texts that would be markup."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{"text": text, "target": text if place % 2 else "something else"} for place, text in enumerate(HOSTILE)]
    task = generation(task_alias="<i>alias</i>", generation_kwargs={"until": ["\n"], "max_gen_toks": 200})
    (folder / "repeat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    suite = folder / "suite.yaml"
    suite.write_text(json.dumps({"suite": "tried", "tasks": [task]}), encoding="utf-8")
    assert invoke("run", suite, "-m", "echo", "--base-url", echo_url, "-o", folder / "out").exit_code == 0
    report = folder / "report.html"
    done = invoke("report", folder / "out", "--output", report)
    assert done.exit_code == 0, done.output
    return report


def packed(report: Path) -> dict[str, Any]:
    found = re.search(r'id="packed">([A-Za-z0-9+/=]+)</script>', report.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_what_models_and_data_wrote_is_never_markup(hostile: Path) -> None:
    text = hostile.read_text(encoding="utf-8")
    assert text.count("<script") == text.count("</script>") == 2
    assert "onerror" not in text
    assert "&lt;i&gt;alias&lt;/i&gt;" in text
    assert "<i>" not in text
    assert "http" not in re.sub(r"http-equiv", "", text), "no address of anywhere"
    table = packed(hostile)
    assert table["question"] == HOSTILE, "what was said, not how it went over the wire"
    assert [row.strip() for row in table["said"][0]["answer"]] == HOSTILE
    assert table["said"][0]["status"] == "wrwr"


def test_a_report_of_several_runs_pairs_them_and_a_wrong_name_is_told(tmp_path: Path) -> None:
    for model, seed in (("a", 1), ("b", 2)):
        write_long_run(tmp_path / "results" / model, model, 60, seed)
    report = tmp_path / "r.html"
    done = invoke("report", tmp_path / "results" / "a", tmp_path / "results" / "b", "-o", report, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["models"] == ["a", "b"]
    assert told["bytes"] == report.stat().st_size
    text = report.read_text()
    assert "b against a" in text
    assert "Quality against memory" in text
    again = tmp_path / "again.html"
    assert invoke("report", tmp_path / "results" / "a", tmp_path / "results" / "b", "-o", again).exit_code == 0
    assert again.read_bytes() == report.read_bytes(), "the same runs give the same file"
    missing = invoke("report", "nobody", "--results", tmp_path / "results", "-o", report)
    assert missing.exit_code == 2
    assert "no file, folder or run 'nobody'" in missing.stderr
    unwritable = invoke("report", tmp_path / "results" / "a", "-o", tmp_path / "r.html" / "x.html")
    assert unwritable.exit_code == 2
    assert "cannot be written" in unwritable.stderr


def test_samples_that_are_gone_leave_the_figures(tmp_path: Path) -> None:
    path = write_long_run(tmp_path, "a", 40, 1)
    for file in tmp_path.glob("samples_*"):
        file.unlink()
    assert read_results(path).tasks["task_0"].samples is None
    done = invoke("report", path, "-o", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text()
    assert "the samples of task_0 (a) are not beside its results" in text
    assert "exact_match" in text


def test_the_front_and_where_dots_stand() -> None:
    assert front([(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9)]) == [0, 2, 4]
    assert front([]) == []
    assert scatter("t", "x", []) is None
    drawn = scatter("t", "x", [Dot("a", 0.1, 0.5, 0.4, 0.6), Dot("b", 0.2, 0.4, 0.3, 0.5)])
    assert drawn is not None
    assert [dot.best for dot in drawn.dots] == [True, False]
    assert drawn.dots[0].x < drawn.dots[1].x
    assert drawn.dots[0].y < drawn.dots[1].y, "up is better"
    flat = track(0.0, None, None, (0.0, 0.0))
    assert flat.low == flat.high == flat.value


@pytest.fixture(scope="module")
def browser(hostile: Path) -> Iterator[Browser]:
    """After the run: while Playwright's synchronous half is open, no event loop can run in this thread."""
    with chromium() as browser:
        yield browser


class Opened:
    """A report in a tab, and what it did that no report should do."""

    def __init__(self, browser: Browser, report: Path, *, width: int = 1200, scheme: Any = "light") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=30_000)
        self.report = report

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        assert self.asked == [self.report.as_uri()], "one file, and nothing else"


@pytest.mark.slow
def test_the_page_shows_hostile_texts_as_texts(hostile: Path, browser: Browser) -> None:
    opened = Opened(browser, hostile)
    page = opened.page
    assert "taken" not in page.title()
    for place, text in enumerate(HOSTILE):
        page.locator(".row").nth(place).click()
        shown = page.locator("#detail pre").nth(2).inner_text()
        assert shown.replace("\u2028", "\n").strip() == text.replace("\u2028", "\n")
    assert page.locator("#detail img, #detail b, #list img").count() == 0
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("count", [4_000, pytest.param(20_000, marks=pytest.mark.proof)])
def test_many_samples_are_searched_filtered_and_read_by_keyboard(tmp_path: Path, browser: Browser, count: int) -> None:
    runs = [write_long_run(tmp_path / model, model, count, seed) for model, seed in (("first", 1), ("second", 2))]
    report = tmp_path / "long.html"
    assert invoke("report", *runs, "-o", report).exit_code == 0
    opened = Opened(browser, report, scheme="dark")
    page = opened.page
    shown, rows = page.locator("#count"), page.locator(".row")
    expect(shown).to_have_text(f"{count:,} of {count:,} samples")
    assert rows.count() < 60, "only what can be seen is there"
    page.keyboard.press("/")
    page.keyboard.type("number 1345?")
    expect(shown).to_have_text(f"2 of {count:,} samples")
    page.locator("#task").select_option(label="task_1")
    expect(shown).to_have_text(f"1 of {count:,} samples")
    expect(page.locator("#detail h3")).to_have_text("task_1 · row 1345")
    page.get_by_label("Search").fill("")
    page.locator("#task").select_option(label="all")
    expect(shown).to_have_text(f"{count:,} of {count:,} samples")

    page.get_by_label("models disagree").check()
    table = packed(report)
    first, second = (said["status"] for said in table["said"])
    expected = sum(a != b for a, b in zip(first, second, strict=True))
    expect(shown).to_have_text(f"{expected:,} of {count:,} samples")
    page.locator("#of").select_option(label="first")
    page.locator("#status").select_option(label="right")
    expected = sum(a == "r" != b for a, b in zip(first, second, strict=True))
    expect(shown).to_have_text(f"{expected:,} of {count:,} samples")
    assert page.locator("#detail ins").count() > 0
    assert page.locator("#detail del").count() > 0

    page.locator("#list").focus()
    page.keyboard.press("End")
    chosen = page.locator("[role=option][aria-selected=true]")
    expect(chosen).to_have_attribute("aria-posinset", str(expected))
    page.keyboard.press("ArrowUp")
    expect(chosen).to_have_attribute("aria-posinset", str(expected - 1))
    assert page.locator("#list").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#list")).to_be_focused()
    opened.close()


@pytest.mark.slow
def test_a_phone_shows_all_of_it_without_scrolling_sideways(hostile: Path, browser: Browser) -> None:
    opened = Opened(browser, hostile, width=390)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".row").nth(1).click()
    expect(page.locator("#detail h3")).to_be_in_viewport()
    page.get_by_role("button", name="Back to the list").click()
    expect(page.locator("#list")).to_be_focused()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input,select,button,[role=listbox],[role=region],svg')]"
        ".filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    assert unnamed == 0, "everything that can be used has a name"
    opened.close()
