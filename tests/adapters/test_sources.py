"""Sources of adapters: every scheme, a content-addressed copy, and nothing of what must not come in."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from gateway import plugins
from gateway.adapters.sources import CONFIG, WEIGHTS, AdapterSourceOffer, Kept, absolute, bring, find_kept
from gateway.errors import AdapterError
from gateway.hookspecs import hookimpl
from tests.adapters.making import write_adapter


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "made", layers=1)


def brought(source: str, tmp_path: Path, **more: Any) -> Kept:
    return bring(source, find=more.get("find", plugins.load().adapter_source), cache=tmp_path / "cache")


def left_in(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "adapters").glob("*"))


def test_the_same_content_from_anywhere_is_one_copy(adapter: Path, tmp_path: Path, monkeypatch: Any) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(adapter), "/bucket/support", recursive=True)
    site = tmp_path / "site"
    write_adapter(site / "shop_models" / "support", layers=1)
    info = site / "shop_models-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-models\nVersion: 1\n")
    (info / "RECORD").write_text(f"shop_models/support/{CONFIG},,\nshop_models/support/{WEIGHTS},,\n")
    monkeypatch.syspath_prepend(site)
    sources = [
        str(adapter),
        f"path:{adapter}",
        str(adapter / WEIGHTS),
        f"file://{adapter}",
        "memory://bucket/support",
        "package:shop-models/support",
        f"package:shop-models/support/{CONFIG}",
    ]
    kept = {source: brought(source, tmp_path) for source in sources}
    assert len({each.digest for each in kept.values()}) == 1
    assert left_in(tmp_path) == [kept[sources[0]].digest], "no half-made copies are left"
    assert (kept[sources[0]].path / WEIGHTS).read_bytes() == (adapter / WEIGHTS).read_bytes()


def test_another_file_is_another_digest(adapter: Path, tmp_path: Path) -> None:
    first = brought(str(adapter), tmp_path)
    write_adapter(adapter, layers=1, seed=1)
    assert brought(str(adapter), tmp_path).digest != first.digest


def test_a_damaged_copy_is_fetched_again(adapter: Path, tmp_path: Path) -> None:
    kept = brought(str(adapter), tmp_path)
    with (kept.path / WEIGHTS).open("r+b") as file:
        file.seek(500)
        file.write(b"\xff\xff")
    assert find_kept(kept.digest, tmp_path / "cache") is None
    assert brought(str(adapter), tmp_path) == kept
    assert find_kept(kept.digest, tmp_path / "cache") == kept


def test_pickles_are_refused_unread(adapter: Path, tmp_path: Path) -> None:
    (adapter / WEIGHTS).unlink()
    with (adapter / "adapter_model.bin").open("wb") as file:
        pickle.dump({}, file)
    for source in (str(adapter), f"file://{adapter}", str(adapter / "adapter_model.bin")):
        with pytest.raises(AdapterError, match=r"pickle.*safetensors"):
            brought(source, tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("memory://nothing/here", "it has no adapter_config.json and adapter_model.safetensors"),
        ("nosuch://bucket/x", "fsspec knows no scheme 'nosuch'"),
        ("s3://bucket/x", "s3fs"),
        ("gs://bucket/x", "gcsfs"),
        ("s3://user:secret@bucket/x", "no user or password"),
        ("package:no-such-thing/adapter", "is not installed"),
        ("package:pydantic/../../etc", "leads out of the package"),
        ("package:pydantic/adapter", "no such file"),
        ("hf:not/a/name", "is not of the form"),
        ("hf:nobody/nothing-at-all", "cannot be reached"),
    ],
)
def test_what_cannot_come_is_one_line_that_says_why(
    source: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for driver in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(AdapterError) as caught:
        brought(source, tmp_path)
    assert told in caught.value.message
    assert "\n" not in caught.value.message
    assert "secret" not in caught.value.message


def test_a_plugins_scheme_goes_before_fsspec_and_may_bring_two_files_only(adapter: Path, tmp_path: Path) -> None:
    def fetch(reference: str, folder: Path) -> None:
        for path in adapter.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        if reference.endswith("too-much"):
            (folder / "run.py").write_text("print('never')")

    class Vault:
        @hookimpl
        def register_adapter_sources(self, register: Any) -> None:
            register(AdapterSourceOffer("s3", fetch))

    find = plugins.Plugins([("vault", Vault())]).adapter_source
    assert brought("s3://shelf/support", tmp_path, find=find).digest
    with pytest.raises(AdapterError, match=r"run\.py, which is no part of an adapter"):
        brought("s3://shelf/too-much", tmp_path, find=find)


def test_a_link_that_leads_elsewhere_is_followed_to_its_content_only(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (adapter / CONFIG).unlink()
    (adapter / CONFIG).symlink_to(tmp_path / "secret.json")
    kept = brought(str(adapter), tmp_path)
    assert not (kept.path / CONFIG).is_symlink()


def test_a_path_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("runs/one") == str(tmp_path / "runs" / "one")
    assert absolute("s3://bucket/one") == "s3://bucket/one"
