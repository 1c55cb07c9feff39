"""Suites by name: those of the package (`evals/suites`, in a wheel `gateway_evals/suites`) and people's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.state import state_folder
from gateway_evals.errors import SuiteError
from gateway_evals.suite import Suite
from gateway_evals.suite_file import load_suite

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of the catalog, read or with what is wrong with it."""

    name: str
    path: Path
    suite: Suite | None
    problem: str = ""
    own: bool = False
    """Made by a person: it stands in `own_folder()`."""


def own_folder() -> Path:
    """Where the suites are that people make through the app `evals`."""
    return state_folder() / "evals" / "suites"


def folders() -> list[Path]:
    places = [HERE / "suites"]
    if HERE.parent.name == "evals":
        # Only in a checkout: beside an installed package, a folder `suites` would be somebody else's.
        places.append(HERE.parent / "suites")
    return [place for place in places if place.is_dir()]


def shipped() -> dict[str, Path]:
    """Name to file."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*.yaml"))}


def own() -> dict[str, Path]:
    """Name to file."""
    return {path.stem: path for path in sorted(own_folder().glob("*.yaml"))}


def everything() -> dict[str, Path]:
    """Name to file. A shipped suite keeps its name."""
    return {**own(), **shipped()}


def listing() -> list[Listed]:
    found: list[Listed] = []
    shelf = shipped()
    for name, path in sorted(everything().items()):
        try:
            found.append(Listed(name, path, load_suite(path), own=name not in shelf))
        except SuiteError as error:
            found.append(Listed(name, path, None, error.message, own=name not in shelf))
    return found


def find(reference: str) -> Path:
    """A path to a YAML file, or the name of a shipped suite or of one's own. Raises SuiteError that lists the names."""
    path = Path(reference)
    if path.is_file():
        return path
    names = everything()
    if reference in names:
        return names[reference]
    raise SuiteError(f"no file and no suite {reference!r}; suites: {', '.join(names) or 'none'}")
