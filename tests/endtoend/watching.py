"""A stranger's plugin for the gateway of these tests: each replica writes down which adapters came and went."""

from __future__ import annotations

from pathlib import Path

PLUGIN = """
import os
from pathlib import Path

from gateway.hookspecs import hookimpl

NOTES = Path("{notes}")


def note(line):
    with (NOTES / str(os.getpid())).open("a") as file:
        file.write(line + "\\n")


@hookimpl
async def adapter_loaded(name, adapter):
    note(f"loaded {{name}} {{adapter.id}}")


@hookimpl
async def adapter_evicted(name, id):
    note(f"evicted {{name}} {{id}}")
"""


def install(folder: Path) -> tuple[dict[str, str], Path]:
    """(the environment in which a gateway finds the plugin, the folder of notes: a file for each process)."""
    site, notes = folder / "site", folder / "notes"
    info = site / "watching-1.dist-info"
    info.mkdir(parents=True)
    notes.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: watching\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[gateway]\nwatching = watching_plugin\n")
    (site / "watching_plugin.py").write_text(PLUGIN.format(notes=notes))
    return {"PYTHONPATH": str(site)}, notes


def noted(notes: Path, line: str) -> list[str]:
    """Processes that have written this line, once for each time."""
    return [file.name for file in notes.iterdir() for each in file.read_text().splitlines() if each == line]
