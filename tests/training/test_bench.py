"""The folder a training works in: one process at a time, kept when cut short, gone when nothing was begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway_training.bench import CHECKPOINT, move, occupied
from gateway_training.work import FILES


def test_two_processes_never_train_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / ".a.training"
    with (
        occupied(folder, resume=False, restart=False),
        pytest.raises(ConfigError, match="another process trains here"),
        occupied(folder, resume=False, restart=False),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_begun_is_kept_until_somebody_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / ".a.training"
    with pytest.raises(KeyboardInterrupt), occupied(folder, resume=False, restart=False):
        (folder / CHECKPOINT).write_bytes(b"x")
        raise KeyboardInterrupt
    with pytest.raises(ConfigError, match="--resume goes on, --restart begins again"):
        occupied(folder, resume=False, restart=False).__enter__()
    with occupied(folder, resume=True, restart=False):
        assert (folder / CHECKPOINT).exists()
    with occupied(folder, resume=False, restart=True):
        assert not (folder / CHECKPOINT).exists()
    with pytest.raises(ConfigError, match="holds no unfinished training"):
        occupied(folder, resume=True, restart=False).__enter__()


def test_a_finished_one_is_moved_without_its_checkpoint(tmp_path: Path) -> None:
    folder, target = tmp_path / ".a.training", tmp_path / "shelf" / "a"
    target.parent.mkdir()
    with occupied(folder, resume=False, restart=False):
        for name in (*FILES, CHECKPOINT, "README.md"):
            (folder / name).write_text(name)
        move(folder, target)
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["shelf"]
