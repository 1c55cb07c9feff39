"""Rows from local files: JSON lines, JSON, CSV, each optionally gzipped; or from a Python task. Asks no hub."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from gateway_evals.errors import SuiteError
from gateway_evals.packages import PREFIX, packaged
from gateway_evals.prompt import Row
from gateway_evals.spec import DatasetKwargs, TaskSpec


def load_rows(spec: TaskSpec, where: str) -> tuple[list[Row], list[Row]]:
    """The rows to ask and the rows to draw examples from (which may be the same list). Raises SuiteError."""
    splits = _generated(spec, where) if spec.rows is not None else _in_files(spec, where)
    asked = spec.test_split or spec.validation_split or _usual(list(splits))
    if asked not in splits:
        field = "test_split" if spec.test_split or not spec.validation_split else "validation_split"
        raise SuiteError(f"{where}.{field}: say which of {', '.join(splits)} is asked")
    rows = splits[asked]()
    if not rows:
        raise SuiteError(f"{where}.dataset_kwargs: the split {asked!r} has no rows")
    own = spec.fewshot_config
    split = own.split or spec.fewshot_split
    if split is None and own.samples is not None:
        return rows, cast("list[Row]", own.samples)
    split = split or spec.training_split or (spec.validation_split if spec.test_split else None) or asked
    if split == asked:
        return rows, rows
    if split not in splits:
        field = "fewshot_config.split" if own.split else "fewshot_split" if spec.fewshot_split else "training_split"
        raise SuiteError(f"{where}.{field}: no split {split!r}; there are: {', '.join(splits)}")
    # Read only when it is needed: a large training split costs nothing where no example is drawn.
    return rows, splits[split]() if spec.num_fewshot else []


def _usual(splits: list[str]) -> str:
    return "test" if "test" in splits else splits[0] if len(splits) == 1 else ""


Splits = dict[str, Callable[[], list[Row]]]


def _generated(spec: TaskSpec, where: str) -> Splits:
    if spec.rows is None:
        raise SuiteError(f"{where}: is no Python task")
    try:
        made = spec.rows(**spec.dataset_kwargs.keywords)
    except (TypeError, ValueError) as error:
        raise SuiteError(f"{where}.dataset_kwargs: {error}") from error
    return {split: _listing(rows) for split, rows in made.items()}


def _listing(rows: Sequence[Row]) -> Callable[[], list[Row]]:
    return lambda: list(rows)


def _in_files(spec: TaskSpec, where: str) -> Splits:
    files = spec.dataset_kwargs.data_files
    if not files:
        raise SuiteError(f"{where}.dataset_kwargs.data_files: names no file")
    if isinstance(files, dict):
        named = {split: [names] if isinstance(names, str) else names for split, names in files.items()}
    else:
        # One set of rows, under the name of what is asked.
        named = {spec.test_split or spec.validation_split or "test": [files] if isinstance(files, str) else files}
    return {split: _reading(spec, names, where) for split, names in named.items()}


def _reading(spec: TaskSpec, names: list[str], where: str) -> Callable[[], list[Row]]:
    place = f"{where}.dataset_kwargs.data_files"

    def read() -> list[Row]:
        rows: list[Row] = []
        for name in names:
            rows += _read(_find(name, spec, place), spec, place)
        return rows

    return read


def _find(name: str, spec: TaskSpec, place: str) -> Path:
    if name.startswith(PREFIX):
        return packaged(name, place)
    inner = Path(spec.dataset_kwargs.data_dir or "") / name
    candidates = [spec.folder / inner, Path.cwd() / inner]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " or ".join(dict.fromkeys(str(candidate) for candidate in candidates))
    raise SuiteError(f"{place}: no file {looked}")


def _read(path: Path, spec: TaskSpec, place: str) -> list[Row]:
    options = spec.dataset_kwargs
    encoding = "utf-8-sig" if options.encoding.lower() in {"utf-8", "utf8"} else options.encoding
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(encoding)
    except (OSError, EOFError, UnicodeDecodeError, LookupError) as error:
        raise SuiteError(f"{place}: {path} cannot be read: {error}") from error
    if spec.dataset_path == "csv":
        return _table(text, path, options, place)
    if options.field is not None or text.lstrip().startswith("["):
        values = _decoded(text, f"{path}", place)
        if options.field is not None:
            values = cast("dict[str, Any]", values).get(options.field) if isinstance(values, dict) else None
            if not isinstance(values, list):
                raise SuiteError(f"{place}: {path} has no list under {options.field!r}")
        lines = [(f"{path}[{index}]", value) for index, value in enumerate(cast("list[Any]", values))]
    else:
        numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        lines = [(f"{path}:{number}", _decoded(line, f"{path}:{number}", place)) for number, line in numbered]
    rows: list[Row] = []
    for found, value in lines:
        if not isinstance(value, dict):
            raise SuiteError(f"{found}: a row must be a JSON object, found {type(value).__name__}")
        rows.append(cast("dict[str, Any]", value))
    return rows


def _table(text: str, path: Path, options: DatasetKwargs, place: str) -> list[Row]:
    """Numbers become numbers and empty cells None, column by column: pandas reads it, as it does for lm-eval."""
    import pandas as pd  # pyright: ignore[reportMissingTypeStubs]

    try:
        frame: Any = pd.read_csv(io.StringIO(text, newline=""), sep=options.sep or options.delimiter or ",")  # pyright: ignore[reportUnknownMemberType]
    except (ValueError, pd.errors.ParserError) as error:
        raise SuiteError(f"{place}: {path} is no table: {error}") from error
    columns: dict[str, list[Any]] = {
        str(name): [None if missing else value for value, missing in zip(frame[name].tolist(), frame[name].isna())]  # noqa: B905
        for name in frame.columns
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _decoded(text: str, found: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"{place}: {found} is not JSON: {error}") from error
