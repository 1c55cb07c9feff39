"""Everything the registry knows at one moment, in memory, and how a name is turned into a version. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from gateway.adapters.version import PROD, AdapterVersion, Reference
from gateway.errors import AdapterError, ModelNotFound


class Alias(msgspec.Struct, frozen=True):
    """A name for the version that is meant now: `prod`."""

    base: str
    name: str
    alias: str
    version: int
    since: float
    """Unix time in seconds."""


class Catalog(msgspec.Struct, frozen=True):
    """All versions that were not removed, the oldest first, and all aliases as they stand."""

    revision: int = 0
    versions: tuple[AdapterVersion, ...] = ()
    aliases: tuple[Alias, ...] = ()

    def fitting(self, model: str, digest: str) -> list[AdapterVersion]:
        """What a model with these weights can serve. Where two bases have an adapter of one name, its own counts."""
        fitting = [version for version in self.versions if version.fits(model, digest)]
        own = {version.name for version in fitting if version.base == model}
        others = {version.name: version.base for version in fitting if version.name not in own}
        # Of several other bases with one name the latest counts: `others` holds the last one met.
        return [version for version in fitting if version.base == others.get(version.name, model)]

    def alias(self, version: AdapterVersion, alias: str) -> int | None:
        """Which version of the same adapter an alias stands for."""
        for entry in self.aliases:
            if (entry.base, entry.name, entry.alias) == (version.base, version.name, alias):
                return entry.version
        return None

    def aliases_of(self, version: AdapterVersion) -> list[str]:
        """The aliases that stand for exactly this version."""
        return [
            entry.alias
            for entry in self.aliases
            if (entry.base, entry.name, entry.version) == (version.base, version.name, version.version)
        ]

    def choose(self, model: str, digest: str, reference: Reference) -> AdapterVersion:
        """The version that answers to `reference` on this model.

        A bare name is its alias `prod`, else the newest version that can answer. Raises ModelNotFound that lists
        what there is, and AdapterError with the reason where what was meant cannot answer: nothing else does then.
        """
        fitting = self.fitting(model, digest)
        versions = [version for version in fitting if version.name == reference.name]
        if not versions:
            names = ", ".join(dict.fromkeys(f"{model}:{version.name}" for version in fitting)) or "none"
            raise ModelNotFound(f"{model} has no adapter {reference.name!r}; it has: {names}", param="model")
        number = reference.version
        if number is None:
            alias = reference.alias or PROD
            number = self.alias(versions[0], alias)
            if number is None and reference.alias:
                aliases = [entry.alias for entry in self.aliases if entry.name == reference.name]
                known = ", ".join(f"@{alias}" for alias in dict.fromkeys(aliases)) or "none"
                raise ModelNotFound(f"{reference.name} has no alias {alias!r}; it has: {known}", param="model")
        if number is None:
            usable = [version for version in versions if not version.problem_on(model)]
            return usable[-1] if usable else _usable(versions[-1], model)
        for version in versions:
            if version.version == number:
                return _usable(version, model)
        known = ", ".join(str(version.version) for version in versions)
        raise ModelNotFound(f"{reference.name} has no version {number}; it has: {known}", param="model")

    def by_id(self, id: str) -> AdapterVersion:
        """The version that engines know by this id. Raises ModelNotFound: it was removed."""
        for version in self.versions:
            if version.id == id:
                return version
        raise ModelNotFound(f"the adapter {id} was removed", param="model")

    def owners(self, name: str, models: Iterable[str], digests: dict[str, str]) -> list[str]:
        """The models that a bare name may mean: those it was made for, else those with the same weights."""
        fitting = {
            model: [version for version in self.fitting(model, digests.get(model, "")) if version.name == name]
            for model in models
        }
        own = [model for model, found in fitting.items() if any(version.base == model for version in found)]
        return own or [model for model, found in fitting.items() if found]


def _usable(version: AdapterVersion, model: str) -> AdapterVersion:
    if problem := version.problem_on(model):
        raise AdapterError(f"{model}:{version.label} cannot answer: {problem}", param="model")
    return version
