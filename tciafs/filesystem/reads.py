"""Of which series readers were given bytes since the mount began, and when last; listing is not reading."""

from __future__ import annotations

import time

import trio


class Reads:
    """The series that were read, by SeriesInstanceUID; times are in seconds since 1970."""

    def __init__(self) -> None:
        self.inodes: dict[str, int] = {}
        self.last_at: dict[str, float] = {}
        self.has_new = trio.Event()

    def note_opened_again(self, series_instance_uid: str) -> bool:
        """Note that a series is used again; False where none of its bytes were ever given to a reader.

        The kernel may have the bytes already, and give them without a word to us.
        """
        if series_instance_uid not in self.last_at:
            return False
        self.last_at[series_instance_uid] = time.time()
        return True

    def note_read(self, series_instance_uid: str, inode: int) -> None:
        """Note that bytes of a series were given to a reader."""
        self.inodes[series_instance_uid] = inode
        self.last_at[series_instance_uid] = time.time()
        self.has_new.set()
