"""A training as a job of a real Ray cluster, which a process of this test starts and ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.adapters.sources import digest_of
from tests.running import run
from tests.training.conftest import Write

pytestmark = [pytest.mark.slow, pytest.mark.proof]

HEAD = """
import sys, ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.fixture
def address() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as head:
        assert head.stdout is not None
        assert head.stdin is not None
        yield head.stdout.readline().strip()
        head.stdin.close()
        head.wait(30)


def test_a_cluster_trains_the_same_adapter(address: str, config_file: Path, write_rows: Write, tmp_path: Path) -> None:
    arguments = [
        "adapters", "train", "--base", "tiny", "--config", str(config_file), "--data", str(write_rows()),
        "--out", "colours", "--max-steps", "6", "--epochs", "10", "--batch-size", "4", "--rank", "4", "--json",
    ]  # fmt: skip
    # A cluster that `ray.init` starts asks for its token.
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token"}
    folders: list[Path] = []
    for where in ([], ["--ray", address]):
        done = run(*arguments, *where, "--folder", str(tmp_path / f"a{len(folders)}"), env=env)
        assert done.returncode == 0, done.stderr
        folders.append(Path(json.loads(done.stdout)["folder"]))
    assert digest_of(folders[0]) == digest_of(folders[1])
    assert (folders[1] / "curves.png").stat().st_size > 1000
    bad = run(*arguments, "--ray", address, "--data", str(write_rows(["{}"], "bad.jsonl")), env=env)
    assert "1 of 1 rows are bad; all of them" in " ".join(bad.stderr.split())
    del env["RAY_AUTH_MODE"]
    nowhere = run(*arguments, "--ray", address, env=env)
    assert nowhere.returncode == 1
    assert f"no Ray cluster at {address}" in nowhere.stderr
    assert "where it asks for a token, set RAY_AUTH_MODE=token" in " ".join(nowhere.stderr.split())
