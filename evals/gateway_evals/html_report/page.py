"""Writes the report: one HTML file with style, script and data inside, allowed to ask nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gateway_evals.errors import EvaluationError
from gateway_evals.html_report import plots
from gateway_evals.html_report.gathering import ModelFacts, ReportData, gather
from gateway_evals.saved import SavedResult
from gateway_evals.statistics import normal_interval


def write_report(results: Sequence[SavedResult], output: Path) -> int:
    """Write the report of these results, whole or not at all; its size in bytes. Raises EvaluationError."""
    if not results:
        raise EvaluationError("a report needs at least one result")
    text = render(gather(results))
    part: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=output.parent, prefix=".report-", delete=False, encoding="utf-8"
        ) as file:
            part = Path(file.name)
            file.write(text)
        part.chmod(0o644)
        part.replace(output)
    except OSError as error:
        if part is not None:
            part.unlink(missing_ok=True)
        raise EvaluationError(f"{output} cannot be written: {error.strerror}") from error
    return len(text.encode())


def render(data: ReportData) -> str:
    """The page. Whatever models or data wrote is escaped, or packed where it cannot be markup."""
    style, script = _asset("report.css"), _asset("report.js")
    return _environment().get_template("report.html.jinja").render(
        data=data,
        style=Markup(style),  # noqa: S704 (ours)
        script=Markup(script),  # noqa: S704 (ours)
        policy=content_policy(style, script),
        packed=Markup(data.samples.packed()),  # noqa: S704 (base64)
        scatters=_scatters(data.models),
        plots=plots,
    )  # fmt: skip


def content_policy(style: str, script: str) -> str:
    """Content-Security-Policy: this style and this script by their hashes, and no host for anything."""
    return (
        f"default-src 'none'; style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _scatters(models: Sequence[ModelFacts]) -> list[plots.Scatter]:
    """Quality against latency, and against memory: which size of model is enough?"""
    drawn: list[plots.Scatter | None] = []
    for title, unit, cost in (
        ("Quality against latency", "median latency of a sample, seconds", "latency_p50_s"),
        ("Quality against memory", "memory of one replica, GiB", "memory_gib"),
    ):
        dots: list[plots.Dot] = []
        for model in models:
            x: float | None = getattr(model, cost)
            if x is not None and model.score is not None:
                around = normal_interval(model.score, model.score_error)
                dots.append(plots.Dot(model.name, x, model.score, max(0.0, around.low), min(1.0, around.high)))
        drawn.append(plots.scatter(title, unit, dots))
    return [picture for picture in drawn if picture is not None]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gateway_evals.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = environment.filters  # pyright: ignore[reportUnknownMemberType, reportAssignmentType]
    filters["number"] = _number
    filters["seconds"] = _seconds
    filters["signed"] = lambda value: "–" if value is None else f"{value:+.3f}".replace("-", "−")  # pyright: ignore[reportUnknownLambdaType]
    return environment


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


@cache
def _asset(name: str) -> str:
    return (files("gateway_evals.html_report") / "templates" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
