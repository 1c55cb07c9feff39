"""What is known of adapters, for good: versions, aliases with their history, verdicts. Tables of the gateway's store.

Every change counts the revision up in the same transaction, so that who holds a catalog sees cheaply that it is old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import msgspec
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError

from gateway.adapters.catalog import Alias, Catalog
from gateway.adapters.version import PROD, AdapterVersion, Place, Reference, State, check_alias, check_name
from gateway.errors import AdapterError
from gateway.store import METADATA, Store

_VERSIONS = sql.Table(
    "adapter_versions",
    METADATA,
    sql.Column("base", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("base_digest", sql.String(64), nullable=False),
    sql.Column("digest", sql.String(64), nullable=False),
    sql.Column("source", sql.Text, nullable=False),
    sql.Column("rank", sql.Integer, nullable=False),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("metrics", sql.LargeBinary, nullable=False),
    sql.Column("verdict", sql.LargeBinary, nullable=False),
    sql.Column("created", sql.Float, nullable=False),
    sql.Column("wanted", sql.Boolean, nullable=False),
    # A removed version's number is never given again.
    sql.Column("removed", sql.Boolean, nullable=False),
)
_PLACES = sql.Table(
    "adapter_places",
    METADATA,
    sql.Column("base", sql.String(64), primary_key=True),
    sql.Column("name", sql.String(64), primary_key=True),
    sql.Column("version", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("model", sql.String(64), primary_key=True),
    sql.Column("state", sql.String(16), nullable=False),
    sql.Column("reason", sql.Text, nullable=False),
)
_ALIASES = sql.Table(
    "adapter_aliases",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True),
    sql.Column("base", sql.String(64), nullable=False),
    sql.Column("name", sql.String(64), nullable=False),
    sql.Column("alias", sql.String(64), nullable=False),
    sql.Column("version", sql.Integer, nullable=False),
    sql.Column("at", sql.Float, nullable=False),
    sql.Column("undone", sql.Boolean, nullable=False),
)
_REVISION = sql.Table(
    "adapter_revision",
    METADATA,
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("revision", sql.Integer, nullable=False),
)
_KEY = (_VERSIONS.c.base, _VERSIONS.c.name, _VERSIONS.c.version)
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Registry:
    """All adapters of a store. Several processes may use one store at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def revision(self) -> int:
        """Grows with every change. Cheap: one row."""
        return await self._store.run(_revision)

    async def catalog(self) -> Catalog:
        """Everything that was not removed."""
        return await self._store.run(_catalog)

    async def add(
        self,
        *,
        base: str,
        name: str,
        base_digest: str,
        digest: str,
        source: str,
        rank: int,
        metrics: Mapping[str, Any] | None = None,
        wanted: bool = False,
    ) -> AdapterVersion:
        """A new version, the newest of its name. Raises AdapterError for a name that cannot be one."""
        check_name(name)

        def work(db: sql.Connection) -> AdapterVersion:
            of_name = sql.and_(_VERSIONS.c.base == base, _VERSIONS.c.name == name)
            last: int | None = db.scalar(sql.select(sql.func.max(_VERSIONS.c.version)).where(of_name))
            version = AdapterVersion(
                base=base, name=name, version=(last or 0) + 1, base_digest=base_digest, digest=digest, source=source,
                rank=rank, metrics=dict(metrics or {}), created=time.time(), wanted=wanted,
            )  # fmt: skip
            db.execute(sql.insert(_VERSIONS).values(_row(version)))
            return version

        for _ in range(20):
            try:
                return await self._change(work)
            except IntegrityError:
                # Another process took the number between our look and our writing.
                continue
        raise AdapterError(f"{base}:{name} is being added to by others; try again")

    async def find(self, reference: Reference) -> AdapterVersion:
        """The version that people mean, whatever its state: a bare name is `prod`, else the newest.

        Raises AdapterError where there is none, or where several bases have one of this name.
        """
        return lookup(await self.catalog(), reference)

    async def set_metrics(self, version: AdapterVersion, metrics: Mapping[str, Any]) -> None:
        await self._set(version, metrics=_encode(metrics))

    async def set_verdict(self, version: AdapterVersion, verdict: Mapping[str, Any]) -> None:
        """What an evaluation said. `promote` refuses a version whose `verdict["verdict"]` is `worse`."""
        await self._set(version, verdict=_encode(verdict))

    async def set_state(self, version: AdapterVersion, state: State, reason: str = "") -> None:
        """What a verification found."""
        await self._set(version, state=state, reason=reason)

    async def set_wanted(self, version: AdapterVersion, wanted: bool) -> None:
        """Whether replicas load it when they start."""
        await self._set(version, wanted=wanted)

    async def set_place(self, version: AdapterVersion, place: Place) -> None:
        """What became of it on a model. Nothing is written where that is known already."""
        if place in version.places:
            return

        def work(db: sql.Connection) -> None:
            db.execute(sql.delete(_PLACES).where(_of(_PLACES, version), _PLACES.c.model == place.model))
            db.execute(sql.insert(_PLACES).values(**_key(version), **msgspec.structs.asdict(place)))

        await self._change(work)

    async def clear_places(self, version: AdapterVersion) -> None:
        """Forget what became of it: it is tried again."""
        await self._change(lambda db: db.execute(sql.delete(_PLACES).where(_of(_PLACES, version))))

    async def promote(self, version: AdapterVersion, alias: str = PROD, *, force: bool = False) -> None:
        """Let an alias stand for this version. Raises AdapterError for one that failed, or did worse than its base and
        is not forced."""
        check_alias(alias)
        if version.state == "failed":
            raise AdapterError(f"{version.label} failed its verification and cannot be promoted: {version.reason}")
        if version.is_worse and not force:
            raise AdapterError(f"{version.label} did worse than its base in an evaluation: --force promotes it anyway")

        def work(db: sql.Connection) -> None:
            if _current(db, version.base, version.name, alias) != version.version:
                row = {**_key(version), "alias": alias, "at": time.time(), "undone": False}
                db.execute(sql.insert(_ALIASES).values(row))

        await self._change(work)

    async def rollback(self, base: str, name: str, alias: str = PROD) -> AdapterVersion:
        """Let an alias stand for what it stood for before. Raises AdapterError where there is no such version."""

        def work(db: sql.Connection) -> AdapterVersion:
            living = {version.version: version for version in _catalog(db).versions if _same(version, base, name)}
            rows = db.execute(_history(base, name, alias)).all()
            if not rows:
                raise AdapterError(f"{base}:{name} has no alias {alias!r}: promote a version first")
            for row in rows[1:]:
                if row.version in living and row.version != rows[0].version:
                    undone = [later.id for later in rows if later.id > row.id]
                    db.execute(sql.update(_ALIASES).where(_ALIASES.c.id.in_(undone)).values(undone=True))
                    return living[row.version]
            raise AdapterError(f"{base}:{name}@{alias} stands for version {rows[0].version}, the first it ever had")

        return await self._change(work)

    async def remove(self, base: str, name: str, version: int | None = None) -> list[AdapterVersion]:
        """Take away one version, or all of a name with its aliases. Says which.

        Raises AdapterError where there is none, or where an alias stands for the one.
        """

        def work(db: sql.Connection) -> list[AdapterVersion]:
            catalog = _catalog(db)
            gone = [
                found
                for found in catalog.versions
                if _same(found, base, name) and (version is None or found.version == version)
            ]
            if not gone:
                which = name if version is None else f"{name}@{version}"
                raise AdapterError(f"{base} has no adapter {which}")
            if version is not None and (aliases := catalog.aliases_of(gone[0])):
                raise AdapterError(f"{name}@{aliases[0]} stands for version {version}: promote another one first")
            numbers = [found.version for found in gone]
            chosen = sql.and_(_VERSIONS.c.base == base, _VERSIONS.c.name == name, _VERSIONS.c.version.in_(numbers))
            db.execute(sql.update(_VERSIONS).where(chosen).values(removed=True, wanted=False))
            if version is None:
                of_name = sql.and_(_ALIASES.c.base == base, _ALIASES.c.name == name)
                db.execute(sql.update(_ALIASES).where(of_name).values(undone=True))
            return gone

        return await self._change(work)

    async def history(self, base: str, name: str, alias: str = PROD) -> list[Alias]:
        """What an alias stands for and stood for, the latest first."""

        def work(db: sql.Connection) -> list[Alias]:
            rows = db.execute(_history(base, name, alias)).all()
            return [Alias(base, name, alias, row.version, row.at) for row in rows]

        return await self._store.run(work)

    async def _set(self, version: AdapterVersion, **values: Any) -> None:
        await self._change(lambda db: db.execute(sql.update(_VERSIONS).where(_of(_VERSIONS, version)).values(**values)))

    async def _change(self, work: Callable[[sql.Connection], T]) -> T:
        def counted(db: sql.Connection) -> T:
            up = sql.update(_REVISION).where(_REVISION.c.id == 1).values(revision=_REVISION.c.revision + 1)
            if db.execute(up).rowcount == 0:
                db.execute(sql.insert(_REVISION).values(id=1, revision=1))
            return work(db)

        return await self._store.run(counted)


def lookup(catalog: Catalog, reference: Reference) -> AdapterVersion:
    """`Registry.find` in a catalog that is at hand."""
    found = [version for version in catalog.versions if version.name == reference.name]
    found = [version for version in found if reference.base in ("", version.base)]
    bases = list(dict.fromkeys(version.base for version in found))
    if not bases:
        names = ", ".join(dict.fromkeys(f"{version.base}:{version.name}" for version in catalog.versions)) or "none"
        raise AdapterError(f"no adapter {reference}; there are: {names}")
    if len(bases) > 1:
        raise AdapterError(f"{reference.name} is ambiguous: say {' or '.join(f'{b}:{reference.name}' for b in bases)}")
    number = reference.version
    if number is None:
        number = catalog.alias(found[0], reference.alias or PROD)
        if number is None and reference.alias:
            raise AdapterError(f"{bases[0]}:{reference.name} has no alias {reference.alias!r}")
    chosen = [version for version in found if number in (None, version.version)]
    if not chosen:
        known = ", ".join(str(version.version) for version in found)
        raise AdapterError(f"{bases[0]}:{reference.name} has no version {number}; it has: {known}")
    return chosen[-1]


def _revision(db: sql.Connection) -> int:
    return db.scalar(sql.select(_REVISION.c.revision)) or 0


def _catalog(db: sql.Connection) -> Catalog:
    # The revision first: what changes meanwhile is then seen as a change later.
    revision = _revision(db)
    places: dict[tuple[Any, ...], list[Place]] = {}
    for row in db.execute(sql.select(_PLACES)):
        places.setdefault((row.base, row.name, row.version), []).append(Place(row.model, row.state, row.reason))
    query = sql.select(_VERSIONS).where(sql.not_(_VERSIONS.c.removed)).order_by(*_KEY)
    versions = tuple(_version(row, places) for row in db.execute(query))
    living = {(version.base, version.name, version.version) for version in versions}
    latest: dict[tuple[str, str, str], Alias] = {}
    for row in db.execute(sql.select(_ALIASES).where(sql.not_(_ALIASES.c.undone)).order_by(_ALIASES.c.id)):
        if (row.base, row.name, row.version) in living:
            latest[row.base, row.name, row.alias] = Alias(row.base, row.name, row.alias, row.version, row.at)
    return Catalog(revision, versions, tuple(latest.values()))


def _history(base: str, name: str, alias: str) -> Any:
    mine = sql.and_(_ALIASES.c.base == base, _ALIASES.c.name == name, _ALIASES.c.alias == alias)
    return sql.select(_ALIASES).where(mine, sql.not_(_ALIASES.c.undone)).order_by(_ALIASES.c.id.desc())


def _current(db: sql.Connection, base: str, name: str, alias: str) -> int | None:
    row = db.execute(_history(base, name, alias)).first()
    return None if row is None else row.version


def _same(version: AdapterVersion, base: str, name: str) -> bool:
    return (version.base, version.name) == (base, name)


def _key(version: AdapterVersion) -> dict[str, Any]:
    return {"base": version.base, "name": version.name, "version": version.version}


def _of(table: sql.Table, version: AdapterVersion) -> Any:
    return sql.and_(*(table.c[name] == value for name, value in _key(version).items()))


def _row(version: AdapterVersion) -> dict[str, Any]:
    row = msgspec.structs.asdict(version)
    del row["places"]
    return {**row, "metrics": _encode(version.metrics), "verdict": _encode(version.verdict), "removed": False}


def _version(row: Any, places: Mapping[tuple[Any, ...], list[Place]]) -> AdapterVersion:
    values = cast(dict[str, Any], dict(row._mapping))
    del values["removed"]
    values["metrics"] = msgspec.json.decode(values["metrics"])
    values["verdict"] = msgspec.json.decode(values["verdict"])
    return AdapterVersion(**values, places=tuple(places.get((row.base, row.name, row.version), ())))
