"""A finished run and its gates for other programs: JUnit XML, Markdown, JSON. Writes no file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from gateway_evals.gates import Verdict
from gateway_evals.saved import SavedFigure, SavedResult

_NO_XML = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Sequence[SavedResult], verdicts: Sequence[Verdict]) -> str:
    """A test suite for each model: a case for each task (an error where no sample was answered), one for each gate."""
    root = ElementTree.Element("testsuites", name="gateway eval")
    for result in results:
        suite = ElementTree.SubElement(root, "testsuite", name=_text(f"{result.suite} on {result.model}"))
        errors = failures = 0
        for task in result.tasks.values():
            case = _case(suite, f"{result.model}.{result.suite}", task.name)
            lines = [f"{figure.key} = {_figure(figure)}" for figure in task.figures]
            ElementTree.SubElement(case, "system-out").text = _text("\n".join(lines))
            if not task.facts.get("answered"):
                errors += 1
                message = str(task.facts.get("first_failure") or "no sample was answered")
                ElementTree.SubElement(case, "error", message=_text(message))
        for verdict in verdicts:
            if verdict.model != result.model:
                continue
            case = _case(suite, f"{result.model}.gates", verdict.gate)
            ElementTree.SubElement(case, "system-out").text = _text(verdict.reason)
            if not verdict.passed:
                failures += 1
                ElementTree.SubElement(case, "failure", message=_text(verdict.reason))
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(failures))
        suite.set("errors", str(errors))
        suite.set("time", f"{result.seconds:.3f}")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_text(group), name=_text(name))


def _text(text: str) -> str:
    """Without what XML cannot hold."""
    return _NO_XML.sub("�", text)


def markdown(results: Sequence[SavedResult], verdicts: Sequence[Verdict]) -> str:
    """Tables: figures by model, then gates."""
    return "\n".join(_markdown(results, verdicts)) + "\n"


def _markdown(results: Sequence[SavedResult], verdicts: Sequence[Verdict]) -> Iterator[str]:
    first = results[0]
    yield f"# {_cell(first.suite)}, run {first.run}"
    yield ""
    yield "| task | metric | model | value | ± stderr | answered | failed |"
    yield "|---|---|---|---:|---:|---:|---:|"
    for name in first.tasks:
        for result in results:
            task = result.tasks[name]
            for figure in task.figures:
                error = "" if figure.stderr is None else f"{figure.stderr:.4f}"
                arrow = "↑" if figure.higher_is_better else "↓"
                cells = [name, f"{figure.key} {arrow}", result.model, _figure(figure), error]
                cells += [str(task.facts.get("answered", "")), str(task.facts.get("failed", ""))]
                yield "| " + " | ".join(map(_cell, cells)) + " |"
    if verdicts:
        yield ""
        yield "| gate | model | | why |"
        yield "|---|---|---|---|"
        for each in verdicts:
            cells = [f"`{each.gate}`", each.model, "passed" if each.passed else "**failed**", each.reason]
            yield "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _figure(figure: SavedFigure) -> str:
    return "N/A" if figure.value is None else f"{figure.value:.4f}"


def program_report(results: Sequence[SavedResult], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Plain JSON."""
    return {
        "run": results[0].run,
        "suite": results[0].suite,
        "passed": all(verdict.passed for verdict in verdicts),
        "gates": [asdict(verdict) for verdict in verdicts],
        "models": {
            result.model: {
                "path": str(result.path),
                "seconds": result.seconds,
                "memory_bytes": result.memory_bytes,
                "facts": dict(result.facts),
                "tasks": {
                    name: {"figures": [asdict(figure) for figure in task.figures], **task.facts}
                    for name, task in result.tasks.items()
                },
            }
            for result in results
        },
    }
