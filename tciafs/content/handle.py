"""An open file: of an object that is whole, or of one that still arrives."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from tciafs.content.arrival import Arrival
from tciafs.content.blocks import BLOCK_BYTES, blocks_of, is_whole, span_of
from tciafs.content.index import Stored
from tciafs.content.ranges import Ranged

WHOLE_BYTES = 16 << 20  # up to here an open waits for the whole object
_DISK_THREADS = 16
_AHEAD_BYTES = 3 * BLOCK_BYTES

Pending = set[int]
"""The blocks of an object that were not yet verified in this mount, shared by all who have it open."""

Confirm = Callable[[], Awaitable[object]]
"""Raise where an object may not be fetched, since the archive has another version by now."""

Repair = Callable[[int], Awaitable[tuple[int, Stored, Pending]]]
"""Bring the object of a damaged file anew: a file descriptor of one's own, and what is known of it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a reader waits for bytes: `deadline` seconds without progress, `limit` seconds in all."""

    deadline: float = 30.0
    limit: float = math.inf


class Handle(Protocol):
    """An open file; `keep_cache` when the kernel may go on believing pages that it already has."""

    size: int
    keep_cache: bool

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return exactly the bytes asked for, fewer only at the end of the file."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class WholeHandle:
    """An open file of a whole object on disk; what is damaged there is fetched again, once."""

    _disk = trio.CapacityLimiter(_DISK_THREADS)

    def __init__(self, fd: int, stored: Stored, pending: Pending, repair: Repair) -> None:
        self.size = stored.size
        self.keep_cache = True
        self._stored = stored
        self._pending = pending
        self._fds = [fd]
        self._repair = repair
        self._one_at_a_time = trio.Lock()  # the kernel reads ahead: many ask for one block at once

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Return the bytes of a range, from the page cache without a thread."""
        wanted = max(min(size, self.size - offset), 0)
        if self._pending:
            await self.verify(offset, wanted)
        found: bytes | memoryview = _read_cached(self._fds[-1], offset, wanted)
        if len(found) < wanted:
            found = await trio.to_thread.run_sync(os.pread, self._fds[-1], wanted, offset, limiter=self._disk)
        if len(found) != wanted:  # a short answer would silently truncate the file in the kernel
            raise OSError(errno.EIO, f"a cached file ends at {offset + len(found)}: it was cut while open")
        return found

    async def verify(self, offset: int, size: int) -> None:
        """Verify the blocks of a range that nobody verified in this mount; mend what is damaged."""
        for number in blocks_of(offset, size):
            while number in self._pending:
                async with self._one_at_a_time:
                    await self._verify_block(number)

    async def _verify_block(self, number: int) -> None:
        pending = self._pending
        if number not in pending:  # whoever was here before has verified or replaced it
            return
        if await self._is_whole(number):
            pending.discard(number)
        else:
            await self._replace()

    async def _is_whole(self, number: int) -> bool:
        fd, stored = self._fds[-1], self._stored
        return await trio.to_thread.run_sync(is_whole_in, fd, stored, number, limiter=self._disk)

    async def _replace(self) -> None:
        if len(self._fds) > 1:
            raise OSError(errno.EIO, f"the cached file of {self._stored.key} is damaged again and again")
        fd, stored, pending = await self._repair(self._fds[-1])
        if stored.md5 != self._stored.md5:  # no reader sees a mix of two
            os.close(fd)
            raise OSError(errno.EIO, f"{self._stored.key} has other bytes than it had: open it again")
        self._fds.append(fd)  # the old file stays open: a read in another task may be under way in it
        self._stored, self._pending = stored, pending

    def close(self) -> None:
        """Close the file."""
        for fd in self._fds:
            os.close(fd)


class ArrivingHandle:
    """An open file of a large object that still arrives; once its fetch failed, it has failed for good."""

    keep_cache = False

    def __init__(self, arrival: Arrival, patience: float) -> None:
        arrival.hold()
        self.size = arrival.size
        self._arrival = arrival
        self._patience = patience

    async def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a range once they have arrived."""
        return await self._arrival.read(offset, size, self._patience)

    def close(self) -> None:
        """Leave the object to those who still read it."""
        self._arrival.release()


class RangedHandle:
    """An open file of an object whose blocks are fetched when they are read; it fails for good with one."""

    keep_cache = False

    def __init__(self, ranged: Ranged, patience: Patience, confirm: Confirm) -> None:
        self.size = ranged.size
        self._ranged = ranged
        self._patience = patience
        self._confirm = confirm
        self._failure: Exception | None = None
        self._asked_ahead: set[int] = set()

    async def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a range once their blocks are there."""
        if self._failure is not None:
            raise self._failure
        wanted = max(min(size, self.size - offset), 0)
        run = self._ranged.runs.note(offset, wanted)
        try:
            await self._have(blocks_of(offset, wanted))
            await self._go_ahead(run)
            return await self._ranged.read(offset, wanted)
        except Exception as exc:
            self._failure = exc
            raise

    async def _have(self, numbers: range) -> None:
        lacking = [number for number in numbers if self._ranged.lacks(number)]
        lacking = [number for number in lacking if not await self._ranged.find(number)]
        if lacking:
            await self._confirm()
            for flight in [self._ranged.fetch(number) for number in lacking]:
                await flight.result(self._patience.deadline, self._patience.limit)
        verification = self._ranged.verification()
        if verification is not None:
            await verification.result(self._patience.deadline, self._patience.limit)

    async def _go_ahead(self, run: range) -> None:
        """Fetch the next blocks for a reader that has read a whole one in one go."""
        if len(run) < BLOCK_BYTES:
            return
        ahead = blocks_of(run.stop, max(min(_AHEAD_BYTES, self.size - run.stop), 0))
        lacking = {number for number in ahead if self._ranged.lacks(number)} - self._asked_ahead
        if lacking:
            self._asked_ahead |= lacking
            await self._confirm()
            for number in sorted(lacking):
                self._ranged.fetch_ahead(number)

    def close(self) -> None:
        """Leave the object to those who still read it."""


def is_whole_in(fd: int, stored: Stored, number: int) -> bool:
    """Tell whether a file has the bytes of an object's block that were once verified."""
    span = span_of(number, stored.size)
    try:
        # No more than there is: room for a whole block, to be given back, takes longer than the rest of this.
        block = os.pread(fd, len(span), span.start)
    except OSError:  # a bad sector is damage like any other
        return False
    return is_whole(block, number, stored.digests)


def _read_cached(fd: int, offset: int, size: int) -> memoryview:
    """Return what the page cache has of the range, from its start: all of it, as a rule, without a thread."""
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
        count = 0
    return memoryview(buffer)[:count]
