"""Which blocks of the objects on disk were verified in this mount, by who opened them or ahead of that."""

from __future__ import annotations

import os

import trio
from cachetools import LRUCache

from tciafs.content.blocks import block_count
from tciafs.content.cache import Cache
from tciafs.content.handle import WHOLE_BYTES, Pending, is_whole_in
from tciafs.content.index import Stored, object_key
from tciafs.content.known import Known
from tciafs.model import Instance

_KEPT = 200_000
_THREADS = 16
_THREADS_AHEAD = 4  # beside those: who waits for a file does not wait for what nobody has opened


class Verified:
    """What is left to verify of each object, shared by all who open it."""

    def __init__(self, cache: Cache, known: Known) -> None:
        self._cache = cache
        self._known = known
        self._pending: LRUCache[str, Pending] = LRUCache(_KEPT)
        self._under_way: dict[str, trio.Event] = {}
        self._threads = trio.CapacityLimiter(_THREADS)
        self._ahead = trio.CapacityLimiter(_THREADS_AHEAD)
        self._threads_ahead = trio.CapacityLimiter(_THREADS_AHEAD)  # not those that wait for the disk

    def pending_of(self, stored: Stored) -> Pending:
        """Return the blocks that nobody has verified yet; who verifies one takes it out."""
        pending = self._pending.get(stored.key)
        if pending is None:
            pending = self._pending[stored.key] = set(range(block_count(stored.size)))
        return pending

    def note_fetched(self, key: str, is_verified: bool) -> None:
        """Count the object's new file: verified as it came, or brought by another mount."""
        if is_verified:
            self._pending[key] = set()
        else:
            self._pending.pop(key, None)

    async def verify(self, fd: int, stored: Stored, pending: Pending) -> None:
        """Verify a file that is open, or wait while another does so; blocks that are damaged stay pending."""
        while (ended := self._under_way.get(stored.key)) is not None:
            await ended.wait()
        if pending:
            await self._verify(fd, stored, pending, self._threads)

    async def verify_ahead(self, instance: Instance) -> None:
        """Verify the file of an object before it is opened, where an open would do so in whole.

        One that is damaged, or gone, is left as it is: who opens it finds that out and mends it.
        """
        async with self._ahead:
            stored = self._known.in_memory(object_key(instance))
            if stored is None or not stored.on_disk or stored.size > WHOLE_BYTES:
                return
            pending = self.pending_of(stored)
            if not pending or stored.key in self._under_way:
                return
            try:
                fd = os.open(self._cache.path(stored.key), os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # evicted meanwhile, perhaps by another mount
                return
            try:
                await self._verify(fd, stored, pending, self._threads_ahead)
            finally:
                os.close(fd)

    async def _verify(self, fd: int, stored: Stored, pending: Pending, threads: trio.CapacityLimiter) -> None:
        def verify() -> list[int]:
            return [number for number in numbers if is_whole_in(fd, stored, number)]

        numbers = sorted(pending)
        ended = self._under_way[stored.key] = trio.Event()
        try:
            pending.difference_update(await trio.to_thread.run_sync(verify, limiter=threads))
        finally:
            del self._under_way[stored.key]
            ended.set()
