"""What the kernel believes of a mount, and must forget when a listing turns out to be another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyfuse3

from tciafs.catalog.difference import Difference


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
