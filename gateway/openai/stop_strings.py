"""Finds stop strings in text that arrives in pieces, and holds back only what could be the start of one."""

from __future__ import annotations


class StopStrings:
    """One sequence's watch. The same text gives the same cut, however it is cut into pieces."""

    __slots__ = ("_firsts", "_held", "_longest", "_stops", "met")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops))
        self._firsts = frozenset(stop[0] for stop in stops)
        self._held = ""
        self.met: str | None = None
        """The stop string that has come; nothing is given after it."""

    def push(self, text: str, *, watching: bool = True) -> str:
        """What may be shown now: the text up to the first stop string, or to what may become one.

        `watching`: whether a stop string that becomes whole with this text counts; it may have begun before.
        """
        seen = len(self._held)
        buffer = self._held + text
        # The string that is whole first wins, then the one that began first: what a reader of single characters finds.
        cut, end, met = -1, len(buffer) + 1, ""
        for stop in self._stops if watching else ():
            # What was whole before this text was let pass.
            start = buffer.find(stop, max(0, seen + 1 - len(stop)))
            if start >= 0 and (start + len(stop), start) < (end, cut):
                cut, end, met = start, start + len(stop), stop
        if cut >= 0:
            self.met = met
            self._held = ""
            return buffer[:cut]
        for start in range(max(0, len(buffer) - self._longest + 1), len(buffer)):
            if buffer[start] in self._firsts:
                tail = buffer[start:]
                if any(len(stop) > len(tail) and stop.startswith(tail) for stop in self._stops):
                    self._held = tail
                    return buffer[:start]
        self._held = ""
        return buffer

    def flush(self) -> str:
        """What was held back, at the end of a sequence that met no stop string."""
        held, self._held = self._held, ""
        return held
