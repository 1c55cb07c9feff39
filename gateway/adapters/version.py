"""What is known of one version of an adapter, and how adapters are named. Knows no database."""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from gateway.errors import AdapterError

PROD = "prod"
"""The alias that a bare name follows."""

State = Literal["verified", "failed"]
"""`failed`: it was found to be unfit for its base, for the reason beside it, and never answers."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(r"(?:(?P<base>[^:@]+):)?(?P<name>[^:@]+)(?:@(?P<ref>[^:@]+))?")


class Place(msgspec.Struct, frozen=True):
    """What became of a version where a model loaded it. Engines differ in what they take."""

    model: str
    state: Literal["ready", "failed"]
    reason: str = ""


class AdapterVersion(msgspec.Struct, frozen=True):
    """One version: never changed but for what is found out about it."""

    base: str
    """Name of the model that it was made for. Every model with the same weights can serve it."""
    name: str
    version: int
    """Counts from 1 for each base and name; never given twice."""
    base_digest: str
    """Of the base's weights, as `ModelCard.digest`."""
    digest: str
    """sha256 over its two files."""
    source: str
    """Where it came from, as `gateway adapters add` takes it."""
    rank: int
    state: State = "verified"
    reason: str = ""
    """Why it failed."""
    metrics: dict[str, Any] = {}
    """What its training measured."""
    verdict: dict[str, Any] = {}
    """What an evaluation said of it; its `verdict` is `better`, `worse` or `undecided`."""
    created: float = 0.0
    """Unix time in seconds."""
    wanted: bool = False
    """Whether every replica of `base` loads it when it starts."""
    places: tuple[Place, ...] = ()

    @property
    def id(self) -> str:
        """What engines know it by: never the same for other weights, so that no cache keyed by it is ever stale."""
        return f"{self.name}@{self.version}-{self.digest[:12]}"

    @property
    def label(self) -> str:
        """What people call it: `support@3`."""
        return f"{self.name}@{self.version}"

    @property
    def is_worse(self) -> bool:
        return self.verdict.get("verdict") == "worse"

    def fits(self, model: str, digest: str) -> bool:
        """Whether a model with these weights can serve it."""
        return self.base_digest == digest if self.base_digest and digest else self.base == model

    def problem_on(self, model: str) -> str:
        """Why it cannot answer there; "" where it can."""
        if self.state == "failed":
            return self.reason
        return next((place.reason for place in self.places if place.model == model and place.state == "failed"), "")


class Reference(msgspec.Struct, frozen=True):
    """A name as clients and people write it: `[BASE:]NAME[@VERSION or @ALIAS]`."""

    name: str
    base: str = ""
    version: int | None = None
    alias: str = ""

    def __str__(self) -> str:
        after = f"@{self.version}" if self.version is not None else f"@{self.alias}" if self.alias else ""
        return f"{self.base}:{self.name}{after}" if self.base else f"{self.name}{after}"


def read_reference(text: str) -> Reference:
    """Raises AdapterError where the text is of another form."""
    match = _REFERENCE.fullmatch(text)
    if match is None or not _NAME.fullmatch(match["name"]) or (match["ref"] and not _NAME.fullmatch(match["ref"])):
        raise AdapterError(f"{text[:200]!r} is no adapter's name: write NAME, BASE:NAME, NAME@VERSION or NAME@ALIAS")
    ref = match["ref"] or ""
    if ref.isascii() and ref.isdigit():
        return Reference(match["name"], match["base"] or "", version=int(ref[:9]))
    return Reference(match["name"], match["base"] or "", alias=ref)


def check_name(text: str, what: str = "an adapter's name") -> str:
    """The text, if it can be a name. Raises AdapterError that says what can."""
    if not _NAME.fullmatch(text):
        raise AdapterError(f"{text[:200]!r} cannot be {what}: letters, digits, `.`, `_`, `-`, at most 64", param="name")
    return text


def check_alias(text: str) -> str:
    """The text, if it can be an alias: a number would be taken for a version."""
    if text.isdigit():
        raise AdapterError(f"{text!r} cannot be an alias: a number is a version")
    return check_name(text, "an alias")
