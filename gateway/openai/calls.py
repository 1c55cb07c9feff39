"""Calls of tools in a model's text: how each format writes them, and a reader that tells them from words as they come.

The formats are those that models are trained in: Hermes' (also Qwen's) and Llama 3's. Sources: the chat templates of
NousResearch/Hermes-2-Pro and meta-llama/Llama-3.1.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, cast

import msgspec

from gateway.openai.reading import Said, overlap


class Format(NamedTuple):
    """How a call is written: `begin`, an object with the name and the arguments, `end`."""

    begin: str
    """"" where an answer that begins with a brace is one of calls."""
    end: str
    between: str
    """Between two calls."""
    arguments: str
    """The key of the arguments."""


FORMATS: Final[dict[str, Format]] = {
    "hermes": Format("<tool_call>", "</tool_call>", "\n", "arguments"),
    "llama3_json": Format("", "", "; ", "parameters"),
}
"""By the parser's name; vLLM knows them by the same names."""

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


class CallReader:
    """`reading.Reader` for one answer."""

    def __init__(self, form: Format) -> None:
        self._form = form
        self._held = ""
        self._calls = 0
        self._call: _Call | None = None
        self._closing = False
        """Between a call's last brace and its end mark."""

    def push(self, text: str) -> list[Said]:
        found: list[Said] = []
        text = self._held + text
        self._held = ""
        while text:
            if self._call is not None:
                text = self._in_call(self._call, text, found)
            elif self._closing:
                text = self._after_call(text)
            else:
                text = self._in_words(text, found)
        return found

    def flush(self) -> list[Said]:
        found: list[Said] = []
        if self._call is not None and not self._call.told:
            # Cut off before it could be known as a call: these are the model's words.
            found.append(Said("content", self._form.begin + self._call.text))
        elif self._held and self._call is None and not (self._calls and self._held.isspace()):
            found.append(Said("content", self._held))
        self._held, self._call = "", None
        return found

    def _in_words(self, text: str, found: list[Said]) -> str:
        begin = self._form.begin
        if not begin:
            return self._in_bare_words(text, found)
        words, mark, rest = text.partition(begin)
        if mark:
            self._call = _Call(self._calls)
            if words.strip():
                found.append(Said("content", words.rstrip()))
            return rest
        # White space may be that before a call, which is no word.
        kept = overlap(text, begin)
        shown = text[: len(text) - kept].rstrip()
        self._held = text[len(shown) :]
        if shown:
            found.append(Said("content", shown))
        return ""

    def _in_bare_words(self, text: str, found: list[Said]) -> str:
        """Where no mark begins a call: the first brace of an answer, or the one after another call."""
        begun = text.lstrip(" \t\r\n;" if self._calls else None)
        if not begun:
            self._held = text
            return ""
        if begun[0] == "{" and self._calls >= 0:
            self._call = _Call(self._calls)
            return begun
        self._calls = -1  # Words have come: what follows is words, whatever it looks like.
        found.append(Said("content", text))
        return ""

    def _in_call(self, call: _Call, text: str, found: list[Said]) -> str:
        end = self._form.end
        rest = call.push(text, found)
        if rest is None:
            over = call.text.find(end, call.broken_at) if end and call.broken_at >= 0 and not call.told else -1
            if over < 0:
                return ""
            # Never became an object: words after all.
            over += len(end)
            found.append(Said("content", self._form.begin + call.text[:over]))
            self._call = None
            return call.text[over:]
        self._call = None
        if call.told:
            self._calls += 1
            self._closing = bool(end)
            return rest
        found.append(Said("content", self._form.begin + call.text))
        if not end:
            self._calls = -1
        return rest

    def _after_call(self, text: str) -> str:
        left = text.lstrip()
        end = self._form.end
        if left.startswith(end):
            self._closing = False
            return left[len(end) :]
        if end.startswith(left):
            self._held = left
            return ""
        self._closing = False  # A model that forgot the mark.
        return left


class _Call:
    """One call's object, as it comes."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.text = ""
        self.told = False
        """Whether its name has been told."""
        self.broken_at = -1
        """Where it stopped being JSON, as far as the beginning of an end mark shows."""
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._read = 0
        self._arguments_from = -1
        self._arguments_over = False

    def push(self, text: str, found: list[Said]) -> str | None:
        """What follows its last brace; None as long as that has not come. Tells what it learns to `found`."""
        self.text += text
        if not self.told and (head := _HEAD.match(self.text)) is not None:
            self._tell(_string(head[1]), found)
            self._arguments_from = head.end()
        end = self._scan(found)
        if end is None:
            return None
        rest, self.text = self.text[end:], self.text[:end]
        if not self.told:
            self._tell_whole(found)
        return rest

    def _scan(self, found: list[Said]) -> int | None:
        start = max(self._read, self._arguments_from) if self._arguments_from >= 0 else self._read
        for place in range(self._read, len(self.text)):
            letter = self.text[place]
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == '"':
                    self._in_string = False
            elif letter == '"':
                self._in_string = True
            elif letter == "<":
                self.broken_at = place if self.broken_at < 0 else self.broken_at
            elif letter in "{[":
                self._depth += 1
            elif letter in "}]":
                self._depth -= 1
                if self._depth <= 1 and 0 <= self._arguments_from < place and not self._arguments_over:
                    self._arguments_over = True
                    self._say(self.text[start : place + 1], found)
                if self._depth <= 0:
                    self._read = place + 1
                    return place + 1
        self._read = len(self.text)
        if self._arguments_from >= 0 and not self._arguments_over:
            self._say(self.text[start:], found)
        return None

    def _tell_whole(self, found: list[Said]) -> None:
        """A call whose keys come in another order, or whose arguments are a string of JSON."""
        try:
            said = msgspec.json.decode(self.text, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            return
        name = said.get("name")
        arguments: Any = said.get("arguments", said.get("parameters"))
        if not isinstance(name, str) or not isinstance(arguments, dict | str | None):
            return
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(cast(dict[str, Any], arguments or {})).decode()
        self._tell(name, found)
        self._say(arguments, found)

    def _tell(self, name: str, found: list[Said]) -> None:
        self.told = True
        found.append(Said("name", name, self._number))

    def _say(self, text: str, found: list[Said]) -> None:
        if text:
            found.append(Said("arguments", text, self._number))


def _string(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError:
        return text[1:-1]
