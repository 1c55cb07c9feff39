from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gateway import manifest
from gateway.errors import SourceError


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"one")
    read: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(manifest, "SETTLED_NS", 0)
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: (read.append(file.name), digest(file, name))[1])
    assert manifest.sha256_of(weights) == manifest.sha256_of(weights) == hashlib.sha256(b"one").hexdigest()
    assert len(read) == 1
    # As long as before, and with the time that it had: what was exchanged behind our back is still seen.
    replaced = tmp_path / "replaced"
    replaced.write_bytes(b"two")
    replaced.rename(weights)
    assert manifest.sha256_of(weights) == hashlib.sha256(b"two").hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"weights: cannot be read: No such file"):
        manifest.sha256_of(tmp_path / "weights")


def test_a_sealed_folder_that_changed_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"one")
    manifest.write(tmp_path, "source")
    manifest.verify(tmp_path)
    (tmp_path / "weights").write_bytes(b"two")
    with pytest.raises(SourceError, match=r"weights is damaged \(sha256 .* expected .*\): delete the folder"):
        manifest.verify(tmp_path)
