"""The wheel alone: installed elsewhere with the lock that it carries, it serves and evaluates without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.running import free_port, serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))


def call(*command: str, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400, env=os.environ)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def venv(folder: Path) -> str:
    """An empty environment; its Python."""
    call(UV, "venv", "-q", "--python", sys.executable, str(folder), cwd=folder.parent)
    return str(folder / "bin" / "python")


def serves_and_evaluates(python: str, wheel: Path, folder: Path) -> None:
    """Install the wheel, nothing with it, and use it from a folder that is no checkout."""
    call(UV, "pip", "install", "-q", "--no-deps", "--python", python, str(wheel), cwd=folder)
    gateway = str(Path(python).with_name("gateway"))
    where = call(python, "-c", "import gateway; print(gateway.__file__)", cwd=folder)
    assert str(folder) in where
    config = Path(where.strip()).parent / "deployments"
    assert (config / "local.yaml").exists()
    assert "smoke" in call(gateway, "eval", "ls", cwd=folder)
    with serving(config / "echo.yaml", free_port(), command=[gateway], cwd=folder) as running:
        call(
            gateway, "eval", "run", "smoke", "--model", "echo", "--limit", "2",
            "--base-url", running.url, "--output", str(folder / "out"), cwd=folder,
        )  # fmt: skip
    results = json.loads(next((folder / "out").rglob("results_*.json")).read_text())
    assert results["results"]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    call(sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", str(tmp_path), cwd=ROOT)
    return next(tmp_path.glob("*.whl"))


def lock_of(wheel: Path) -> Path:
    """The lock that a wheel carries."""
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract("gateway/requirements/cpu.txt", wheel.parent))


def test_a_wheel_serves_and_evaluates_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """On the packages of this environment, which are those of the lock; without what is under development in it."""
    assert lock_of(wheel).read_text() == (ROOT / "requirements" / "cpu.txt").read_text()
    python = venv(tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    # A folder named so brings its packages, and not the links to checkouts that it holds.
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    serves_and_evaluates(python, wheel, tmp_path)


@pytest.mark.proof
def test_a_wheel_and_its_lock_are_all_that_is_needed(wheel: Path, tmp_path: Path) -> None:
    python = venv(tmp_path / "venv")
    call(UV, "pip", "sync", "-q", "--python", python, *index(), str(lock_of(wheel)), cwd=tmp_path)
    serves_and_evaluates(python, wheel, tmp_path)


def index() -> list[str]:
    """Where the CPU build of torch comes from, as in the Makefile."""
    links = os.environ.get("UV_FIND_LINKS", "")
    if links and any(Path(links).glob("torch-*+cpu-*.whl")):
        return []
    return ["--extra-index-url", "https://download.pytorch.org/whl/cpu", "--index-strategy", "unsafe-best-match"]
