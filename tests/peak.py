"""The most memory that a Python program held, told by the program itself as it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# A child's `ru_maxrss` would not do: Linux hands it on over exec, so it is at least what the parent held at the fork.
_RUN = """
import runpy, sys
told = sys.argv[1]
sys.argv = sys.argv[2:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    with open("/proc/self/status") as status, open(told, "w") as file:
        file.writelines(line.split()[1] for line in status if line.startswith("VmHWM:"))
"""


def peak_mb(arguments: Sequence[str], told: Path, **options: Any) -> float:
    """Run `python -m …` to its end; `told` is a file to write. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-c", _RUN, str(told), *arguments], check=True, **options)
    return int(told.read_text()) / 1024
