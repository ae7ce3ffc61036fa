"""Object files on disk: written beside, made durable, then renamed into place.

A file under its own name was whole when it got it. The directory may be shared: whoever writes an
object holds the lock of its part, and what a crash left half-written is locked by nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tciafs.content.blocks import Digests

logger = logging.getLogger(__name__)

TAG_NAME = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backup programs leave a directory with this file alone.
_SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55"
_OURS = "# This directory is a cache of tciafs: nothing in it is worth keeping."
_TAG = f"{_SIGNATURE}\n{_OURS}\n"


class NotOurs(Exception):
    """The directory holds something else than a cache of tciafs; the message says what to do."""


def claim(directory: Path) -> None:
    """Make `directory` a cache of ours; raise `NotOurs` where it holds anything else.

    Only below a directory that was claimed is anything ever deleted.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_ours(directory):
        return
    if any(directory.iterdir()):
        raise NotOurs(f"{directory} is neither empty nor a cache of tciafs: give another --cache-dir")
    beside = directory / f".{TAG_NAME}-{os.getpid()}"
    try:
        beside.write_text(_TAG)
        beside.rename(directory / TAG_NAME)
    except OSError:  # a full disk must not leave half a tag, which would be nobody's
        beside.unlink(missing_ok=True)
        raise


def is_ours(directory: Path) -> bool:
    """Tell whether a directory is a cache of tciafs."""
    try:
        return (directory / TAG_NAME).read_text() == _TAG
    except (OSError, UnicodeDecodeError):
        return False


class Cache:
    """The directory that holds the objects of one archive and account."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._objects = directory / "objects"
        self._parts = directory / "parts"
        self._damaged = directory / "damaged"
        self._sparse = directory / "sparse"
        for made in (self._objects, self._parts, self._damaged, self._sparse):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, key: str, size: int) -> int | None:
        """Return a file descriptor of the object, None when it is not there with this size."""
        path = self.path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        found = os.fstat(fd).st_size
        if found == size:
            return fd
        self.set_aside(key, f"it has {found} bytes instead of {size}", fd)
        os.close(fd)
        return None

    def begin(self, key: str) -> Part | None:
        """Open a part to write an object to; None while another process writes it."""
        path = self._parts / _digest(key)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # The other one may have committed or dropped it between the two looks.
        if not lock(fd) or not is_still(path, fd):
            os.close(fd)
            return None
        os.ftruncate(fd, 0)
        part = Part(fd, path)
        if self._is_being_recorded(key):
            part.close()
            return None
        return part

    def arrived(self, key: str) -> int:
        """Return how many bytes of an object are there that another process writes."""
        try:
            return (self._parts / _digest(key)).stat().st_size
        except FileNotFoundError:
            return 0

    def _is_being_recorded(self, key: str) -> bool:
        """Tell whether another process has just committed the object, and not yet written its row."""
        try:
            fd = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return not lock(fd)
        finally:
            os.close(fd)

    def begin_nameless(self) -> Part:
        """Open a part that is gone from the disk when the last one closes it."""
        with tempfile.TemporaryFile(dir=self._parts, buffering=0) as file:
            return Part(os.dup(file.fileno()), None)

    def commit(self, part: Renamed, key: str) -> None:
        """Make a part durable and give it the name of its object; from then on no crash can undo it."""
        path = self.path(key)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part.rename_to(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def remove(self, key: str) -> None:
        """Remove an object's file, whole or not; whoever has it open keeps its bytes."""
        self.path(key).unlink(missing_ok=True)
        self.sparse_path(key).unlink(missing_ok=True)

    def remove_all(self) -> None:
        """Remove the files of all objects: nobody would count or evict those of which no row knows."""
        for path in (*self.files(), *self.sparse_files()):
            path.unlink(missing_ok=True)

    def holds(self, key: str, fd: int) -> bool:
        """Tell whether the file that is open as `fd` still stands under the name of its object."""
        return is_still(self.path(key), fd)

    def set_aside(self, key: str, why: str, fd: int) -> None:
        """Move the damaged file `fd` out of the way, for whoever wants to know what happened to it.

        What another mount, or another reader, has put in its place meanwhile stays.
        """
        if not self.holds(key, fd):
            return
        aside = self._damaged / f"{_digest(key)}-{time.time_ns()}"
        try:
            self.path(key).rename(aside)
        except FileNotFoundError:
            return
        logger.warning("the cached file of %s is damaged (%s): set aside as %s", key, why, aside)

    def path(self, key: str) -> Path:
        """Return where the file of an object is, or would be."""
        digest = _digest(key)
        return self._objects / digest[:2] / digest[2:]

    def sparse_path(self, key: str) -> Path:
        """Return where the file of an object is of which only some blocks are there."""
        return self._sparse / _digest(key)

    def sparse_files(self) -> list[Path]:
        """Return the files of all objects of which only some blocks are there."""
        return [path for path in self._sparse.iterdir() if path.is_file()]

    def files(self) -> list[Path]:
        """Return the files of all objects, whether their rows know of them or not."""
        return [path for path in self._objects.glob("*/*") if path.is_file()]

    def is_being_written(self, path: Path) -> bool:
        """Tell whether whoever committed this file has yet to record it; also while it is open there."""
        with suppress(OSError), path.open("rb") as file:
            return not lock(file.fileno())
        return False

    def remove_leftovers(self) -> int:
        """Remove what nobody writes any more, and what was set aside; return how many files that were."""
        gone = 0
        for path in (*self._parts.iterdir(), *self._damaged.iterdir()):
            with suppress(OSError), path.open("rb") as leftover:  # what is no file is none of ours
                if lock(leftover.fileno()) and is_still(path, leftover.fileno()):
                    path.unlink()
                    gone += 1
        return gone


class Renamed(Protocol):
    """A file that can become an object's."""

    def rename_to(self, path: Path) -> None:
        """Make the file durable and move it to `path`."""
        ...


class Part:
    """An object on its way in, locked against other processes; `path` None is one kept in memory."""

    def __init__(self, fd: int, path: Path | None) -> None:
        self.size = 0
        self.fd = fd
        self._path = path
        self._md5 = hashlib.md5(usedforsecurity=False)  # the archive's own digest (NBIA md5_digest)
        self._digests = Digests()

    @classmethod
    def in_memory(cls, key: str) -> Part:
        """Open a part that never touches the disk, for when that is full."""
        return cls(os.memfd_create(f"tciafs:{key[:200]}", os.MFD_CLOEXEC), None)

    @property
    def is_on_disk(self) -> bool:
        """Tell whether the part could become an object."""
        return self._path is not None

    @property
    def md5(self) -> str:
        """Return the digest of what was written, in hex digits."""
        return self._md5.hexdigest()

    def digests(self) -> bytes:
        """Return the digests of the blocks; nothing may be written after."""
        return self._digests.finish()

    def write(self, data: bytes) -> None:
        """Append all of `data`; raise OSError when the disk does not take it."""
        self._md5.update(data)
        self._digests.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.fd, rest) :]
        self.size += len(data)

    def rename_to(self, path: Path) -> None:
        """Make the file durable and move it to `path`."""
        assert self._path
        os.fsync(self.fd)
        self._path.rename(path)
        self._path = None

    def close(self) -> None:
        """Close the file, and remove it unless it was committed."""
        if self._path:
            self._path.unlink(missing_ok=True)
        with suppress(OSError):  # duplicates of the descriptor, held by readers, would keep the lock
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        os.close(self.fd)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def lock(fd: int) -> bool:
    """Take the lock of a file until it is closed; tell whether no other process has it.

    Containers that share a cache have process ids of their own, but one table of locks.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        logger.info("files of the cache cannot be locked (%s): one mount should use it at a time", exc)
    return True


def is_still(path: Path, fd: int) -> bool:
    """Tell whether the open file `fd` is what stands at `path`."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
