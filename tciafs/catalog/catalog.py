"""Listings: at once from disk, from the archive where never seen, renewed behind where expired.

A listing is believed when it is complete: nothing in this tree is ever empty, and an answer shorter
than the parent promises is a failure, never news.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress

import trio
from cachetools import LRUCache

from tciafs.archives.base import Archive, ArchiveError, BadAnswer, Failed
from tciafs.catalog.batches import Batches
from tciafs.catalog.crawl import Crawls, Thresholds
from tciafs.catalog.difference import Difference
from tciafs.catalog.freshness import Age, Freshness
from tciafs.catalog.rows import Node
from tciafs.catalog.store import Found, Store
from tciafs.database import Unwritable
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Instance, Kind, Patient, Record, Series, Study, collection_of
from tciafs.names import may_exist

logger = logging.getLogger(__name__)

_TIMES_KEPT = 50_000
_FILES_KEPT = 20_000
CONFIRMED_SECONDS = 600.0  # for how long a version is fetched without another question


OnChange = Callable[[int, Difference], None]
"""Take note of what a renewal changes in the directory of an inode number."""


def pass_over(inode: int, difference: Difference) -> None:
    """Take no note of it."""


class Catalog:
    """What exists in one archive."""

    def __init__(
        self,
        archive: Archive,
        store: Store,
        nursery: trio.Nursery,
        freshness: Freshness | None = None,
        on_change: OnChange = pass_over,
        thresholds: Thresholds | None = None,
    ) -> None:
        """Call `on_change` with what a renewal changes in the directory of an inode number."""
        self._archive = archive
        self._store = store
        self._freshness = freshness or Freshness()
        self._on_change = on_change
        self._flights: Flights[None] = Flights(nursery)
        self._crawls = Crawls(
            archive,
            store,
            self._flights,
            self._freshness.listings,
            self._forget_times,
            thresholds or Thresholds(),
        )
        self._batches = Batches(archive, store, self._flights, self._crawls, self._put, self._is_worth_asking)
        self._generation = store.generation
        self._listed_at: LRUCache[int, float] = LRUCache(_TIMES_KEPT)
        self._files: LRUCache[int, Node] = LRUCache(_FILES_KEPT)
        self._no_renewal_before: dict[int, float] = {}

    def close(self) -> None:
        """Give up every request under way."""
        self._flights.close()

    async def node(self, inode: int) -> Node | None:
        """Return what has the inode number; of a file that was opened lately, without a look at the disk."""
        node = self._files.get(inode)
        if node is None:
            node = await self._store.node(inode)
            if node is not None and node.kind is Kind.INSTANCE:
                self._files[inode] = node
        return node

    async def age(self, node: Node) -> Age:
        """Return the age of a directory's listing, once there is one.

        Raise `ArchiveError` only where none was ever had. An expired one is renewed behind.
        """
        deadline = trio.current_time() + self._freshness.deadline
        self._crawls.note_look(node)
        while (listed_at := await self._when_listed(node)) is None:
            self._crawls.note_request(node)
            if await self._comes_with_others(node):
                continue
            try:
                await self._flight(node).result(max(0.0, deadline - trio.current_time()))
            except ArchiveError:  # it may have been another study's request, which listed this one
                if await self._when_listed(node) is None:
                    raise
        self._batches.note_look(node)
        elapsed = time.time() - listed_at
        expires_in = self._freshness.ttl(node.kind) - elapsed
        if elapsed < 0:  # listed under a clock that went wrong: believed for ever, were it not for this
            expires_in = elapsed
        if expires_in < 0 and self._no_renewal_before.get(node.inode, 0.0) < time.time():
            self._renew_behind(node)
        return Age(listed_at, expires_in)

    async def ask_anew(self, node: Node) -> None:
        """Renew the listing of a directory, whatever its age; with no answer that was asked for earlier."""
        earlier = self._flights.under_way(_key(node))
        if earlier and earlier.is_wanted:
            with suppress(ArchiveError):
                await earlier.result(self._freshness.deadline)
        elif earlier:
            earlier.give_up("it is asked anew")
        await self._flight(node).result(self._freshness.deadline)

    async def expire_below(self, node: Node) -> int:
        """Let every listing below a directory be renewed at its next look; return how many there are."""
        below = await self._store.expire_below(node.inode)
        for inode in below:
            self._listed_at.pop(inode, None)
            self._no_renewal_before.pop(inode, None)
        return len(below)

    async def entries(self, node: Node) -> list[tuple[str, Node]]:
        """Return the names and nodes of a directory that was listed, in the order of names."""
        return await self._store.children(node.inode)

    async def child(self, node: Node, name: str) -> tuple[Found | None, float]:
        """Return what `name` stands for in a directory, or None, and for how many seconds that holds.

        Names that can stand for nothing cost no request.
        """
        if not may_exist(Kind(node.kind + 1), name):
            return None, self._freshness.ttl(node.kind)
        age = await self.age(node)
        return await self._store.child(node.inode, name), age.expires_in

    async def name_of(self, node: Node) -> str | None:
        """Return the name under which the node is shown."""
        return await self._store.name_of(node)

    async def is_listed(self, node: Node) -> bool:
        """Tell whether the latest listing of its parent has the node: not so of a replaced version."""
        return await self._store.is_listed(node)

    async def is_current(self, series: Node) -> bool:
        """Tell whether a version of a series may be fetched: the archive has the newest one alone.

        It is asked where it last said so more than ten minutes ago; its last word holds where it cannot
        answer now.
        """
        study = await self.node(series.parent)
        if study is not None and await self._is_unconfirmed(study):
            try:
                await self._flight(study).result(self._freshness.deadline)
            except (ArchiveError, Unwritable) as exc:
                logger.info("%s cannot be confirmed: %s", _title(study), exc)
                self._no_renewal_before[study.inode] = time.time() + self._freshness.pause
        return await self._store.is_listed(series)

    async def confirm_right(self, node: Node) -> None:
        """Raise `Refused` where the account of a login does not see the collection of `node` any more.

        NBIA refuses nothing then: the collection is as if it were not there (nbia-api 5).
        """
        if collection := collection_of(node.record):
            await self._archive.confirm_right(collection)

    async def _is_unconfirmed(self, study: Node) -> bool:
        listed_at = await self._store.listed_at(study.inode)  # maybe by another mount
        if listed_at is not None and 0 <= time.time() - listed_at <= CONFIRMED_SECONDS:
            return False
        return self._no_renewal_before.get(study.inode, 0.0) < time.time()

    async def _when_listed(self, node: Node) -> float | None:
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            self._listed_at.clear()
            self._files.clear()
        listed_at = self._listed_at.get(node.inode) or await self._store.listed_at(node.inode)
        if listed_at is not None:
            self._listed_at[node.inode] = listed_at
        return listed_at

    async def _comes_with_others(self, node: Node) -> bool:
        """Tell whether what was asked for with many others has brought the listing."""

        async def is_listed() -> bool:
            return await self._when_listed(node) is not None

        come_with = self._batches if node.kind is Kind.SERIES else self._crawls
        return await come_with.has_brought(node, is_listed)

    def _renew_behind(self, node: Node) -> None:
        self._crawls.note_request(node)
        if not self._crawls.is_asked_in_whole(node):
            self._flight(node)

    def _flight(self, node: Node) -> Flight[None]:
        """Return the request that brings the listing of `node`, begun where none is under way."""
        return self._flights.join(_key(node), _title(node), lambda flight: self._renew(node, flight))

    async def _renew(self, node: Node, flight: Flight[None]) -> None:
        try:
            if isinstance(node.record, Series):
                await self._batches.bring(node, node.record, flight)
            else:
                await self._put(await self._listings(node))
        except Exception as exc:  # a full disk is no reason to ask at every look, either
            self._no_renewal_before[node.inode] = time.time() + self._freshness.pause
            if isinstance(exc, BadAnswer | Failed):
                await self.confirm_right(node)
            raise
        self._no_renewal_before.pop(node.inode, None)

    async def _put(self, listings: dict[int, Sequence[Record]]) -> None:
        now = time.time()
        replaced = await self._store.replace(listings, now)
        for inode in listings:
            self._listed_at[inode] = now
        self._files.clear()  # a listing may bring other sizes for the same files
        for inode, (before, after) in replaced.items():
            self._on_change(inode, Difference.between(before, after))

    async def _listings(self, node: Node) -> dict[int, Sequence[Record]]:
        """Return what the archive lists of `node`, and what else came with the same requests."""
        match node.record:
            case None:
                return {node.inode: _not_empty(node, await self._archive.get_collections())}
            case Collection(name):
                return {node.inode: _not_empty(node, await self._archive.get_patients(name))}
            case Patient(collection, patient_id):
                studies = await self._archive.get_studies(collection, patient_id)
                return {node.inode: _not_empty(node, studies)}
            case Study():
                return await self._series_listings(node, node.record)
            case Series() | Instance():
                raise NotADirectoryError(_title(node))

    async def _series_listings(self, node: Node, study: Study) -> dict[int, Sequence[Record]]:
        """Return the series of every study of the patient that has as many as it should.

        Where `node` lacks some, its study may have changed since it was listed: both are asked again.
        """
        found = await self._complete_studies(node, study)
        if node.inode not in found:
            studies = await self._archive.get_studies(study.collection, study.patient_id)
            if studies:
                await self._put({node.parent: studies})
            found = await self._complete_studies(node, study)
        if node.inode not in found:
            await self._put(found)
            raise BadAnswer(f"{_title(node)}: fewer series came than the study's {study.series_count}")
        return found

    async def _complete_studies(self, node: Node, study: Study) -> dict[int, Sequence[Record]]:
        by_study: dict[str, list[Series]] = {}
        for series in await self._archive.get_series(study.collection, study.patient_id):
            by_study.setdefault(series.study_instance_uid, []).append(series)
        found: dict[int, Sequence[Record]] = {}
        for _, sibling in await self._store.children(node.parent):
            assert isinstance(sibling.record, Study)
            listed = by_study.get(sibling.record.study_instance_uid, [])
            if len(listed) >= max(sibling.record.series_count or 0, 1):
                found[sibling.inode] = listed
        return found

    def _is_worth_asking(self, series: Series) -> bool:
        """Tell whether anybody could look at a series that comes along with another."""
        return True

    def _forget_times(self, inodes: Sequence[int]) -> None:
        """Ask the store again when directories were listed."""
        for inode in inodes:
            self._listed_at.pop(inode, None)


def _not_empty(node: Node, records: Sequence[Record]) -> Sequence[Record]:
    if not records:
        raise BadAnswer(f"{_title(node)}: the archive listed nothing, which cannot be")
    return records


def _key(node: Node) -> Hashable:
    """Return what a request for the listing of `node` goes by: all studies of a patient come with one."""
    return node.kind, node.parent if node.kind is Kind.STUDY else node.inode


def _title(node: Node) -> str:
    match node.record:
        case None:
            return "the list of collections"
        case Collection(name):
            return f"the patients of {name}"
        case Patient(collection, patient_id):
            return f"the studies of {collection}/{patient_id}"
        case Study():
            return f"the series of {node.record.collection}/{node.record.patient_id}"
        case Series():
            return f"the instances of series {node.record.series_instance_uid}"
        case Instance():
            return f"the instance {node.record.sop_instance_uid}"
