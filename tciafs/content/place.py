"""Where fetched objects go: a part to write to, and the way from there into the cache and its index."""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from tciafs.content.cache import Cache, Part
from tciafs.content.index import Index, Stored, object_key
from tciafs.content.limits import Limits
from tciafs.database import Unwritable
from tciafs.model import Instance

_LARGEST_IN_MEMORY = 256 << 20
_LOCK_POLL_SECONDS = 0.1


class Held:
    """An open file of a whole object, for all who waited for it: it need not be on disk by now.

    `is_verified` unless another mount brought it: then nobody has read it here.
    """

    def __init__(self, fd: int, stored: Stored, is_verified: bool = True) -> None:
        self.stored = stored
        self.is_verified = is_verified
        self.close = weakref.finalize(self, os.close, fd)  # once, at the latest when nobody holds this
        self._fd = fd

    def duplicate(self) -> int:
        """Return a file descriptor of one's own."""
        return os.dup(self._fd)


@dataclass(frozen=True, slots=True)
class Place:
    """The cache of one archive and account, its index, and the room of the directory that it shares."""

    cache: Cache
    index: Index
    limits: Limits

    @asynccontextmanager
    async def part(
        self, instance: Instance, is_room: bool, note_progress: Callable[[], None]
    ) -> AsyncIterator[Part | Held]:
        """Open a part, once no other mount writes the same; or yield what that one has brought.

        `note_progress` is called as often as something has come there.
        """
        key = object_key(instance)
        if is_room:
            part = await self._part_of_ours(key, note_progress)
        else:
            part = self._part_beside_the_limit(instance)
        try:
            held = await self._brought_by_another(key)
            yield held or part
        finally:
            part.close()

    async def keep(self, part: Part, instance: Instance) -> Held:
        """Make a verified part an object of the cache, unless it is one beside the limit."""
        key, series = object_key(instance), instance.series_instance_uid
        stored = Stored(key, series, part.size, part.md5, part.digests(), on_disk=part.is_on_disk)
        with trio.CancelScope(shield=True):  # a file without a row would be nobody's
            if part.is_on_disk:
                await trio.to_thread.run_sync(self.cache.commit, part, key)
            stored = await self._recorded(stored)
        return Held(os.dup(part.fd), stored)

    async def _part_of_ours(self, key: str, note_progress: Callable[[], None]) -> Part:
        arrived = 0
        while (part := self.cache.begin(key)) is None:
            before, arrived = arrived, self.cache.arrived(key)
            if arrived > before:
                note_progress()
            await trio.sleep(_LOCK_POLL_SECONDS)
        return part

    def _part_beside_the_limit(self, instance: Instance) -> Part:
        """Return a part that is not kept: in memory, or a file without a name where it is too large."""
        if (instance.size or instance.estimate) <= _LARGEST_IN_MEMORY:
            return Part.in_memory(object_key(instance))
        return self.cache.begin_nameless()

    async def _brought_by_another(self, key: str) -> Held | None:
        if not self.cache.path(key).exists():  # spares a visit to the index's thread
            return None
        stored = await self.index.get(key)
        if stored is None or not stored.on_disk:
            return None
        fd = self.cache.open(key, stored.size)
        return None if fd is None else Held(fd, stored, is_verified=False)

    async def _recorded(self, stored: Stored) -> Stored:
        """Record a true object; one that cannot be recorded is not kept, and read all the same."""
        try:
            await self.index.put(stored)
        except Unwritable as exc:
            self.index.tell_unwritable(stored.key, exc)
            if stored.on_disk:
                await trio.to_thread.run_sync(self.cache.remove, stored.key)
            return replace(stored, on_disk=False)
        if stored.on_disk:  # after the row: a count between the two would else lose it
            self.limits.note_kept(stored.size)
        return stored
