"""An object's bytes while they arrive: how far they are, until the object is whole or the attempt failed."""

from __future__ import annotations

import errno
import os
import weakref

import trio

from tciafs.archives.base import ArchiveError, Overdue
from tciafs.content.blocks import BLOCK_BYTES, block_count
from tciafs.content.cache import Part


class Arrival:
    """One attempt to bring an object of `size` promised bytes; may be read before it ends."""

    def __init__(self, part: Part, size: int, what: str) -> None:
        self.size = size
        self.is_whole = False
        self.was_read = False
        self.failure: Exception | None = None
        self._what = what
        self._available = 0
        self._moved = trio.Event()
        self._holders = 1
        self._fd = os.dup(part.fd)
        self._close = weakref.finalize(self, os.close, self._fd)

    @property
    def has_ended(self) -> bool:
        """Tell whether the object is whole, or the attempt failed."""
        return self.is_whole or self.failure is not None

    def hold(self) -> None:
        """Count one more who reads, and will `release`."""
        self._holders += 1

    def release(self) -> None:
        """Close the file with the last who held it."""
        self._holders -= 1
        if not self._holders:
            self._close()

    def note_available(self, size: int) -> None:
        """Let those who wait know that the first `size` bytes are there."""
        self._available = size
        self._move()

    def end(self, size: int | None = None, failure: Exception | None = None) -> None:
        """End with an object of `size` verified bytes, or with a failure."""
        if failure is None and size != self.size:
            failure = ArchiveError(f"{self._what}: {size} bytes came, not {self.size}; open it again")
        self.failure = failure
        self.is_whole = failure is None
        self._move()

    async def read(self, offset: int, size: int, patience: float) -> bytes:
        """Return the bytes of a range once they are there; raise the failure once there is one.

        The last block is given when the whole object is verified, so that nobody reads a wrong object
        to its end. Each wait for more bytes ends after `patience` seconds with `Overdue`.
        """
        self.was_read = True
        wanted = max(min(size, self.size - offset), 0)
        withheld = (block_count(self.size) - 1) * BLOCK_BYTES
        while True:
            if self.failure:
                raise self.failure
            if self.is_whole or (offset + wanted <= min(self._available, withheld)):
                found = await trio.to_thread.run_sync(os.pread, self._fd, wanted, offset)
                if len(found) != wanted:  # a short answer would silently truncate the file in the kernel
                    raise OSError(errno.EIO, f"{self._what}: its file was cut while it arrived")
                return found
            await self._movement(patience)

    async def _movement(self, patience: float) -> None:
        with trio.move_on_after(patience) as scope:
            await self._moved.wait()
        if scope.cancelled_caught:
            raise Overdue(f"{self._what}: nothing came for {patience:.0f} s")

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
