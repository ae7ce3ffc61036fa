"""Listings: at once from disk, from the archive where never seen, renewed behind where expired.

A listing is believed when it is complete: nothing in this tree is ever empty, and an answer shorter
than the parent promises is a failure, never news.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress

import trio

from tciafs.archives.base import Archive, ArchiveError, BadAnswer, Failed
from tciafs.catalog.batches import Batches
from tciafs.catalog.crawl import Crawls, Thresholds
from tciafs.catalog.difference import Changes, OnChange, Put, pass_over
from tciafs.catalog.freshness import Age, Freshness
from tciafs.catalog.lately import Lately
from tciafs.catalog.questions import Listings, Questions, key_of_question, title_of
from tciafs.catalog.rows import Found, Node
from tciafs.catalog.store import Store
from tciafs.catalog.updates import Updates
from tciafs.database import Unwritable
from tciafs.flights import Flight, Flights
from tciafs.model import Collection, Kind, Series, Study, collection_of
from tciafs.names import may_exist

logger = logging.getLogger(__name__)

_BELOW = 2_000  # entries that are read at once
CONFIRMED_SECONDS = 600.0  # for how long a version is fetched without another question


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
        self.changes = Changes(on_change)
        self._flights: Flights[None] = Flights(nursery)
        thresholds = thresholds or Thresholds()
        ttl = self._freshness.listings
        self._crawls = Crawls(archive, store, self._flights, ttl, self._note_put, thresholds)
        self._batches = Batches(archive, store, self._flights, self._crawls, self._put, self._is_worth_asking)
        self._questions = Questions(archive, store, self._put)
        self._updates = Updates(
            archive,
            store,
            self._flights,
            self._crawls,
            thresholds,
            self._freshness,
            self._renew_unless_recent,
            self._note_put,
        )
        self._generation = store.generation
        self._lately = Lately()
        self._no_renewal_before: dict[int, float] = {}

    def close(self) -> None:
        """Give up every request under way."""
        self._flights.close()

    async def node(self, inode: int) -> Node | None:
        """Return what has the inode number; where it was asked for lately, without a look at the disk."""
        node, reading = self._lately.node(inode), self._lately.reading
        if node is None and (node := await self._store.node(inode)):
            self._lately.keep(node, reading)
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
        expires_in = self._expires_in(node, listed_at)
        if expires_in < 0:
            expires_in = self._expires_in(node, await self._held_at(node, listed_at))
        is_paused = self._no_renewal_before.get(node.inode, 0.0) >= time.time()
        # Nobody may have renewed it meanwhile; but it may have been expired.
        is_the_same = self._lately.listed_at(node.inode) in (None, listed_at)
        if expires_in < 0 and not is_paused and is_the_same:
            await self._renew_behind(node)
        return Age(listed_at, expires_in)

    async def ask_anew(self, node: Node) -> None:
        """Renew the listing of a directory, whatever its age; with no answer that was asked for earlier."""
        earlier = self._flights.under_way(key_of_question(node))
        if earlier and earlier.is_wanted:
            with suppress(ArchiveError):
                await earlier.result(self._freshness.deadline)
        elif earlier:
            earlier.give_up("it is asked anew")
        await self._flight(node).result(self._freshness.deadline)

    async def update(self, collection: Node) -> Flight[None] | None:
        """Begin to renew all that was listed of a collection; None where that is better done singly."""
        if not isinstance(collection.record, Collection) or not await self._updates.is_worth_it(collection):
            return None
        name = collection.record.name
        earlier = self._flights.under_way(("update", name))
        if earlier:
            earlier.give_up("it is asked anew")
        return self._updates.join(name)

    async def count_expired(self, collection: Node) -> int:
        """Return for how many studies of a collection the series are asked for at the next look."""
        listed = await self._updates.expiry.listed_studies(collection.inode)
        return sum(one.listed_at == 0 for one in listed)

    async def expire_below(self, node: Node) -> int:
        """Let every listing below a directory be renewed at its next look; return how many there are."""
        below = await self._store.expire_below(node.inode)
        self._lately.note_expired(below)
        for inode in below:
            self._no_renewal_before.pop(inode, None)
        return len(below)

    async def entries(self, node: Node) -> list[tuple[str, Node]]:
        """Return the names and nodes of a directory that was listed, in the order of names."""
        return await self._entries(node)

    async def _entries(self, node: Node) -> list[tuple[str, Node]]:
        entries, reading = self._lately.entries(node), self._lately.reading
        if entries is None:
            # Whoever lists a patient, or a study, goes on below as a rule.
            most = _BELOW if node.kind in (Kind.PATIENT, Kind.STUDY) else 1
            listings = await self._store.listings(node, most)
            for listing in listings:
                self._lately.keep_listing(listing, reading)
            entries = listings[0].entries if listings else []
        return entries

    def shows(self, node: Node) -> bool:
        """Tell whether a node is in what is shown of the archive, if its directory is."""
        return True

    async def child(self, node: Node, name: str) -> tuple[Found | None, float]:
        """Return what `name` stands for in a directory, or None, and for how many seconds that holds.

        Names that can stand for nothing cost no request.
        """
        if not may_exist(Kind(node.kind + 1), name):
            return None, self._freshness.ttl(node.kind)
        age = await self.age(node)
        return await self._find(node, name), age.expires_in

    async def _find(self, node: Node, name: str) -> Found | None:
        """Find a name in memory or on disk; of a series, all names are read at once."""
        lately = self._lately.find(node, name)
        if lately is None and self._lately.is_worth_listing(node):
            await self._entries(node)
            lately = self._lately.find(node, name)
        if lately:
            return Found(lately, is_alias=False)
        reading = self._lately.reading
        found = await self._store.child(node.inode, name)
        if found:
            self._lately.keep(found.node, reading)
        return found

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
        listed_at, is_listed = await self._store.standing(series)  # by whichever mount
        study = await self.node(series.parent)
        if study is not None and self._is_unconfirmed(study, listed_at):
            try:
                await self._flight(study).result(self._freshness.deadline)
            except (ArchiveError, Unwritable) as exc:
                logger.info("%s cannot be confirmed: %s", title_of(study), exc)
                self._no_renewal_before[study.inode] = time.time() + self._freshness.pause
            return await self._store.is_listed(series)
        return is_listed

    async def confirm_right(self, node: Node) -> None:
        """Raise `Refused` where the account of a login does not see the collection of `node` any more.

        NBIA refuses nothing then: the collection is as if it were not there (nbia-api 5).
        """
        if collection := collection_of(node.record):
            await self._archive.confirm_right(collection)

    def _is_unconfirmed(self, study: Node, listed_at: float | None) -> bool:
        if listed_at is not None and 0 <= time.time() - listed_at <= CONFIRMED_SECONDS:
            return False
        return self._no_renewal_before.get(study.inode, 0.0) < time.time()

    async def _when_listed(self, node: Node) -> float | None:
        if self._generation != self._store.generation:
            self._generation = self._store.generation
            self._lately.forget()
        listed_at, reading = self._lately.listed_at(node.inode), self._lately.reading
        if not listed_at and (listed_at := await self._store.listed_at(node.inode)) is not None:
            self._lately.keep_listed_at(node.inode, listed_at, reading)
        return listed_at

    async def _comes_with_others(self, node: Node) -> bool:
        """Tell whether what was asked for with many others has brought the listing."""

        async def is_listed() -> bool:
            return await self._when_listed(node) is not None

        come_with = self._batches if node.kind is Kind.SERIES else self._crawls
        return await come_with.has_brought(node, is_listed)

    def _expires_in(self, node: Node, listed_at: float) -> float:
        elapsed = time.time() - listed_at
        if elapsed < 0:  # listed under a clock that went wrong: believed for ever, were it not for this
            return elapsed
        return self._freshness.ttl(node.kind) - elapsed

    async def _held_at(self, node: Node, listed_at: float) -> float:
        """Return when a listing was last known to hold: when the archive told of all that has changed since.

        What is listed of a series holds while that is listed unchanged.
        """
        if isinstance(node.record, Study) and self._is_trusted(listed_at):
            collection = self._store.inode_of(Collection(node.record.collection))
            confirmed = await self._updates.expiry.confirmed(collection)
            return confirmed.at if confirmed and confirmed.holds(listed_at) else listed_at
        if isinstance(node.record, Series) and self._is_trusted(listed_at):
            study = await self.node(node.parent)
            told_at = await self._when_listed(study) if study else None
            if study and told_at is not None and await self._store.is_listed(node):
                return max(listed_at, await self._held_at(study, told_at))
        return listed_at

    def _is_trusted(self, listed_at: float) -> bool:
        return 0 <= time.time() - listed_at < self._freshness.trust

    async def _renew_behind(self, node: Node) -> None:
        self._crawls.note_request(node)
        if self._updates.begin(node) or self._crawls.is_asked_in_whole(node):
            return
        if isinstance(node.record, Series) and self._is_trusted(self._lately.listed_at(node.inode) or 0.0):
            # Its study's listing tells with one request of all series which have changed, perhaps by now.
            study = await self.node(node.parent)
            told_at = await self._when_listed(study) if study else None
            if study and told_at is not None:
                if self._expires_in(study, told_at) >= 0:
                    return
                node = study
        if self._no_renewal_before.get(node.inode, 0.0) < time.time():
            self._flight(node)

    async def _renew_unless_recent(self, node: Node) -> None:
        listed_at = await self._store.listed_at(node.inode)
        if listed_at is None or not 0 <= time.time() - listed_at <= CONFIRMED_SECONDS:
            await self._flight(node).result(self._freshness.deadline)

    def _flight(self, node: Node) -> Flight[None]:
        """Return the request that brings the listing of `node`, begun where none is under way."""
        return self._flights.join(
            key_of_question(node), title_of(node), lambda flight: self._renew(node, flight)
        )

    async def _renew(self, node: Node, flight: Flight[None]) -> None:
        try:
            if isinstance(node.record, Series):
                await self._batches.bring(node, node.record, flight)
            else:
                await self._put(await self._questions.listings(node))
        except Exception as exc:  # a full disk is no reason to ask at every look, either
            self._no_renewal_before[node.inode] = time.time() + self._freshness.pause
            if isinstance(exc, BadAnswer | Failed):
                await self.confirm_right(node)
            raise
        self._no_renewal_before.pop(node.inode, None)

    async def _put(self, listings: Listings) -> None:
        await self._store.replace(listings, time.time(), self._note_put)

    def _note_put(self, put: Put) -> None:
        self._lately.note_put(put)
        for inode, difference in put.changed.items():
            self.changes.tell(inode, difference)

    def _is_worth_asking(self, series: Series) -> bool:
        """Tell whether anybody could look at a series that comes along with another."""
        return True
