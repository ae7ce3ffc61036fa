"""What the kernel believes of a mount, and must forget when a listing is another; and its limits."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3

from tciafs.catalog.difference import Difference
from tciafs.service.mountinfo import mount_at

logger = logging.getLogger(__name__)

_BACKGROUND = 1_000  # READs that the kernel sends at once; its own limit is 12
_LARGEST_READ_KB = 1024  # what libfuse takes; its own limit is 128, and each READ costs a turn of the daemon
_KERNEL_SHARE = 0.8 / 2  # an open may wait twice: for the question whether to fetch, and for the bytes
_TIMEOUTS = ("default_request_timeout", "max_request_timeout")


class Kernel:
    """The kernel's memory of this process's mount."""

    def __init__(self) -> None:
        self._is_mounted = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Tell the kernel what to forget; outside this block there is no mount that could be told."""
        self._is_mounted = True
        try:
            yield
        finally:
            self._is_mounted = False

    def forget(self, directory: int, difference: Difference) -> None:
        """Let the kernel ask again for every name in a directory that stands for something else now.

        This waits for nothing: a thread of pyfuse3 tells the kernel, which may be waiting for us.
        """
        if not self._is_mounted:
            return
        for name in difference.names():
            pyfuse3.invalidate_entry_async(pyfuse3.InodeT(directory), os.fsencode(name), ignore_enoent=True)
        for inode in difference.inodes():
            with suppress(FileNotFoundError):  # attr_only never waits, either
                pyfuse3.invalidate_inode(pyfuse3.InodeT(inode), attr_only=True)


def kernel_limit() -> float:
    """Return how long a request may wait for the archive at a time, in seconds.

    Kernels from 6.15 on can be told to abort a mount that is slower (fs.fuse.*_request_timeout).
    """
    found = []
    for name in _TIMEOUTS:
        with suppress(OSError, ValueError):
            found.append(int(Path("/proc/sys/fs/fuse", name).read_text()))
    return min((_KERNEL_SHARE * seconds for seconds in found if seconds > 0), default=math.inf)


def raise_limits(mountpoint: Path) -> None:
    """Let the kernel send more READs at once, and larger ones, where that may be set."""
    mount = mount_at(mountpoint)
    if mount is None:
        return
    connection = Path("/sys/fs/fuse/connections", str(mount.minor))
    settings = {
        connection / "max_background": _BACKGROUND,
        connection / "congestion_threshold": _BACKGROUND,
        Path(f"/sys/class/bdi/0:{mount.minor}/read_ahead_kb"): _LARGEST_READ_KB,
    }
    for setting, value in settings.items():
        try:
            setting.write_text(f"{value}\n")
        except OSError as exc:
            logger.info("%s stays as it is: %s", setting, exc)
