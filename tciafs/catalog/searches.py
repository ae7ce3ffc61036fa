"""Searches: at once from disk, from the archive where never made, made again behind where old.

Here alone an answer may be empty: whether anything matches is what a search asks.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import trio

from tciafs.archives.base import Archive
from tciafs.catalog.freshness import Age, Freshness
from tciafs.catalog.store import Keys, Store
from tciafs.flights import Flight, Flights
from tciafs.model import Kind, key_of
from tciafs.selection import Selection


class Level(StrEnum):
    """What a search finds."""

    COLLECTIONS = "collections"
    PATIENTS = "patients"


@dataclass(frozen=True, slots=True)
class Search:
    """A question: which collections, or which patients, are not empty in a selection?"""

    level: Level
    selection: Selection

    @property
    def question(self) -> str:
        """Return the search as one text, the same for all who ask the same."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found, as keys of records, and of what age that is."""

    keys: Keys
    age: Age


class Searches:
    """What an archive's searches found: shared on disk by all mounts that ask the same."""

    def __init__(self, archive: Archive, store: Store, nursery: trio.Nursery, freshness: Freshness) -> None:
        self._archive = archive
        self._store = store
        self._freshness = freshness
        self._flights: Flights[None] = Flights(nursery)
        self._found: dict[Search, tuple[float, Keys]] = {}
        self._not_before: dict[Search, float] = {}

    def close(self) -> None:
        """Give up every search under way."""
        self._flights.close()

    async def find(self, search: Search, kind: Kind, deadline: float = math.inf) -> Result:
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

    def _flight(self, search: Search) -> Flight[None]:
        """Return the request for what the search finds, begun where none is under way."""
        what = f"the search for {search.level} with {search.selection}"
        return self._flights.join(search, what, lambda _: self._make(search))

    async def _make(self, search: Search) -> None:
        try:
            keys = await self._ask(search)
            found = time.time(), keys
            await self._store.put_found(search.question, *found)
        except Exception:  # a full disk is no reason to ask at every look, either
            self._not_before[search] = time.time() + self._freshness.pause
            raise
        self._found[search] = found
        self._not_before.pop(search, None)

    async def _ask(self, search: Search) -> Keys:
        if search.level is Level.COLLECTIONS:
            return frozenset(map(key_of, await self._archive.find_collections(search.selection)))
        return frozenset(map(key_of, await self._archive.find_patients(search.selection)))
