"""The instances of series, with one question for as many series as one answer can hold.

Whoever looks at a series is about to look at the others of its study; whoever walks through a collection,
at those of the next patients, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import trio

from tciafs.archives.base import Archive, ArchiveError, BadAnswer
from tciafs.catalog.crawl import Crawls, IsListed, Walk
from tciafs.catalog.rows import Node
from tciafs.catalog.store import Store
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Patient, Record, Series

_IMAGES = 20_000  # a row of the drill-down is about 500 bytes
_SERIES = 1_000  # Tomcat takes no form of more than 10,000 fields; a series is two
_LEAST_IMAGES = 1_000
_QUICK_SECONDS, _SLOW_SECONDS = 3.0, 6.0
_PATIENCE = 5.0  # with a batch that another's look began

Listings = dict[int, Sequence[Record]]


class Batches:
    """The requests for instances, and which series each will bring."""

    def __init__(
        self,
        archive: Archive,
        store: Store,
        flights: Flights[None],
        crawls: Crawls,
        put: Callable[[Listings], Awaitable[None]],
        is_wanted: Callable[[Series], bool],
    ) -> None:
        self._archive = archive
        self._store = store
        self._flights = flights
        self._crawls = crawls
        self._put = put
        self._is_wanted = is_wanted
        self._coming: dict[int, Flight[None]] = {}

    def note_look(self, node: Node) -> None:
        """Begin the next batch of a walk when somebody looks at the last one."""
        if not isinstance(node.record, Series):
            return
        walk = self._crawls.walk_through(node.record.collection)
        if walk and node.inode in walk.brought:
            self._begin_next(walk, node.record)

    async def has_brought(self, node: Node, is_listed: IsListed) -> bool:
        """Tell whether a batch that is under way for another series brought this one: wait for it a while."""
        batch = self._coming.get(node.inode)
        if batch is None or batch.is_done:
            return False
        with suppress(ArchiveError):
            await batch.result(_PATIENCE)
        return await is_listed()

    async def bring(self, node: Node, series: Series, flight: Flight[None]) -> None:
        """Ask for the instances of a series, and for those of others that were never listed."""
        walk = self._crawls.walk_through(series.collection)
        others = await self._others(node, series, walk)
        expected = [node.inode, *(inode for inode, _ in others)]
        self._coming.update(dict.fromkeys(expected, flight))
        began = trio.current_time()
        try:
            listings = await self._listings(node, series, others)
            if walk:
                _note_pace(walk, trio.current_time() - began)
                walk.brought = frozenset(listings)
                if flight.is_wanted:
                    self._begin_next(walk, series)  # whoever waits will go on
            await self._put(listings)
        finally:
            for inode in expected:
                if self._coming.get(inode) is flight:
                    del self._coming[inode]

    def _begin_next(self, walk: Walk, after: Series) -> None:
        walk.brought = frozenset()
        patient = Patient(walk.collection, after.patient_id)
        what = f"the next instances of {walk.collection}"
        key = "ahead", walk.collection, after.series_instance_uid
        self._flights.join(key, what, lambda flight: self._go_ahead(walk, patient, flight))

    async def _go_ahead(self, walk: Walk, patient: Patient, flight: Flight[None]) -> None:
        for node in await self._near(patient):
            assert isinstance(node.record, Series)
            if node.inode not in self._coming and self._is_wanted(node.record):
                await self.bring(node, node.record, flight)
                return

    async def _near(self, patient: Patient) -> list[Node]:
        collection = self._store.inode_of(Collection(patient.collection))
        return await self._store.unlisted_near(collection, self._store.inode_of(patient))

    async def _others(self, node: Node, series: Series, walk: Walk | None) -> list[tuple[int, Series]]:
        """Return the series that come along: of the same study, and on a walk of the next patients."""
        others = await self._store.unlisted(node.parent)
        most = _IMAGES
        if walk:
            others += await self._near(Patient(series.collection, series.patient_id))
            most = walk.images
        images = series.image_count
        chosen: dict[int, Series] = {}
        for other in others:
            assert isinstance(other.record, Series)
            count = other.record.image_count
            is_coming = other.inode == node.inode or other.inode in chosen or other.inode in self._coming
            if not is_coming and images + count <= most and self._is_wanted(other.record):
                images += count
                chosen[other.inode] = other.record
            if len(chosen) == _SERIES - 1:
                break
        return list(chosen.items())

    async def _listings(self, node: Node, series: Series, others: Sequence[tuple[int, Series]]) -> Listings:
        """Return the instances of a series, and of others as far as they are complete."""
        answers = await self._archive.get_instances(series, [other for _, other in others])
        wanted = answers[series.series_instance_uid]
        if isinstance(wanted, ArchiveError) or len(wanted) != series.image_count:
            wanted = (await self._archive.get_instances(series))[series.series_instance_uid]
        if isinstance(wanted, ArchiveError):
            raise wanted
        if not wanted:
            uid = series.series_instance_uid
            raise BadAnswer(f"the instances of series {uid}: the archive listed nothing, which cannot be")
        found: Listings = {node.inode: wanted}
        for inode, other in others:
            listed = answers.get(other.series_instance_uid)
            if isinstance(listed, list) and listed and len(listed) == other.image_count:
                found[inode] = listed
        return found


def _note_pace(walk: Walk, seconds: float) -> None:
    """Ask for more at once where that is quick, and for less where somebody would wait too long."""
    if seconds < _QUICK_SECONDS:
        walk.images = min(2 * walk.images, _IMAGES)
    elif seconds > _SLOW_SECONDS:
        walk.images = max(walk.images // 2, _LEAST_IMAGES)
