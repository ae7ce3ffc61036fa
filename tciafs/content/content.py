"""Open an object: from disk where it is there, else by the one fetch that all who open it share."""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from tciafs.archives.base import SERVER_BYTES_PER_SECOND, TRANSFERS, Archive
from tciafs.content.ahead.check import CheckAhead
from tciafs.content.ahead.readahead import Readahead, Siblings
from tciafs.content.ahead.series import Way
from tciafs.content.arrival import Arrival
from tciafs.content.fetch import Fetch
from tciafs.content.handle import (
    WHOLE_BYTES,
    ArrivingHandle,
    Confirm,
    Handle,
    Patience,
    Pending,
    RangedHandle,
    WholeHandle,
)
from tciafs.content.index import Stored, object_key
from tciafs.content.known import Known
from tciafs.content.place import Held, Place
from tciafs.content.ranges import Notes, Ranges
from tciafs.content.verified import Verified
from tciafs.flights import Flight, Flights
from tciafs.model import Instance

_RETRY_POLL_SECONDS = 0.1


@dataclass(slots=True)
class Counts:
    """What was asked of the cache, and what was transferred, since the mount began."""

    hits: int = 0
    misses: int = 0
    completed: int = 0
    failed: int = 0
    bytes: int = 0


class Content:
    """The bytes of one archive's instances."""

    def __init__(
        self,
        archive: Archive,
        place: Place,
        nursery: trio.Nursery,
        *,
        patience: Patience | None = None,
        verify_md5: bool = True,
        ahead: bool = False,
    ) -> None:
        """Serve what is in `place`; `ahead` brings what readers in order will open next."""
        self.counts = Counts()
        self.place = place
        self.known = Known(place.index)
        self._archive = archive
        self._patience = patience or Patience()
        self._verify_md5 = verify_md5
        self._flights: Flights[Held] = Flights(nursery, run_on_unbegun=False)
        self._slots = trio.CapacityLimiter(TRANSFERS)
        self._readahead = Readahead(archive, place, self._slots, nursery, self._begin) if ahead else None
        self._verified = Verified(place.cache, self.known)
        self._check_ahead = CheckAhead(nursery, self._verified.verify_ahead) if ahead else None
        self._arrivals: dict[str, Arrival] = {}
        # Objects of which the kernel may still keep pages that are not true.
        self._withdrawn: set[str] = set()
        self._used: dict[str, float] = {}
        place.limits.before_evicting = self.note_used
        notes = Notes(self._note_came, self._note_completed, self._note_withdrawn)
        self._ranges = Ranges(archive, place, nursery, self._slots, verify_md5, notes)

    @property
    def active(self) -> int:
        """Return how many objects are being fetched."""
        return len(self._flights) + len(self._ranges.flights)

    def close(self) -> None:
        """Give up every fetch under way."""
        if self._readahead:
            self._readahead.close()
        if self._check_ahead:
            self._check_ahead.close()
        self._flights.close()
        self._ranges.close()

    async def totals(self) -> tuple[int, int]:
        """Return the number of this archive's objects on disk and the sum of their bytes."""
        return await self.place.index.totals()

    async def note_used(self) -> None:
        """Record when objects were last opened: what an eviction goes by."""
        used, self._used = self._used, {}
        if used:
            await self.place.index.note_used(used)

    async def open(
        self,
        instance: Instance,
        confirm: Confirm = trio.lowlevel.checkpoint,
        siblings: Siblings | None = None,
    ) -> Handle:
        """Open an object: whole and verified up to 16 MiB, larger ones while they arrive.

        `siblings` tells what else there is in its series, so that it can be brought ahead.
        Raise `ArchiveError` when it cannot be had, `Overdue` when not in time, and what `confirm` raises
        before anything is fetched.
        """
        key = object_key(instance)
        handle: Handle | None = await self._open_cached(key, instance, confirm, siblings)
        if handle is None:
            await confirm()
        if self._readahead and siblings:
            await self._note_open(self._readahead, instance, handle, siblings)
        if handle is not None:
            self.counts.hits += 1
        else:
            self.counts.misses += 1
            handle = await self._open_fetched(key, instance, confirm)
        if key in self._withdrawn and handle.keep_cache:
            self._withdrawn.discard(key)
            handle.keep_cache = False
        return handle

    async def _note_open(
        self, readahead: Readahead, instance: Instance, handle: Handle | None, siblings: Siblings
    ) -> None:
        try:
            await readahead.note_open(instance, handle is not None, siblings)
        except BaseException:
            if handle:
                handle.close()
            raise

    async def _open_cached(
        self, key: str, instance: Instance, confirm: Confirm, siblings: Siblings | None
    ) -> WholeHandle | None:
        known = await self.known.find(key)
        if known is None or not known.on_disk:
            return None
        fd = self.place.cache.open(key, known.size)
        if fd is None:  # evicted by another mount, or removed by hand
            self.known.forget(instance)
            await self.place.index.note_gone([key])
            return None
        if self._check_ahead and siblings and known.size <= WHOLE_BYTES:
            self._check_ahead.note_open(instance, bool(self._verified.pending_of(known)), siblings)
        return await self._opened(fd, known, instance, confirm)

    async def _opened(self, fd: int, stored: Stored, instance: Instance, confirm: Confirm) -> WholeHandle:
        self.known.note(stored)
        self._used[stored.key] = time.time()
        pending = self._verified.pending_of(stored)
        handle = WholeHandle(
            fd, stored, pending, lambda damaged: self._repaired(damaged, stored.key, instance, confirm)
        )
        if stored.size <= WHOLE_BYTES:
            try:
                await self._verified.verify(fd, stored, pending)
                await handle.verify(0, stored.size)
            except BaseException:
                handle.close()
                raise
        return handle

    async def _open_fetched(self, key: str, instance: Instance, confirm: Confirm) -> Handle:
        if self._archive.has_ranges and (instance.size or 0) > WHOLE_BYTES:
            return await self._open_ranged(key, instance, confirm)
        if not self._slots.available_tokens:
            self._flights.make_way()
        flight = self._flight(key, instance)
        patience = self._patience.deadline + instance.estimate / SERVER_BYTES_PER_SECOND
        if instance.size is not None and instance.size > WHOLE_BYTES:
            arrival = await self._arrival(key, flight, patience)
            if arrival is not None:
                return ArrivingHandle(arrival, self._patience.deadline)
        return await self._opened(*await self._taken(flight, patience), instance, confirm)

    async def _open_ranged(self, key: str, instance: Instance, confirm: Confirm) -> Handle:
        await self.note_used()
        self._used[key] = time.time()
        ranged = await self._ranges.open(instance)
        return RangedHandle(ranged, self._patience, confirm)

    def _note_came(self, count: int) -> None:
        self.counts.bytes += count

    def _note_completed(self, stored: Stored) -> None:
        self.known.note(stored)
        self.counts.completed += 1

    def _note_withdrawn(self, key: str) -> None:
        self._withdrawn.add(key)
        self.counts.failed += 1

    async def _taken(self, flight: Flight[Held], patience: float) -> tuple[int, Stored]:
        """Return a file descriptor once the fetch is done; the last who waited closes the one they shared."""
        held = await flight.result(patience, self._patience.limit)
        try:
            return held.duplicate(), held.stored
        finally:
            if not flight.is_wanted:
                held.close()

    async def _arrival(self, key: str, flight: Flight[Held], patience: float) -> Arrival | None:
        """Return the attempt under way once its first bytes came, None when the fetch has ended."""
        began = trio.current_time()
        await flight.moved(patience)
        while not flight.is_done:
            arrival = self._arrivals.get(key)
            if arrival is not None and not arrival.has_ended:
                return arrival
            # That attempt failed: wait for the first bytes of the next one, or for the end.
            with trio.move_on_after(_RETRY_POLL_SECONDS):
                await flight.result(patience, self._patience.limit, began)
        return None

    def _flight(self, key: str, instance: Instance) -> Flight[Held]:
        what = f"image {instance.sop_instance_uid} of series {instance.series_instance_uid}"
        return self._flights.join(key, what, lambda flight: self._fetch(flight, key, instance))

    def _begin(self, instance: Instance, way: Way) -> bool:
        """Begin to fetch an object ahead; tell whether nobody else does."""
        key = object_key(instance)
        known = self.known.in_memory(key)
        if key in self._flights or self._flights.is_closed or (known and known.on_disk):
            return False
        what = f"image {instance.sop_instance_uid} of series {instance.series_instance_uid}"
        self._flights.join(key, what, lambda flight: self._fetch_ahead(flight, key, instance, way))
        return True

    async def _fetch_ahead(self, flight: Flight[Held], key: str, instance: Instance, way: Way) -> Held:
        way.on_begun = flight.note_begun
        failure: BaseException | None = None
        try:
            return await self._fetch(flight, key, instance, way)
        except BaseException as exc:
            failure = exc
            raise
        finally:
            way.end(instance.sop_instance_uid, failure)

    async def _fetch(
        self, flight: Flight[Held], key: str, instance: Instance, way: Way | None = None
    ) -> Held:
        def note_bytes(count: int, arrival: Arrival | None) -> None:
            self.counts.bytes += count
            if arrival is not None:  # not where the bytes come to another mount
                self._arrivals[key] = arrival
            flight.note_progress()

        fetch = Fetch(self._archive, self.place, instance, self._verify_md5, note_bytes, way)
        try:
            if way:
                held = await fetch.run(lambda: flight.is_wanted)
            else:
                async with self._slots:
                    flight.note_begun()
                    held = await fetch.run(lambda: flight.is_wanted)
        except BaseException:
            self.counts.failed += 1
            raise
        finally:
            self._arrivals.pop(key, None)
            if fetch.was_withdrawn:
                self._withdrawn.add(key)
        self.known.note(held.stored)
        self._verified.note_fetched(key, held.is_verified)
        if held.is_verified:
            self.counts.completed += 1
        if not flight.is_wanted:
            held.close()
        return held

    async def _repaired(
        self, damaged: int, key: str, instance: Instance, confirm: Confirm
    ) -> tuple[int, Stored, Pending]:
        """Set a damaged file aside and bring the object anew, unless another has done so."""
        if self.place.cache.holds(key, damaged):
            await self.place.index.note_gone([key])
            self.place.cache.set_aside(key, "its bytes are not those that were verified", damaged)
        self.known.forget(instance)
        self._withdrawn.add(key)
        await confirm()
        fd, stored = await self._taken(self._flight(key, instance), self._patience.deadline)
        return fd, stored, self._verified.pending_of(stored)
