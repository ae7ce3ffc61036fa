"""Renews what was listed of a whole collection: by what has changed since, where that is less than all of it.

Nothing tells what was withdrawn, so that all patients and studies are listed anew, which is little; a study's
SeriesCount then tells whether its series are as many as were listed. Of these, the archive says which were
submitted or released since.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import date, timedelta

import trio

from tciafs.archives.base import Archive, Unsupported
from tciafs.catalog.crawl import Crawls, Thresholds
from tciafs.catalog.difference import Put
from tciafs.catalog.expiry import Confirmed, Expiry
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.rows import Node
from tciafs.catalog.staged import Staged, bring
from tciafs.catalog.store import Store
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Patient, Series, Study

MOST_PATIENTS = 100  # that are asked for one by one
_MARGIN = timedelta(days=2)  # the archive tells days, in a time zone of its own
_UNSUPPORTED_PAUSE = 3600.0

Note = Callable[[Put], None]


class Updates:
    """The renewals of whole collections; `renew` brings one listing, `note` is told what was put."""

    def __init__(
        self,
        archive: Archive,
        store: Store,
        flights: Flights[None],
        crawls: Crawls,
        thresholds: Thresholds,
        freshness: Freshness,
        renew: Callable[[Node], Awaitable[None]],
        note: Note,
    ) -> None:
        self.expiry = Expiry(store.database)
        self._archive = archive
        self._store = store
        self._flights = flights
        self._crawls = crawls
        self._thresholds = thresholds
        self._freshness = freshness
        self._renew = renew
        self._note = note
        self._not_before: dict[str, float] = {}

    def begin(self, node: Node) -> bool:
        """Tell whether the whole collection of a node is renewed: begun now, where somebody walks there."""
        if not isinstance(node.record, Patient | Study | Series):
            return False
        name = node.record.collection
        if ("update", name) in self._flights:
            return True
        if not self._crawls.walk_through(name) or trio.current_time() < self._not_before.get(name, 0.0):
            return False
        self.join(name)
        return True

    def join(self, name: str) -> Flight[None]:
        """Return the renewal of a collection, begun where none is under way."""
        what = f"what has changed in {name}"
        return self._flights.join(("update", name), what, lambda flight: self._update(name, flight))

    async def is_worth_it(self, collection: Node) -> bool:
        """Tell whether so much of a collection was listed that it is cheaper to renew it as a whole."""
        patients, unlisted = await self._store.count_unlisted(collection.inode, 0.0)
        listed = patients - unlisted
        is_large = patients * self._thresholds.series_a_patient >= self._thresholds.series
        return listed >= max(self._thresholds.patients, self._thresholds.share * patients if is_large else 0)

    async def _update(self, name: str, flight: Flight[None]) -> None:
        def note(put: Put) -> None:
            flight.note_progress()
            self._note(put)

        self._not_before[name] = trio.current_time() + self._thresholds.pause
        collection = await self._store.node(self._store.inode_of(Collection(name)))
        if collection is None or not await self.is_worth_it(collection):
            return
        await self._renew(collection)
        began = time.time()
        patients, _ = await self._store.count_unlisted(collection.inode, 0.0)
        if patients * self._thresholds.series_a_patient <= self._thresholds.few_series:
            await self._list_studies(name, collection, began, note)
            await bring(Staged(self._store, Series, began), self._archive.open_series_of(name), note)
            await self._renew_older(name, collection, began, flight)
        elif confirmed := await self._expire_changed(name, collection, began, note):
            await self._list_studies(name, collection, began, note)
            await self.expiry.confirm(collection.inode, confirmed)
            await self._renew_older(name, collection, confirmed.since, flight)

    async def _list_studies(self, name: str, collection: Node, began: float, note: Note) -> None:
        studies = self._archive.open_studies(name)
        await bring(Staged(self._store, Study, began), studies, note, collection.inode)

    async def _expire_changed(
        self, name: str, collection: Node, began: float, note: Note
    ) -> Confirmed | None:
        """Expire the series of each study that the archive says has changed; return what holds then.

        That is None where nothing was listed that is young enough.
        """
        found = await self._period(collection, began)
        if found is None:
            return None
        since, asked_from = found
        changed: set[int] = set()
        try:
            day = date.fromtimestamp(asked_from) - _MARGIN
            async with self._archive.open_changed(name, day) as parts:
                async for studies in parts:
                    changed.update(map(self._store.inode_of, studies))
                    note(Put())
        except Unsupported:
            self._not_before[name] = trio.current_time() + _UNSUPPORTED_PAUSE
            raise
        await self.expiry.expire(changed)
        note(Put(expired=list(changed)))
        return Confirmed(since, began)

    async def _period(self, collection: Node, began: float) -> tuple[float, float] | None:
        """Return the time from which on listings are kept, and that from which on changes are asked for."""
        trusted = began - self._freshness.trust
        last = await self.expiry.confirmed(collection.inode)
        if last and trusted < last.at <= began:
            return max(last.since, trusted), last.at
        listed = await self.expiry.listed_studies(collection.inode)
        since = min((one.listed_at for one in listed if trusted < one.listed_at <= began), default=None)
        return None if since is None else (since, since)

    async def _renew_older(self, name: str, collection: Node, since: float, flight: Flight[None]) -> None:
        """Ask for the series that are not confirmed, by patients; where these are many, when looked at."""
        listed = await self.expiry.listed_studies(collection.inode)
        studies = {one.patient: one.study for one in listed if one.listed_at < since}
        if len(studies) > MOST_PATIENTS:
            return
        for study in studies.values():
            node = await self._store.node(study)
            if node is not None:
                await self._renew(node)
            flight.note_progress()
        self._not_before.pop(name, None)  # nothing is left that would begin another at once
