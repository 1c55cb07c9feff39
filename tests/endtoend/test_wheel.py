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


def on_these_packages(folder: Path) -> str:
    """An environment with the packages of this one, which are those of the lock, and without what is under development
    in it; its Python."""
    python = venv(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    # A folder named so brings its packages, and not the links to checkouts that it holds.
    (site / "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def installed(python: str, wheel: Path, folder: Path) -> tuple[str, Path]:
    """Install the wheel, nothing with it. Its command, which works in a folder that is no checkout, and its configs."""
    call(UV, "pip", "install", "-q", "--no-deps", "--python", python, str(wheel), cwd=folder)
    gateway = str(Path(python).with_name("gateway"))
    where = call(python, "-c", "import gateway; print(gateway.__file__)", cwd=folder)
    assert str(folder) in where
    config = Path(where.strip()).parent / "deployments"
    assert "can be served" in call(gateway, "check", str(config / "local.yaml"), cwd=folder)
    assert "smoke" in call(gateway, "eval", "ls", cwd=folder)
    return gateway, config


def serves_and_evaluates(python: str, wheel: Path, folder: Path) -> None:
    gateway, config = installed(python, wheel, folder)
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


def test_a_wheel_holds_all_that_is_used_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    packages = [ROOT / "gateway", *(ROOT / "plugins").glob("gateway_*"), ROOT / "evals" / "gateway_evals"]
    for package in packages:
        files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert files
        assert {path.relative_to(package.parent).as_posix() for path in files} <= held, package
    for folder in ("deployments", "evals/suites"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        assert {path.name for path in files} <= {Path(name).name for name in held}, folder


@pytest.mark.proof
def test_a_wheel_serves_and_evaluates_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    serves_and_evaluates(on_these_packages(tmp_path / "venv"), wheel, tmp_path)


def test_a_wheel_works_without_a_checkout(wheel: Path, tmp_path: Path) -> None:
    assert lock_of(wheel).read_text() == (ROOT / "requirements" / "cpu.txt").read_text()
    installed(on_these_packages(tmp_path / "venv"), wheel, tmp_path)


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
