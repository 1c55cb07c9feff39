"""The wheel alone: installed elsewhere with the lock that it carries, it serves and evaluates without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def test_a_wheel_serves_and_evaluates_without_a_checkout(tmp_path: Path) -> None:
    call(sys.executable, "-m", "build", "-q", "--wheel", "--no-isolation", "-o", str(tmp_path), cwd=ROOT)
    wheel = next(tmp_path.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        lock = archive.extract("gateway/requirements/cpu.txt", tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    call(UV, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv"), cwd=tmp_path)
    call(UV, "pip", "sync", "-q", "--python", python, *index(), lock, cwd=tmp_path)
    call(UV, "pip", "install", "-q", "--no-deps", "--python", python, str(wheel), cwd=tmp_path)
    gateway = str(tmp_path / "venv" / "bin" / "gateway")
    where = call(python, "-c", "import gateway; print(gateway.__file__)", cwd=tmp_path)
    assert str(tmp_path) in where
    config = Path(where.strip()).parent / "deployments"
    assert (config / "local.yaml").exists()
    assert "smoke" in call(gateway, "eval", "ls", cwd=tmp_path)
    with serving(config / "echo.yaml", free_port(), command=[gateway], cwd=tmp_path) as running:
        call(
            gateway, "eval", "run", "smoke", "--model", "echo", "--limit", "2",
            "--base-url", running.url, "--output", str(tmp_path / "out"), cwd=tmp_path,
        )  # fmt: skip
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())
    assert results["results"]


def index() -> list[str]:
    """Where the CPU build of torch comes from, as in the Makefile."""
    links = os.environ.get("UV_FIND_LINKS", "")
    if links and any(Path(links).glob("torch-*+cpu-*.whl")):
        return []
    return ["--extra-index-url", "https://download.pytorch.org/whl/cpu", "--index-strategy", "unsafe-best-match"]
