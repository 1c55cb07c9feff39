"""Drives the playground's page as a person would: finds things by labels, waits for what is seen. Knows no server."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# The machine does other things beside: an engine may start in the other row of tests.
expect.set_options(timeout=20_000)

_PART = "#chat .bot > .message:last-child .prose > p:only-child"
"""The part under an answer: its facts or why it failed, as style.css finds it."""


@contextmanager
def chromium() -> Generator[Browser]:
    """Headless Chromium of the system (Debian package `chromium`), with a profile that is thrown away."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class PlaygroundPage:
    """One person's tab. `open` first; then everything else in any order."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list[str])
    """Errors of the browser's console and of scripts."""
    hosts: set[str] = field(default_factory=set[str])
    """Every host that the page asked for anything."""

    @classmethod
    def tab(
        cls,
        browser: Browser,
        url: str,
        *,
        width: int = 1200,
        height: int = 850,
        scheme: Literal["light", "dark"] = "light",
    ) -> PlaygroundPage:
        """A fresh tab with no memory, not opened yet. Close it with `close`."""
        return cls(
            browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme).new_page(), url
        )

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url', '')})")

    def _asked(self, request: Request) -> None:
        if request.url.startswith(("http:", "https:", "ws:", "wss:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def open(self, *, models: bool = True) -> PlaygroundPage:
        """Load the page; with `models`, wait until the picker has one."""
        self.page.goto(self.url)
        expect(self.prompt).to_be_visible(timeout=30_000)
        if models:
            expect(self.model).not_to_have_value("", timeout=15_000)
        return self

    def close(self) -> None:
        self.page.context.close()

    @property
    def prompt(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def model(self) -> Locator:
        return self.page.get_by_label("Model", exact=True)

    @property
    def send_button(self) -> Locator:
        return self.page.get_by_role("button", name="Send", exact=True)

    @property
    def stop_button(self) -> Locator:
        return self.page.get_by_role("button", name="Stop", exact=True)

    @property
    def questions(self) -> Locator:
        return self.page.locator("#chat [data-testid=user]")

    @property
    def answers(self) -> Locator:
        """Answers' bubbles, facts included, in order."""
        return self.page.locator("#chat .bot-row")

    @property
    def facts(self) -> Locator:
        """The lines under finished answers."""
        return self.page.locator(f"{_PART} > em:only-child")

    @property
    def failures(self) -> Locator:
        return self.page.locator(f"{_PART} > strong:only-child")

    @property
    def notice(self) -> Locator:
        """What stands over the conversation when models cannot be listed."""
        return self.page.locator("#notice [role=alert]")

    def turn_to(self, tab: str) -> None:
        """Show the tab of this title; where the page is narrow, out of the menu of those that had no room."""
        seen = self.page.get_by_role("tab", name=tab, exact=True)
        if not seen.is_visible():
            self.page.get_by_label("More tabs").first.click()
            seen = self.page.locator(".overflow-dropdown").get_by_role("button", name=tab, exact=True)
        seen.click()
        self.settle()

    def settle(self) -> None:
        """Wait until the page's script has nothing to do: a field that has just come into sight sets itself to where it
        begins once more, a moment later."""
        for _ in range(2):
            self.page.evaluate("() => new Promise(idle => requestIdleCallback(idle, {timeout: 500}))")

    def send(self, text: str) -> None:
        self.prompt.fill(text)
        self.send_button.click()

    def ask(self, text: str, *, timeout_s: float = 60) -> str:
        """Send a message, wait for the whole answer, give its text as the page shows it, without the facts."""
        before = self.facts.count()
        self.send(text)
        expect(self.facts).to_have_count(before + 1, timeout=timeout_s * 1000)
        expect(self.send_button).to_be_visible()
        return self.answer()

    def answer(self) -> str:
        """The last answer's text as it stands now, without its facts."""
        return plain(
            "\n".join(text for text in self.answers.last.locator(".prose").all_inner_texts() if not _is_facts(text))
        ).strip()

    def pick(self, model: str) -> None:
        self.model.click()
        self.page.get_by_role("option", name=re.compile(rf"^\W*{re.escape(model)}( |$)")).click()
        expect(self.model).to_have_value(model)

    def choose(self, *models: str) -> None:
        """Put these models under Compare."""
        field = self.page.get_by_role("combobox", name="Models", exact=True)
        chosen = self.page.locator("#compare-models .token")
        for count, model in enumerate(models, 1):
            field.click()
            self.page.get_by_role("option", name=re.compile(rf"^\W*{re.escape(model)}( |$)")).click()
            expect(chosen).to_have_count(count)
        field.press("Escape")

    def edit(self, editor: str, text: str) -> None:
        """Replace what a code editor holds, as a person pastes: it closes brackets by itself where one types."""
        content = self.page.locator(f"{editor} .cm-content")
        content.click()
        content.press("ControlOrMeta+a")
        content.press("Delete")
        self.page.keyboard.insert_text(text)

    def offered(self) -> list[str]:
        """Names in the model picker."""
        self.model.click()
        names = [text.strip().lstrip("✓").strip() for text in self.page.get_by_role("option").all_inner_texts()]
        self.model.press("Escape")
        return names

    def open_settings(self) -> None:
        system = self.page.get_by_label("System prompt", exact=True)
        if not system.is_visible():
            self.page.get_by_role("button", name="Settings").click()
        expect(system).to_be_visible()

    def set_key(self, key: str) -> None:
        """Type a key and leave its field, upon which the page lists the models anew."""
        field = self.page.locator("#key input")
        if not field.is_visible():
            self.page.get_by_role("button", name="API key").click()
        field.fill(key)
        field.press("Enter")

    def set_system_prompt(self, text: str) -> None:
        self.open_settings()
        self.write("System prompt", text)

    def set_max_tokens(self, tokens: int) -> None:
        self.open_settings()
        self.write("Max tokens", str(tokens))

    def set_temperature(self, temperature: float) -> None:
        self.open_settings()
        self.write("Temperature", str(temperature), exact=False)

    def write(self, label: str, value: str, *, exact: bool = True) -> None:
        """Fill a field, also one that has just come into sight."""
        field = self.page.get_by_label(label, exact=exact).first
        # As `settle` says; and what the server sends of it may come later still.
        kept = 0
        while kept < 3:
            if field.input_value() == value:
                kept += 1
            else:
                kept = 0
                field.fill(value)
            self.page.wait_for_timeout(100)


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def plain(shown: str) -> str:
    """Without the joiners by which the page makes text of tags."""
    return shown.replace("\u2060", "")


def _is_facts(text: str) -> bool:
    return "first token " in text and " · " in text
