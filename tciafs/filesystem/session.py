"""The kernel's requests as they reach pyfuse3: all that have come in as few turns of trio as can be.

By itself pyfuse3 takes one request a turn: its workers pass a lock to each other, and trio looks at its
files once a turn. While many transfers run a turn takes milliseconds, and a lookup would wait for one
or two of them for each request before it.
"""

from __future__ import annotations

import select
from contextlib import nullcontext
from types import SimpleNamespace

import pyfuse3
import trio

IDLE_WORKERS = 8  # so many wait for requests, for pyfuse3.main: to begin one more takes a turn
_MOST_IN_A_TURN = 16  # requests that are taken before all others have their turn


def take_at_once() -> None:
    """Let pyfuse3's workers take each request that has come without waiting; before `pyfuse3.main`.

    pyfuse3 knows trio by a name of its own, in which its support for asyncio puts another module, too.
    """
    intake = _Intake()
    waits = {"wait_readable": intake.wait_readable, "notify_closing": intake.notify_closing}
    lowlevel = SimpleNamespace(**vars(trio.lowlevel) | waits)
    changed = {"lowlevel": lowlevel, "Lock": nullcontext}  # the intake lets one watch, and others pass
    setattr(pyfuse3, "trio", SimpleNamespace(**vars(trio) | changed))  # noqa: B010 (not told)


class _Intake:
    """Where workers wait for the kernel's next request: one watches the file, the others behind it."""

    def __init__(self) -> None:
        self._others = trio.lowlevel.ParkingLot()
        self._poll: select.poll | None = None
        self._is_watched = False
        self._is_closed = False
        self._in_this_turn = 0

    async def wait_readable(self, fd: int) -> None:
        """Return when a request can be read, which the caller must do before others have their turn."""
        self._in_this_turn += 1
        if self._in_this_turn > _MOST_IN_A_TURN:
            await trio.lowlevel.checkpoint()
            self._in_this_turn = 1
        while not self._has_request(fd):
            await (self._others.park() if self._is_watched else self._watch(fd))
        self._others.unpark()  # it takes the next request, or watches

    def notify_closing(self, fd: int) -> None:
        """Let all who wait end with ClosedResourceError."""
        self._is_closed = True
        self._others.unpark_all()
        trio.lowlevel.notify_closing(fd)

    def _has_request(self, fd: int) -> bool:
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        return bool(self._poll.poll(0))

    async def _watch(self, fd: int) -> None:
        self._is_watched = True
        try:
            await trio.lowlevel.wait_readable(fd)
            self._in_this_turn = 1
        finally:
            self._is_watched = False
