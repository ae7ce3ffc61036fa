"""Bring one object: its bytes and the archive's MD5 side by side, verified, then committed.

An image is true when its size and MD5 hold. The promised size is the archive's database speaking,
not the file: where the MD5, or a second fetch, agrees with what came, that is the size.
"""

from __future__ import annotations

import errno
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import stamina
import stamina.instrumentation
import trio

from tciafs.archives.base import Archive, ArchiveError, BadAnswer, Failed, Unavailable
from tciafs.content.arrival import Arrival
from tciafs.content.cache import Part
from tciafs.content.index import object_key
from tciafs.content.place import Held, Place
from tciafs.model import Instance

stamina.instrumentation.set_on_retry_hooks([])  # an attempt that is made again is no warning

_ATTEMPTS = 3
STALL_SECONDS = 20.0
STALL_BYTES = 10_000
_WRITE_BYTES = 1 << 20  # what one visit to a thread is worth
_WRITE_SECONDS = 1.0  # or as much as came in this time: readers wait for it, here and in other mounts
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Unverified(BadAnswer):
    """What came does not match what the archive says of it; `came` are its size and MD5."""

    def __init__(self, message: str, size: int, md5: str) -> None:
        super().__init__(message)
        self.came = (size, md5)


class NoRoomAhead(ArchiveError):
    """The cache has no room for what nobody waits for."""


class Source(Protocol):
    """Another way to an object's bytes and its MD5 than one request for each."""

    def open(self, instance: Instance) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the bytes, once it is their turn."""
        ...

    def is_hurried(self, instance: Instance) -> bool:
        """Tell whether the MD5 is worth a question of its own, asked beside that for the bytes."""
        ...

    def note_came(self, instance: Instance, came: str) -> None:
        """Take down the MD5 of the bytes that came."""
        ...

    async def promised_md5(self, instance: Instance, came: str) -> str | None:
        """Return the archive's MD5 of what `came`, once somebody needs it; None where there is none."""
        ...


class Fetch:
    """One object on its way from an archive into a cache."""

    def __init__(
        self,
        archive: Archive,
        place: Place,
        instance: Instance,
        verify_md5: bool,
        note_bytes: Callable[[int, Arrival | None], None],
        source: Source | None = None,
    ) -> None:
        """Bring `instance` by a request for its bytes and one for its MD5, or ahead of its reader."""
        self.was_withdrawn = False
        self._archive = archive
        self._place = place
        self._instance = instance
        self._key = object_key(instance)
        self._verify_md5 = verify_md5
        self._note_bytes = note_bytes
        self._source = source
        self._came_before: set[tuple[int, str]] = set()
        self._disk_was_full = 0

    async def run(self, is_wanted: Callable[[], bool]) -> Held:
        """Return the object once it is whole and verified.

        Raise `ArchiveError` after three attempts, or after one that fails when nobody wants it any more.
        """
        self._is_wanted = is_wanted
        retries = stamina.retry_context(
            on=self._worth_another_try,
            attempts=_ATTEMPTS,
            timeout=None,  # an attempt at a large object may take minutes
            wait_initial=0.1,
            wait_max=5.0,
            wait_jitter=0.3,
        )
        async for attempt in retries:
            with attempt:
                return await self._attempt()
        raise AssertionError("stamina always returns or raises")

    def _worth_another_try(self, exc: Exception) -> bool | float:
        if isinstance(exc, Unverified):
            self._came_before.add(exc.came)
        if isinstance(exc, OSError) and exc.errno in _NO_ROOM:
            self._disk_was_full += 1
            return 0.0
        if not isinstance(exc, Unavailable | BadAnswer | Failed) or not self._is_wanted():
            return False
        after = getattr(exc, "retry_after", None)
        return True if after is None else min(after, 30.0)

    async def _attempt(self) -> Held:
        size = self._instance.size or self._instance.estimate
        if self._disk_was_full == 1:
            await self._place.limits.evict(size)
        async with self._place.limits.reserved(size) as is_room:
            if self._disk_was_full > 1:
                is_room = False
            if not is_room and self._source and not self._is_wanted():
                raise NoRoomAhead(f"image {self._key}: no room in the cache to fetch it ahead")
            async with self._place.part(self._instance, is_room, self._note_progress_elsewhere) as part:
                return part if isinstance(part, Held) else await self._bring(part)

    def _note_progress_elsewhere(self) -> None:
        self._note_bytes(0, None)

    async def _bring(self, part: Part) -> Held:
        """Fill a part, letting others read it meanwhile."""
        self._arrival = Arrival(part, self._instance.size or 0, f"image {self._instance.sop_instance_uid}")
        try:
            promised_md5 = await self._receive(part)
            self._verify(part, promised_md5)
            held = await self._place.keep(part, self._instance)
            self._arrival.end(size=part.size)
            return held
        except BaseException as exc:
            failure = exc if isinstance(exc, Exception) else Unavailable(f"image {self._key}: given up")
            self._arrival.end(failure=failure)
            raise
        finally:
            self._arrival.release()
            # The kernel may keep pages of what was read before it failed.
            self.was_withdrawn |= bool(self._arrival.failure and self._arrival.was_read)

    async def _receive(self, part: Part) -> str | None:
        """Write the object's bytes to `part`, and return the MD5 that the archive gives, asked meanwhile."""
        source, instance = self._source, self._instance
        opening = source.open(instance) if source else self._archive.open_instance(instance)
        if source is None or source.is_hurried(instance):
            promised_md5 = await self._receive_both(part, opening)
            if source:
                source.note_came(instance, part.md5)
            return promised_md5
        await self._receive_bytes(part, opening)
        return await source.promised_md5(instance, part.md5) if self._verify_md5 else None

    async def _receive_both(
        self, part: Part, opening: AbstractAsyncContextManager[AsyncIterator[bytes]]
    ) -> str | None:
        promised: list[str | None] = [None]
        failures: list[Exception] = []

        async def ask_md5() -> None:
            try:
                promised[0] = await self._archive.get_md5(self._instance)
            except ArchiveError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            if self._verify_md5:
                nursery.start_soon(ask_md5)
            try:
                await self._receive_bytes(part, opening)
            except (ArchiveError, OSError) as exc:
                failures.insert(0, exc)
                nursery.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return promised[0]

    async def _receive_bytes(
        self, part: Part, opening: AbstractAsyncContextManager[AsyncIterator[bytes]]
    ) -> None:
        async with opening as chunks:
            with trio.move_on_after(STALL_SECONDS) as watch:
                await self._write(part, chunks, watch)
            if watch.cancelled_caught:
                name = self._instance.sop_instance_uid
                raise Unavailable(f"image {name}: the archive fell silent after {part.size} bytes")

    async def _write(self, part: Part, chunks: AsyncIterator[bytes], watch: trio.CancelScope) -> None:
        pieces: list[bytes] = []
        waiting = unnoted = 0  # bytes
        written_at = trio.current_time()
        async for chunk in chunks:
            pieces.append(chunk)
            waiting += len(chunk)
            unnoted += len(chunk)
            if unnoted >= STALL_BYTES:
                self._note(unnoted, part)
                unnoted = 0
                watch.deadline = trio.current_time() + STALL_SECONDS
            if waiting >= _WRITE_BYTES or trio.current_time() - written_at > _WRITE_SECONDS:
                left = watch.deadline - trio.current_time()
                watch.deadline = math.inf  # the disk's time is not the archive's
                await trio.to_thread.run_sync(_write_joined, part, pieces)
                written_at = trio.current_time()
                watch.deadline = written_at + left
                pieces, waiting = [], 0
        watch.deadline = math.inf
        await trio.to_thread.run_sync(_write_joined, part, pieces)
        self._note(unnoted, part)

    def _note(self, count: int, part: Part) -> None:
        self._arrival.note_available(part.size)
        self._note_bytes(count, self._arrival)

    def _verify(self, part: Part, promised_md5: str | None) -> None:
        """Raise `Unverified` unless what came is what the archive has."""
        name, promised, came = self._instance.sop_instance_uid, self._instance.size, (part.size, part.md5)
        if promised_md5 is not None:
            if part.md5 != promised_md5:
                raise Unverified(f"image {name}: its MD5 is {part.md5}, not {promised_md5}", *came)
            return
        if part.size == 0:
            raise BadAnswer(f"image {name}: nothing came")
        if promised is not None and part.size != promised and came not in self._came_before:
            raise Unverified(f"image {name}: {part.size} bytes came, not {promised}", *came)


def _write_joined(part: Part, pieces: Sequence[bytes]) -> None:
    part.write(b"".join(pieces))  # joined in the thread that writes
