"""`gateway new plugin`: what it writes is built, found and tested like a stranger's plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.scaffold import write_plugin

pytestmark = pytest.mark.slow


def run(*arguments: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.mark.parametrize("name", ["loud", "very-loud_1"])
def test_what_it_writes_builds_is_found_and_passes_its_own_tests(tmp_path: Path, name: str) -> None:
    made = run("gateway", "new", "plugin", name, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = tmp_path / f"gateway-{name}"
    assert f"gateway-{name}" in made.stdout

    built = run("hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist"), cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)

    found = run("gateway", "plugins", "--json", cwd=tmp_path, path=installed)
    assert {"kind": "backend", "name": name, "plugin": name} in json.loads(found.stdout)["offers"]
    tests = run("pytest", "-q", "-p", "no:cacheprovider", cwd=folder, path=installed)
    assert tests.returncode == 0, tests.stdout + tests.stderr

    config = tmp_path / "loud.yaml"
    config.write_text(f"models: {{mine: {{backend: {name}, options: {{pitch: 3}}}}}}\n")
    checked = run("gateway", "check", str(config), cwd=tmp_path, path=installed)
    assert checked.returncode == 1
    assert "models.mine.options.pitch: unknown setting" in checked.stderr
    assert checked.stderr.count("models.mine") == 1


def test_what_it_writes_is_small_and_clean(tmp_path: Path) -> None:
    folder = write_plugin("loud", tmp_path / "new")
    sources = sorted((folder / "gateway_loud").rglob("*.py"))
    assert [path.name for path in sources] == ["__init__.py", "backend.py", "engine.py"]
    assert sum(len(path.read_text().splitlines()) for path in sources) < 160
    assert not [path for path in folder.rglob("*") if path.is_file() and "$" in path.read_text()]
    settings = ["--isolated", "--line-length", "120", "--select", "E,F,W,B,UP", "--no-cache"]
    linted = run("ruff", "check", *settings, str(folder), cwd=tmp_path)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("name", ["", "Loud", "9lives", "a b", "../up", "loud-", "a--b", "x" * 41, "naïve", "a\n"])
def test_refuses_what_cannot_be_a_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a plugin's name"):
        write_plugin(name, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_refuses_the_name_of_what_is_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gateway_echo is installed already"):
        write_plugin("echo", tmp_path / "new")


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="no empty folder"):
        write_plugin("loud", tmp_path)
    with pytest.raises(ConfigError, match="no empty folder"):
        write_plugin("loud", tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert (write_plugin("loud", tmp_path / "empty") / "pyproject.toml").is_file()
