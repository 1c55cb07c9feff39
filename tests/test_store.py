"""The store: one file shared by several processes' worth of connections, and clear errors."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
import sqlalchemy as sql

from gateway.errors import ConfigError
from gateway.state import default_url
from gateway.store import Store


async def test_two_stores_share_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'gateway.db'}"
    one, other = Store(url), Store(url)
    await one.run(lambda db: db.execute(sql.text("create table words (word text)")))

    def write(store: Store, word: str) -> object:
        return store.run(lambda db: db.execute(sql.text("insert into words values (:w)"), {"w": word}))

    await asyncio.gather(*(write(store, f"{n}") for n in range(20) for store in (one, other)))  # type: ignore[arg-type]
    assert await other.run(lambda db: db.scalar(sql.text("select count(*) from words"))) == 40
    await one.close()
    await other.close()


async def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'gateway.db'}")
    await store.run(lambda db: db.execute(sql.text("create table words (word text)")))

    def fail(db: sql.Connection) -> None:
        db.execute(sql.text("insert into words values ('lost')"))
        raise KeyError("on the way")

    with pytest.raises(KeyError):
        await store.run(fail)
    assert await store.run(lambda db: db.scalar(sql.text("select count(*) from words"))) == 0
    await store.close()


async def test_nothing_is_written_after_its_writer_was_cancelled(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'gateway.db'}")
    await store.run(lambda db: db.execute(sql.text("create table words (word text)")))
    begun, go_on = threading.Event(), threading.Event()

    def write(db: sql.Connection) -> None:
        begun.set()
        assert go_on.wait(10)
        db.execute(sql.text("insert into words values ('late')"))

    writer = asyncio.ensure_future(store.run(write))
    assert await asyncio.to_thread(begun.wait, 10)
    writer.cancel()
    await asyncio.wait([writer], timeout=0.05)
    assert not writer.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert await store.run(lambda db: db.scalar(sql.text("select count(*) from words"))) == 1
    await store.close()


@pytest.mark.parametrize("url", ["nonsense", "nosuch://user:secret@host/db"])
def test_a_url_nobody_knows_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.store") as caught:
        Store(url)
    assert "secret" not in str(caught.value)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="the store"):
        await Store(f"sqlite:///{tmp_path / 'file' / 'gateway.db'}").run(lambda db: None)


def test_the_default_lies_with_the_users_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_url() == f"sqlite:///{tmp_path}/model-gateway/gateway.db"
