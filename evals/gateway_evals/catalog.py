"""The suites that ship with the package: in a checkout `evals/suites`, in an installed wheel `gateway_evals/suites`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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


def folders() -> list[Path]:
    places = [HERE / "suites"]
    if HERE.parent.name == "evals":
        # Only in a checkout: beside an installed package, a folder `suites` would be somebody else's.
        places.append(HERE.parent / "suites")
    return [place for place in places if place.is_dir()]


def shipped() -> dict[str, Path]:
    """Name to file."""
    return {path.stem: path for folder in folders() for path in sorted(folder.glob("*.yaml"))}


def listing() -> list[Listed]:
    found: list[Listed] = []
    for name, path in sorted(shipped().items()):
        try:
            found.append(Listed(name, path, load_suite(path)))
        except SuiteError as error:
            found.append(Listed(name, path, None, error.message))
    return found


def find(reference: str) -> Path:
    """A path to a YAML file, or the name of a shipped suite. Raises SuiteError that lists the names."""
    path = Path(reference)
    if path.is_file():
        return path
    names = shipped()
    if reference in names:
        return names[reference]
    raise SuiteError(f"no file and no suite {reference!r}; suites: {', '.join(names) or 'none'}")
