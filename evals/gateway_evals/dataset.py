"""Rows from local files: JSON lines, JSON, CSV, each optionally gzipped. Asks no hub and runs no loading script."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any, cast

from gateway_evals.errors import SuiteError
from gateway_evals.prompt import Row
from gateway_evals.suite import TaskSpec


def load_rows(spec: TaskSpec, where: str) -> tuple[list[Row], list[Row]]:
    """The rows to ask and the rows to draw examples from (which may be the same list). Raises SuiteError."""
    splits = _splits(spec)
    asked = spec.test_split or ("test" if "test" in splits else next(iter(splits)) if len(splits) == 1 else "")
    if asked not in splits:
        raise SuiteError(f"{where}.test_split: say which of {', '.join(splits)} is asked")
    rows = _read_all(spec, splits[asked], where)
    if not rows:
        raise SuiteError(f"{where}.dataset_kwargs.data_files: no rows in {', '.join(splits[asked])}")
    if spec.fewshot_split is None or spec.fewshot_split == asked:
        return rows, rows
    if spec.fewshot_split not in splits:
        raise SuiteError(f"{where}.fewshot_split: no split {spec.fewshot_split!r}; there are: {', '.join(splits)}")
    return rows, _read_all(spec, splits[spec.fewshot_split], where)


def _splits(spec: TaskSpec) -> dict[str, list[str]]:
    files = spec.dataset_kwargs.data_files
    if isinstance(files, dict):
        return {split: [names] if isinstance(names, str) else names for split, names in files.items()}
    return {spec.test_split or "test": [files] if isinstance(files, str) else files}


def _read_all(spec: TaskSpec, names: list[str], where: str) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        rows += _read(_find(name, spec.folder, where), spec.dataset_path, where)
    return rows


def _find(name: str, folder: Path, where: str) -> Path:
    candidates = [folder / name, Path.cwd() / name]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise SuiteError(f"{where}.dataset_kwargs.data_files: no file {looked}")


def _read(path: Path, kind: str, where: str) -> list[Row]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise SuiteError(f"{where}.dataset_kwargs.data_files: {path} cannot be read: {error}") from error
    if kind == "csv":
        return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    if text.lstrip().startswith("["):
        values = _decoded(text, f"{path}", where)
        lines = [(f"{path}[{index}]", value) for index, value in enumerate(values)]
    else:
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        lines = [(f"{path}:{number}", _decoded(line, f"{path}:{number}", where)) for number, line in numbered]
    rows: list[Row] = []
    for place, value in lines:
        if not isinstance(value, dict):
            raise SuiteError(f"{place}: a row must be a JSON object, found {type(value).__name__}")
        rows.append(cast("dict[str, Any]", value))
    return rows


def _decoded(text: str, place: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"{where}.dataset_kwargs.data_files: {place} is not JSON: {error}") from error
