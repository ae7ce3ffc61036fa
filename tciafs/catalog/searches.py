"""Searches: at once from disk, from the archive where never made, made again behind where old.

Here alone an answer may be empty: whether anything matches is what a search asks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

import msgspec
import trio

from tciafs.archives.base import Archive
from tciafs.catalog.freshness import Age, Freshness
from tciafs.catalog.rows import Keys
from tciafs.catalog.store import Store
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Kind, Patient, Record, Series, key_of
from tciafs.selection import Selection


class Question(Hashable, Protocol):
    """What can be searched for; as a text, it is told to people."""

    @property
    def question(self) -> str:
        """Return the search as one text, the same for all who ask the same."""
        ...

    async def ask(self, archive: Archive) -> Keys:
        """Return the keys of what an archive finds."""
        ...


class Level(StrEnum):
    """What a search finds."""

    COLLECTIONS = "collections"
    PATIENTS = "patients"

    @property
    def kind(self) -> Kind:
        """Return the kind of the records that are found."""
        return Kind.COLLECTION if self is Level.COLLECTIONS else Kind.PATIENT


@dataclass(frozen=True, slots=True)
class Search:
    """A question: which collections, or which patients, are not empty in a selection?"""

    level: Level
    selection: Selection

    @property
    def question(self) -> str:
        """Return the search as one text, the same for all who ask the same."""
        chosen = self.selection
        values = (chosen.collections, chosen.patients, chosen.modalities, chosen.body_parts)
        return msgspec.json.encode((self.level, *values)).decode()

    def __str__(self) -> str:
        """Return what is searched for."""
        return f"the search for {self.level} with {self.selection}"

    async def ask(self, archive: Archive) -> Keys:
        """Return the keys of what is not empty."""
        if self.level is Level.COLLECTIONS:
            return frozenset(map(key_of, await archive.find_collections(self.selection)))
        return frozenset(map(key_of, await archive.find_patients(self.selection)))


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found, as keys of records, and of what age that is."""

    keys: Keys
    age: Age


@dataclass(frozen=True, slots=True)
class View:
    """What was found, by level of the tree; None of a level that was not searched."""

    collections: frozenset[str] | None = None
    patients: frozenset[tuple[str, ...]] | None = None
    series: frozenset[str] | None = None

    def has(self, record: Record | None) -> bool:
        """Tell whether a record was found, or its kind not searched."""
        match record:
            case Collection(name):
                return self.collections is None or name in self.collections
            case Patient(collection, patient_id):
                return self.patients is None or (collection, patient_id) in self.patients
            case Series():
                return self.series is None or record.series_instance_uid in self.series
        return True


@lru_cache(maxsize=100)
def view_of(keys: Keys, kind: Kind) -> View:
    """Return what the keys of records of one kind say of that level and of those above."""
    return View(
        frozenset(key[1] for key in keys),
        frozenset(key[1:3] for key in keys) if kind >= Kind.PATIENT else None,
        frozenset(key[4] for key in keys) if kind >= Kind.SERIES else None,
    )


class Searches:
    """What an archive's searches found: shared on disk by all mounts that ask the same."""

    def __init__(self, archive: Archive, store: Store, nursery: trio.Nursery, freshness: Freshness) -> None:
        self._archive = archive
        self._store = store
        self._freshness = freshness
        self._flights: Flights[None] = Flights(nursery)
        self._found: dict[Question, tuple[float, Keys]] = {}
        self._not_before: dict[Question, float] = {}

    def close(self) -> None:
        """Give up every search under way."""
        self._flights.close()

    async def find(self, search: Question, kind: Kind, deadline: float = math.inf) -> Result:
        """Return what a search for the entries of a directory of `kind` found last.

        Raise `ArchiveError` only where nothing was ever found out by `deadline`. What is older than such a
        listing may be is searched for again behind.
        """
        found = self._found.get(search) or await self._store.found(search.question)
        if found is None:
            await self._flight(search).result(max(0.0, deadline - trio.current_time()))
            found = self._found[search]
        self._found[search] = found
        asked_at, keys = found
        elapsed = time.time() - asked_at
        expires_in = self._freshness.ttl(kind) - elapsed
        if elapsed < 0:  # made under a clock that went wrong
            expires_in = elapsed
        if expires_in < 0 and self._not_before.get(search, 0.0) < time.time():
            self._flight(search)
        return Result(keys, Age(asked_at, expires_in))

    async def ask_anew(self, search: Question) -> None:
        """Make a search again, whatever its age; with no answer that was asked for earlier.

        Raise `ArchiveError` where that fails.
        """
        if earlier := self._flights.under_way(search):
            earlier.give_up("it is asked anew")
        await self._flight(search).result(self._freshness.deadline)

    async def expire(self, search: Question) -> None:
        """Let a search be made again when what it found is next looked at."""
        found = self._found.pop(search, None) or await self._store.found(search.question)
        if found:
            await self._store.put_found(search.question, 0.0, found[1])

    def _flight(self, search: Question) -> Flight[None]:
        """Return the request for what the search finds, begun where none is under way."""
        return self._flights.join(search, str(search), lambda _: self._make(search))

    async def _make(self, search: Question) -> None:
        try:
            keys = await search.ask(self._archive)
            found = time.time(), keys
            await self._store.put_found(search.question, *found)
        except Exception:  # a full disk is no reason to ask at every look, either
            self._not_before[search] = time.time() + self._freshness.pause
            raise
        self._found[search] = found
        self._not_before.pop(search, None)
