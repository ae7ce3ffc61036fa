"""The one table from what went wrong to an errno, and the causes of what readers saw."""

from __future__ import annotations

import errno
import logging
from collections import deque
from datetime import UTC, datetime

from tciafs.archives.base import ArchiveError, Overdue, Refused
from tciafs.archives.meanings import one_line
from tciafs.database import Lost
from tciafs.filesystem.tree import Stale

logger = logging.getLogger(__name__)

_TABLE: list[tuple[type[Exception], int]] = [
    (Overdue, errno.ETIMEDOUT),
    (Refused, errno.EACCES),
    (ArchiveError, errno.EIO),
    (Stale, errno.ESTALE),
    (Lost, errno.ESTALE),  # the kernel looks the path up again, from the root
    (NotADirectoryError, errno.ENOTDIR),
    (IsADirectoryError, errno.EISDIR),
    (OSError, errno.EIO),
]


_TOLD = (errno.EIO, errno.ETIMEDOUT, errno.EACCES)  # what a reader cannot explain without the cause
_KEPT = 1_000


class Causes:
    """The last 1,000 causes of an error that a reader saw."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def note(self, operation: str, path: str, number: int, exc: Exception) -> None:
        """Keep why `operation` on `path` ended with errno `number`."""
        when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        cause = one_line(str(exc)) or type(exc).__name__
        self._lines.append(f"{when} {operation} {one_line(path)}: {errno.errorcode[number]}: {cause}")

    def as_text(self) -> bytes:
        """Return a line for each cause, the latest last."""
        return "".join(f"{line}\n" for line in self._lines).encode("utf-8", "replace")


def is_told(number: int) -> bool:
    """Tell whether the cause of an errno is kept."""
    return number in _TOLD


def errno_of(exc: Exception, operation: str) -> int:
    """Return the errno that a reader sees, having logged the cause.

    What is not in the table is a fault of ours: EIO and a traceback, and the mount lives on.
    """
    for kind, number in _TABLE:
        if isinstance(exc, kind):
            logger.info("%s failed with %s: %s", operation, errno.errorcode[number], exc)
            return number
    logger.exception("%s failed in a way that nobody foresaw", operation, exc_info=exc)
    return errno.EIO
