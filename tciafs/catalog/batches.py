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
_AHEAD = 2  # batches of a walk that has gone on for long: one is computed while the other comes

Listings = dict[int, Sequence[Record]]
Others = Sequence[tuple[int, Series]]


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
        self._choosing = trio.Lock()  # two would choose the same

    def note_look(self, node: Node) -> None:
        """Begin the next batch of a walk when somebody looks at one that came ahead."""
        if not isinstance(node.record, Series):
            return
        walk = self._crawls.walk_through(node.record.collection)
        if walk and (looked := [batch for batch in walk.unlooked if node.inode in batch]):
            walk.unlooked.remove(looked[0])
            self._go_on(walk, node.record)

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
        if walk:
            walk.unlooked.clear()  # somebody goes another way
            walk.under_way.add(flight)
        try:
            async with self._choosing:
                is_coming = node.inode in self._coming  # chosen while this one waited for its turn
                others = [] if is_coming else await self._choose(node, series, walk, flight)
            if is_coming and await self.has_brought(node, lambda: self._is_listed(node)):
                return
            await self._bring(node, series, others, walk, flight)
        finally:
            if walk:
                walk.under_way.discard(flight)

    async def _bring(
        self, node: Node, series: Series, others: Others, walk: Walk | None, flight: Flight[None]
    ) -> None:
        expected = [node.inode, *(inode for inode, _ in others)]
        began = trio.current_time()
        if walk and walk.images == _IMAGES:
            self._go_on(walk, series)
        try:
            listings = await self._listings(node, series, others)
            if walk:
                walk.under_way.discard(flight)
                _note_pace(walk, trio.current_time() - began)
                if not flight.is_wanted:
                    walk.unlooked.append(frozenset(listings))
                self._go_on(walk, series)
            await self._put(listings)
        finally:
            for inode in expected:
                if self._coming.get(inode) is flight:
                    del self._coming[inode]

    async def _is_listed(self, node: Node) -> bool:
        return await self._store.listed_at(node.inode) is not None

    def _go_on(self, walk: Walk, after: Series) -> None:
        """Let another batch come, unless enough have come or are to come that nobody has looked at."""
        enough = _AHEAD if walk.images == _IMAGES else 1
        if len(walk.under_way) + len(walk.unlooked) < enough:
            patient = Patient(walk.collection, after.patient_id)
            what = f"the next instances of {walk.collection}"
            flight = self._flights.join(object(), what, lambda flight: self._go_ahead(walk, patient, flight))
            walk.under_way.add(flight)

    async def _go_ahead(self, walk: Walk, patient: Patient, flight: Flight[None]) -> None:
        try:
            async with self._choosing:
                for node in await self._near(patient):
                    assert isinstance(node.record, Series)
                    if node.inode not in self._coming and self._is_wanted(node.record):
                        others = await self._choose(node, node.record, walk, flight)
                        break
                else:
                    return
            await self._bring(node, node.record, others, walk, flight)
        finally:
            walk.under_way.discard(flight)

    async def _near(self, patient: Patient) -> list[Node]:
        collection = self._store.inode_of(Collection(patient.collection))
        return await self._store.unlisted_near(collection, self._store.inode_of(patient))

    async def _choose(self, node: Node, series: Series, walk: Walk | None, flight: Flight[None]) -> Others:
        """Let the flight bring a series and others: of the same study, and on a walk of the next patients."""
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
        self._coming.update(dict.fromkeys((node.inode, *chosen), flight))
        return list(chosen.items())

    async def _listings(self, node: Node, series: Series, others: Others) -> Listings:
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
