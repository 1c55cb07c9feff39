from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.serve.settings import WORKER_HOOK

LOADED = """
import gc, sys
from gateway.serve.library import import_serve
import_serve()
import ray.serve
assert ray.serve.run and gc.isenabled()
print([name for name in ("pandas", "chardet") if name in sys.modules])
import pandas
"""


@pytest.mark.slow
def test_serve_is_imported_without_data_frames_and_they_are_there_for_whoever_wants_them() -> None:
    child = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "[]"), child.stderr


def test_the_workers_hook_is_the_variable_that_ray_reads() -> None:
    from ray._private import ray_constants

    assert list(WORKER_HOOK) == [ray_constants.WORKER_PROCESS_SETUP_HOOK_ENV_VAR]
