"""Reads one YAML file of a suite, a task or a group, with what it includes. Runs no Python; knows no models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from gateway_evals.errors import SuiteError


def read_mapping(path: Path, _within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The file's top-level mapping over those it includes. Raises SuiteError where one cannot be read."""
    data = _read(path)
    includes = data.pop("include", None)
    if includes is None:
        return data
    merged: dict[str, Any] = {}
    within = (*_within, path.resolve())
    names: list[Any] = cast("list[Any]", includes) if isinstance(includes, list) else [includes]
    for name in names:
        inner = path.parent / str(name)
        if inner.resolve() in within:
            raise SuiteError(f"{path}: include: {name} includes this file again")
        if not inner.is_file():
            raise SuiteError(f"{path}: include: no file {inner}")
        merged |= read_mapping(inner, within)
    return merged | data


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        data: Any = yaml.load(text, Loader=_SuiteLoader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise SuiteError(f"{path}: expected a mapping with `tasks:`, found {type(data).__name__}")
    return cast("dict[str, Any]", data)


def names_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names that lm-eval finds under a folder: of tasks, groups, tags. Files that are no tasks are passed by."""
    for path in sorted(folder.rglob("*.yaml")):
        try:
            data: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_NamesLoader)  # noqa: S506 (a SafeLoader)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            continue
        if not isinstance(data, dict):
            continue
        found = cast("dict[str, Any]", data)
        task, group = found.get("task"), found.get("group")
        if isinstance(task, str):
            yield task, path
            for tag in (found.get("tag"), group):
                for name in cast("list[Any]", tag) if isinstance(tag, list) else [tag]:
                    if isinstance(name, str) and name != task:
                        yield name, path
        elif isinstance(group, str) and isinstance(task, list):
            yield group, path


class _SuiteLoader(yaml.SafeLoader):
    """A SafeLoader that refuses what would be lost or run: a key that stands twice, a tag such as `!function`."""


class _NamesLoader(yaml.SafeLoader):
    """A SafeLoader that reads a tag such as `!function` as nothing."""


def _mapping(loader: _SuiteLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key: Any = loader.construct_object(key_node, deep=True)  # pyright: ignore[reportUnknownMemberType]
        if isinstance(key, str | int | float | bool) and key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", key_node.start_mark)
        seen.add(str(key) if not isinstance(key, str | int | float | bool) else key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


def _refuse_tag(loader: _SuiteLoader, suffix: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None,
        None,
        f"the tag !{suffix} is not read here: a suite is data and runs no Python (a plugin's register_tasks does)",
        node.start_mark,
    )


def _pass_tag(loader: _NamesLoader, suffix: str, node: yaml.Node) -> Any:
    return None


_SuiteLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_SuiteLoader.add_multi_constructor("!", _refuse_tag)  # pyright: ignore[reportUnknownMemberType]
_NamesLoader.add_multi_constructor("!", _pass_tag)  # pyright: ignore[reportUnknownMemberType]
