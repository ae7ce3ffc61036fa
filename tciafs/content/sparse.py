"""A file with holes: those blocks of an object that have come so far."""

from __future__ import annotations

import fcntl
import os
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

from tciafs.content.blocks import BLOCK_BYTES, span_of
from tciafs.content.cache import Cache, is_still, lock

_LARGEST_IN_MEMORY = 256 << 20


class Sparse:
    """An open file with holes; with a path while it may become an object of the cache."""

    def __init__(self, fd: int, paths: tuple[Path, ...] = ()) -> None:
        self._fd = fd
        self._paths = paths
        weakref.finalize(self, os.close, fd)  # a read in a thread may outlive the last handle

    @classmethod
    def kept(cls, cache: Cache, key: str, is_known: bool) -> Sparse:
        """Open the file of an object in the cache, begun anew where its blocks are not known to anybody.

        Mounts that share the cache share the file, as each writes the same bytes to the same places.
        """
        path = cache.sparse_path(key)
        fd = _open(path)
        # Whoever has it open may have written a block, and not yet recorded it.
        if not is_known and os.fstat(fd).st_size and lock(fd):
            path.unlink(missing_ok=True)
            os.close(fd)
            fd = _open(path)
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return cls(fd, (path, cache.path(key)))

    @classmethod
    def beside(cls, cache: Cache, key: str, size: int) -> Sparse:
        """Open a file that is not kept: in memory, or one without a name where it is too large."""
        if size <= _LARGEST_IN_MEMORY:
            return cls(os.memfd_create(f"tciafs:{key[:200]}", os.MFD_CLOEXEC))
        with tempfile.TemporaryFile(dir=cache.directory / "sparse", buffering=0) as file:
            return cls(os.dup(file.fileno()))

    @property
    def is_kept(self) -> bool:
        """Tell whether the file is in the cache: another mount may have removed it, or completed it."""
        return any(is_still(path, self._fd) for path in self._paths)

    @property
    def is_empty(self) -> bool:
        """Tell whether no block was ever written."""
        return os.fstat(self._fd).st_size == 0

    def read(self, offset: int, size: int) -> bytes:
        """Return the bytes of a range, fewer where the file ends."""
        return os.pread(self._fd, size, offset)

    def read_block(self, number: int, size: int) -> bytes:
        """Return a block of an object of `size` bytes."""
        span = span_of(number, size)
        return self.read(span.start, len(span))

    def write_block(self, number: int, block: bytes) -> None:
        """Put a block in its place; raise OSError when the disk does not take it."""
        rest, offset = memoryview(block), number * BLOCK_BYTES
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            rest, offset = rest[written:], offset + written

    def rename_to(self, path: Path) -> None:
        """Make the file durable and move it to `path`, now that all blocks are there."""
        os.fsync(self._fd)
        self._paths[0].rename(path)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
