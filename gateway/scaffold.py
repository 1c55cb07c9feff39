"""`gateway new plugin NAME`: writes a backend plugin that works. Knows the templates, not what is in them."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from gateway import __version__
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST_NAME = 40


def write_plugin(name: str, folder: Path | None = None) -> Path:
    """Write the plugin `name` into `folder` (default: `gateway-NAME` here), which must be empty or not exist.

    Returns the folder. Raises ConfigError for a name that cannot be one, or is taken, and for a folder in use.
    """
    if NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"{name!r} cannot be a plugin's name: lower-case letters and digits, words joined by `-` or `_`, a letter "
            f"first, at most {LONGEST_NAME} characters: my-engine"
        )
    package = f"gateway_{name.replace('-', '_')}"
    if find_spec(package) is not None:
        raise ConfigError(f"{name!r}: a package {package} is installed already; choose another name")
    target = Path(f"gateway-{name}") if folder is None else folder
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists and is no empty folder: choose another with --folder")
    names = {
        "name": name,
        "package": package,
        "distribution": package.replace("_", "-"),
        "title": "".join(word.capitalize() for word in re.split("[-_]", name)),
        "version": __version__,
    }
    texts = _rendered(files("gateway") / "templates" / "plugin", names)
    try:
        for path, text in texts.items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def _rendered(folder: Traversable, names: dict[str, str], under: str = "") -> dict[str, str]:
    """Every template below `folder`: its path in the plugin, and its text with the names filled in."""
    texts: dict[str, str] = {}
    for entry in folder.iterdir():
        # The one folder whose name depends on the plugin's.
        path = under + (names["package"] if entry.name == "package" else entry.name)
        if entry.is_dir():
            texts |= _rendered(entry, names, path + "/")
        elif path.endswith(".tmpl"):
            text = Template(entry.read_text(encoding="utf-8")).substitute(names)
            texts[path.removesuffix(".tmpl")] = text
    return texts
