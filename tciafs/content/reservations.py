"""What the mounts of one cache directory have under way and have kept: a small file of each at its root.

A mount holds the lock of its file for as long as it lives. What a dead one had under way counts
nothing; what it kept counts until it was summed up, with which its file goes.
"""

from __future__ import annotations

import logging
import os
import struct
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tciafs.content.cache import is_ours, is_still, lock

logger = logging.getLogger(__name__)

_PREFIX = "reserved-"
_LAYOUT = struct.Struct("<QQ")


class Reservation(NamedTuple):
    """The bytes for which a mount holds room now, and those that it has kept since it began."""

    reserved: int = 0
    kept: int = 0


class Reservations:
    """What one mount tells the others, and they tell it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path: Path | None = None
        self._fd = -1
        self._close: Callable[[], object] = int

    def put(self, mine: Reservation) -> None:
        """Tell the others; where that cannot be written, they do not know, and nobody fails."""
        try:
            if self._path is None and is_ours(self._directory):
                self._begin()
            if self._path is not None:
                os.pwrite(self._fd, _LAYOUT.pack(*mine), 0)
        except OSError as exc:
            logger.info("other mounts are not told what is under way here: %s", exc)

    def others(self) -> dict[str, Reservation]:
        """Return what each of the others has told, by the name of its file."""
        mine = self._path.name if self._path else None
        names = os.listdir(self._directory)  # noqa: PTH208 -- a glob before each fetch takes five times as long
        return {
            name: _read(self._directory / name) for name in names if name.startswith(_PREFIX) and name != mine
        }

    def remove_dead(self) -> None:
        """Remove the files of mounts that have ended: what they kept must be summed up after."""
        for name in self.others() if is_ours(self._directory) else ():
            path = self._directory / name
            with suppress(OSError), path.open("rb") as file:
                if lock(file.fileno()) and is_still(path, file.fileno()):
                    path.unlink()

    def close(self) -> None:
        """Hold nothing from now on."""
        self._path = None
        self._close()

    def _begin(self) -> None:
        """Open a file of one's own; another mount may take it for a dead one's before it is locked."""
        while self._path is None:
            fd, name = tempfile.mkstemp(prefix=_PREFIX, dir=self._directory)
            if lock(fd) and is_still(Path(name), fd):
                self._path, self._fd = Path(name), fd
                self._close = weakref.finalize(self, os.close, fd)
            else:
                os.close(fd)


def _read(path: Path) -> Reservation:
    with suppress(OSError, struct.error), path.open("rb") as file:
        reserved, kept = _LAYOUT.unpack(file.read(_LAYOUT.size))
        return Reservation(0 if lock(file.fileno()) else reserved, kept)
    return Reservation()
