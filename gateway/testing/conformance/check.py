"""What a check is: a small async function with a name, and what came of it. Knows no feature."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from gateway.testing.served import Rejected, Reply, Served

Outcome = Literal["pass", "refused", "fail", "n/a"]
"""`n/a`: the model never does what the check is about, so that there was nothing to look at."""

Ask = Callable[[Served], Awaitable[None]]


class CheckFailed(Exception):
    """The answer does not mean what it should."""


class NotApplicable(Exception):
    """There was nothing to look at."""


@dataclass(frozen=True, slots=True)
class Check:
    """One feature."""

    group: str
    name: str
    ask: Ask
    feature: str
    """A pattern that a refusal's message must hold, so that it names what is refused."""

    async def __call__(self, served: Served) -> Result:
        try:
            await self.ask(served)
        except NotApplicable as reason:
            return Result(self.group, self.name, "n/a", str(reason))
        except CheckFailed as failed:
            return Result(self.group, self.name, "fail", str(failed))
        except Rejected as rejected:
            outcome, reason = judge(rejected, self.feature, served.engine)
            return Result(self.group, self.name, outcome, reason)
        except httpx.TimeoutException:
            return Result(self.group, self.name, "fail", "no answer in time")
        except httpx.TransportError as error:
            return Result(self.group, self.name, "fail", f"the connection broke: {type(error).__name__} {error}")
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            # Checks read answers as the shape promises them; whatever is missing shows up as one of these.
            return Result(
                self.group, self.name, "fail", f"the answer has another shape: {type(error).__name__} {error}"
            )
        return Result(self.group, self.name, "pass")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check for one model."""

    group: str
    name: str
    outcome: Outcome
    reason: str = ""


class Group:
    """The checks of one room of the surface, in their order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.checks: list[Check] = []

    def check(self, name: str, feature: str = "") -> Callable[[Ask], Ask]:
        """Add a check. `feature`: the pattern that names it in a refusal; its first word where none is given."""

        def add(ask: Ask) -> Ask:
            self.checks.append(Check(self.name, name, ask, feature or re.escape(name.split(" ")[0])))
            return ask

        return add


def judge(rejected: Rejected, feature: str, engine: str) -> tuple[Outcome, str]:
    """Whether a rejection is an honest refusal: a 400 whose message names the engine and the feature."""
    reply = rejected.reply
    if reply.status != 400:
        return "fail", str(rejected)
    error = error_of(reply)
    message = f"{error['message']} {error.get('param') or ''}"
    if not re.search(feature, message, re.IGNORECASE):
        return "fail", f"refused without naming the feature ({feature}): {error['message'][:300]}"
    # What no engine is asked for is refused in the gateway's own name.
    if engine and not re.search(rf"\b({re.escape(engine)}|gateway)\b", message, re.IGNORECASE):
        return "fail", f"refused without naming the engine ({engine}): {error['message'][:300]}"
    return "refused", error["message"]


def error_of(reply: Reply) -> dict[str, Any]:
    """The error of an answer. Raises CheckFailed where it is in no known shape."""
    try:
        error: Any = reply.json()["error"]
        if isinstance(error["message"], str) and error["message"]:
            return error
    except (ValueError, KeyError, TypeError) as problem:
        raise CheckFailed(f"{reply.status} without an error in OpenAI's shape: {reply.text[:200]!r}") from problem
    raise CheckFailed(f"an error without a message: {reply.text[:200]!r}")


async def refuses(served: Served, path: str, status: int, param: str | None = None, **fields: Any) -> dict[str, Any]:
    """Ask for something wrong. Raises CheckFailed unless it is refused so, in OpenAI's shape, naming the field."""
    reply = await served.request("POST", path, json={"model": served.model, **fields})
    what = ", ".join(
        f"{name}={str(value)[:40]}" for name, value in fields.items() if name not in {"prompt", "messages"}
    )
    expect(reply.status == status, f"{path} with {what or param}: {reply.status}, not {status}: {reply.text[:200]}")
    error = error_of(reply)
    missing = {"type", "param", "code"} - error.keys()
    expect(not missing, f"the error lacks {', '.join(sorted(missing))}: {error}")
    if param is not None:
        named = f"{error['param'] or ''} {error['message']}"
        expect(param in named, f"the refusal of {what} does not name `{param}`: {error}")
    return error


def expect(holds: object, otherwise: str) -> None:
    """Raise CheckFailed, saying why, where it does not hold."""
    if not holds:
        raise CheckFailed(otherwise)


def same(found: object, expected: object, what: str) -> None:
    """Raise CheckFailed where two values differ."""
    if found != expected:
        raise CheckFailed(f"{what}: {str(found)[:200]!r} instead of {str(expected)[:200]!r}")
