"""Objects of an archive with ranges: each block is fetched when it is first read, and kept from then on.

Once all blocks are there, no more is read before the whole is verified; what is not the archive's is
withdrawn, for whoever has it open, too.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import md5
from weakref import WeakValueDictionary

import stamina
import trio

from tciafs.archives.base import Archive, BadAnswer, Failed, Unavailable
from tciafs.content.blocks import (
    MISSING,
    Digests,
    block_count,
    blocks_of,
    digest_of_block,
    is_there,
    is_whole,
    span_of,
)
from tciafs.content.fetch import STALL_BYTES, STALL_SECONDS
from tciafs.content.index import Stored, object_key
from tciafs.content.place import Place
from tciafs.content.runs import Runs
from tciafs.content.sparse import Sparse
from tciafs.flights import Flight, Flights
from tciafs.model import Instance

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True, slots=True)
class Notes:
    """What is told of objects that come in ranges: bytes that came, and how an object ended."""

    came: Callable[[int], None]
    completed: Callable[[Stored], None]
    withdrawn: Callable[[str], None]


class Ranges:
    """The objects that are open and of which only some blocks are there."""

    def __init__(
        self,
        archive: Archive,
        place: Place,
        nursery: trio.Nursery,
        slots: trio.CapacityLimiter,
        verify_md5: bool,
        notes: Notes,
    ) -> None:
        self.archive = archive
        self.place = place
        self.slots = slots
        self.verify_md5 = verify_md5
        self.notes = notes
        self.flights: Flights[None] = Flights(nursery, run_on_unbegun=False)
        self._open: WeakValueDictionary[str, Ranged] = WeakValueDictionary()

    def close(self) -> None:
        """Give up every fetch under way."""
        self.flights.close()

    async def open(self, instance: Instance) -> Ranged:
        """Return the object of an instance, the same for all who have it open; asks the archive nothing."""
        key = object_key(instance)
        ranged = self._open.get(key)
        if ranged is None:
            digests = await self.place.index.blocks(key)
            file = Sparse.kept(self.place.cache, key, is_known=bool(digests))
            if digests and file.is_empty:  # removed by hand
                await self.place.index.drop_blocks([key])
            ranged = self._open.get(key)  # another may have opened it meanwhile
        if ranged is None:
            self._open[key] = ranged = Ranged(self, instance, file)
        return ranged

    def forget(self, key: str) -> None:
        """Let the next who opens the object begin anew."""
        self._open.pop(key, None)


class Ranged:
    """One object, of which more and more blocks are there."""

    def __init__(self, ranges: Ranges, instance: Instance, file: Sparse) -> None:
        assert instance.size is not None
        self.size = instance.size
        self.key = object_key(instance)
        self.runs = Runs()
        self._ranges = ranges
        self._place = ranges.place
        self._instance = instance
        self._file = file
        self._beside: Sparse | None = None  # what there is no room for in the cache
        self._held_beside: set[int] = set()
        self._there: set[int] = set()  # the blocks that were fetched or verified in this mount
        self._is_whole = False
        self._failure: Exception | None = None
        self._one_at_a_time = trio.Lock()

    def lacks(self, number: int) -> bool:
        """Tell whether nobody has read the block in this mount."""
        return number not in self._there

    async def find(self, number: int) -> bool:
        """Tell whether a block is on disk, as it was when it was fetched, by whatever mount."""
        self._check()
        async with self._one_at_a_time:
            if number in self._there:
                return True
            digests = await self._place.index.blocks(self.key)
            if not is_there(number, digests) or not self._file.is_kept:
                return False
            block = await trio.to_thread.run_sync(self._read_block, number)
            if not is_whole(block, number, digests):
                logger.warning("block %d of the cached file of %s is damaged", number, self.key)
                await self._place.index.put_block(self.key, self.size, number, MISSING)
                return False
            self._there.add(number)
            return True

    def fetch(self, number: int) -> Flight[None]:
        """Return the fetch of a block, begun where none is under way."""
        if not self._ranges.slots.available_tokens:
            self._ranges.flights.make_way()
        what = f"block {number} of image {self._instance.sop_instance_uid}"
        return self._ranges.flights.join((self.key, number), what, lambda flight: self._bring(flight, number))

    def fetch_ahead(self, number: int) -> None:
        """Fetch a block that nobody waits for, unless others are waited for."""
        if self._ranges.slots.available_tokens:
            self.fetch(number)

    def verification(self) -> Flight[None] | None:
        """Return the task that compares the whole with the archive's MD5, None if it cannot or need not."""
        self._check()
        if self._is_whole or len(self._there) < block_count(self.size):
            return None
        what = f"image {self._instance.sop_instance_uid}"
        return self._ranges.flights.join((self.key, "whole"), what, self._verify)

    async def read(self, offset: int, size: int) -> bytes:
        """Return a range whose blocks are there; raise where the object was withdrawn."""
        self._check()
        found = await trio.to_thread.run_sync(self._read, offset, size)
        if len(found) != size:  # a short answer would silently truncate the file in the kernel
            raise OSError(errno.EIO, f"the file of {self.key} was cut while it was open")
        return found

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _read(self, offset: int, size: int) -> bytes:
        pieces = []
        for number in blocks_of(offset, size):
            span = span_of(number, self.size)
            begin, end = max(offset, span.start), min(offset + size, span.stop)
            pieces.append(self._file_of(number).read(begin, end - begin))
        return b"".join(pieces)

    def _read_block(self, number: int) -> bytes:
        try:
            return self._file_of(number).read_block(number, self.size)
        except OSError:  # a bad sector is damage like any other
            return b""

    def _file_of(self, number: int) -> Sparse:
        return self._beside if self._beside and number in self._held_beside else self._file

    async def _bring(self, flight: Flight[None], number: int) -> None:
        async with self._ranges.slots:
            flight.note_begun()
            if not await self.find(number):  # by another mount, meanwhile
                await self._keep(number, await self._fetched(flight, number))
                self._there.add(number)

    async def _fetched(self, flight: Flight[None], number: int) -> bytes:
        retries = stamina.retry_context(
            on=lambda exc: flight.is_wanted and _worth_another_try(exc),
            attempts=_ATTEMPTS,
            timeout=None,
            wait_initial=0.1,
            wait_max=5.0,
            wait_jitter=0.3,
        )
        async for attempt in retries:
            with attempt:
                return await self._received(flight, span_of(number, self.size))
        raise AssertionError("stamina always returns or raises")

    async def _received(self, flight: Flight[None], span: range) -> bytes:
        name = self._instance.sop_instance_uid
        block = bytearray()
        unnoted = 0
        async with self._ranges.archive.open_instance(self._instance, span) as chunks:
            with trio.move_on_after(STALL_SECONDS) as watch:
                async for chunk in chunks:
                    block += chunk
                    unnoted += len(chunk)
                    if len(block) > len(span):
                        break
                    if unnoted >= STALL_BYTES:
                        self._note(flight, unnoted)
                        unnoted = 0
                        watch.deadline = trio.current_time() + STALL_SECONDS
            if watch.cancelled_caught:
                raise Unavailable(f"image {name}: silence after {len(block)} bytes of a block")
        self._note(flight, unnoted)
        if len(block) != len(span):
            raise BadAnswer(f"image {name}: {len(block)} bytes came of a range of {len(span)}")
        return bytes(block)

    def _note(self, flight: Flight[None], count: int) -> None:
        self._ranges.notes.came(count)
        flight.note_progress()

    async def _keep(self, number: int, block: bytes) -> None:
        """Write a block to the cache, or beside it where there is no room."""
        async with self._place.limits.reserved(len(block)) as is_room:
            if is_room and self._file.is_kept:
                try:
                    with trio.CancelScope(shield=True):  # bytes without a row would be counted by nobody
                        await trio.to_thread.run_sync(self._file.write_block, number, block)
                        await self._record(number, block)
                    return
                except OSError as exc:
                    logger.warning("blocks of %s are not kept: %s", self.key, exc)
                    await self._drop()
            if self._beside is None:
                self._beside = Sparse.beside(self._place.cache, self.key, self.size)
            await trio.to_thread.run_sync(self._beside.write_block, number, block)
            self._held_beside.add(number)

    async def _record(self, number: int, block: bytes) -> None:
        await self._place.index.put_block(self.key, self.size, number, digest_of_block(block))
        self._place.limits.note_kept(len(block))

    async def _drop(self) -> None:
        """Remove what the cache has of the object; whoever has it open keeps its bytes."""
        await trio.to_thread.run_sync(self._place.cache.remove, self.key)
        await self._place.index.drop_blocks([self.key])

    async def _verify(self, flight: Flight[None]) -> None:
        flight.note_begun()
        promised = None
        if self._ranges.verify_md5:
            promised = await self._ranges.archive.get_md5(self._instance)
        whole, digests = md5(usedforsecurity=False), Digests()
        for number in range(block_count(self.size)):
            block = await trio.to_thread.run_sync(self._read_block, number)
            if len(block) != len(span_of(number, self.size)):
                await self._withdraw("its file was cut while it was open")
            await trio.to_thread.run_sync(whole.update, block)
            await trio.to_thread.run_sync(digests.update, block)
            flight.note_progress()
        if promised not in (None, whole.hexdigest()):
            await self._withdraw(f"its MD5 is {whole.hexdigest()}, not {promised}")
        self._is_whole = True
        series = self._instance.series_instance_uid
        stored = Stored(self.key, series, self.size, whole.hexdigest(), digests.finish(), on_disk=True)
        if not self._held_beside and self._file.is_kept:
            await self._commit(stored)
        self._ranges.forget(self.key)

    async def _withdraw(self, why: str) -> None:
        self._failure = BadAnswer(f"image {self._instance.sop_instance_uid}: {why}")
        self._ranges.forget(self.key)
        self._ranges.notes.withdrawn(self.key)
        await self._drop()
        raise self._failure

    async def _commit(self, stored: Stored) -> None:
        """Make a whole object one like any other, unless another mount has."""
        known = await self._place.index.get(self.key)
        if known is not None and known.on_disk:
            return
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._place.cache.commit, self._file, self.key)
                await self._place.index.put(stored)
                await self._place.index.drop_blocks([self.key])
        except OSError as exc:
            logger.warning("%s cannot be recorded, so it is not kept: %s", self.key, exc)
            await self._drop()
            return
        self._ranges.notes.completed(stored)


def _worth_another_try(exc: Exception) -> bool | float:
    if not isinstance(exc, Unavailable | BadAnswer | Failed):
        return False
    after = getattr(exc, "retry_after", None)
    return True if after is None else min(after, _LONGEST_PAUSE)
