"""One task for a question however many ask it, and a deadline for each who waits.

Tasks belong to the nursery they were given, never to whoever asked first: a waiter that gives up
costs the others nothing, and the next one joins what is still under way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import trio

from tciafs.archives.base import ArchiveError, Overdue, Unavailable
from tciafs.database import Lost

logger = logging.getLogger(__name__)

T = TypeVar("T")

SILENT_SECONDS = 2.0  # what is asked of a healthy archive has begun to come by then
LIFETIME_SECONDS = 600.0  # how long a fetch runs on after its waiters gave up
_ENDING = "tciafs is ending"


class Flight(Generic[T]):
    """A task under way and, in the end, its result or its error."""

    def __init__(self, what: str, runs_on_unbegun: bool = True) -> None:
        self.what = what
        self._progress_at: float | None = None
        self._begun_at = math.inf
        self._runs_on_unbegun = runs_on_unbegun
        self._waiters = 0
        self._moved = trio.Event()
        self._done = trio.Event()
        self._scope = trio.CancelScope()
        self._result: list[T] = []
        self._error: Exception = Unavailable(f"{what}: given up, since {_ENDING}")

    @property
    def is_done(self) -> bool:
        """Tell whether there is a result or an error."""
        return self._done.is_set()

    @property
    def has_moved(self) -> bool:
        """Tell whether there was progress, or an end."""
        return self._moved.is_set()

    @property
    def is_silent(self) -> bool:
        """Tell whether the task has begun a while ago, and nothing has come since."""
        return not self.has_moved and trio.current_time() - self._begun_at > SILENT_SECONDS

    @property
    def is_wanted(self) -> bool:
        """Tell whether anybody waits."""
        return self._waiters > 0

    def note_begun(self) -> None:
        """Run on from now even when nobody waits any longer: the task has left its queue."""
        self._begun_at = min(self._begun_at, trio.current_time())

    def note_progress(self) -> None:
        """Let everyone who waits be patient anew: bytes are coming."""
        self._progress_at = trio.current_time()
        self.note_begun()
        self._moved.set()

    def give_up(self, why: str) -> None:
        """Cancel the task; whoever waits is told why at once, even where the task is slow to end."""
        if not self.is_done:
            self._error = Unavailable(f"{self.what}: given up, since {why}")
        self._scope.cancel()
        self._end()

    async def moved(self, patience: float) -> None:
        """Return once there was progress, or the task has ended; raise `Overdue` after `patience` seconds."""
        with self._waiting():
            with trio.move_on_after(patience) as scope:
                await self._moved.wait()
            if scope.cancelled_caught:
                raise Overdue(f"{self.what}: no answer within {patience:.0f} s")

    async def result(self, patience: float, limit: float = math.inf, began: float | None = None) -> T:
        """Return the result; raise its error, or `Overdue` after `patience` seconds without progress.

        `limit` bounds the wait in all, counted from `began` where it is one that is continued.
        """
        began = trio.current_time() if began is None else began
        with self._waiting():
            while not self._done.is_set():
                deadline = min(max(began, self._progress_at or began) + patience, began + limit)
                if trio.current_time() >= deadline:
                    raise Overdue(f"{self.what}: no answer within {deadline - began:.0f} s")
                with trio.move_on_at(deadline):
                    await self._done.wait()
        if self._result:
            return self._result[0]
        raise self._error

    async def run(self, work: Callable[[Flight[T]], Awaitable[T]]) -> None:
        """Do the work and keep how it ended; no error leaves."""
        try:
            with self._scope, trio.move_on_after(LIFETIME_SECONDS) as lifetime:
                self._result.append(await work(self))
            if lifetime.cancelled_caught:
                self._error = Unavailable(f"{self.what}: not done within {LIFETIME_SECONDS:.0f} s")
        except (ArchiveError, Lost) as exc:
            self._error = exc
        except OSError as exc:
            logger.error("%s: %s", self.what, exc)
            self._error = exc
        except Exception as exc:
            logger.exception("%s failed in a way that nobody foresaw", self.what)
            self._error = exc
        finally:
            self._end()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count who waits; with the last one goes a task that only queues, if it may."""
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            is_queueing = self._begun_at == math.inf and not self.is_done
            if is_queueing and not self._waiters and not self._runs_on_unbegun:
                self.give_up("nobody waited for it")

    def _end(self) -> None:
        self._done.set()
        self._moved.set()


class Flights(Generic[T]):
    """The tasks under way, at most one a key.

    Without `run_on_unbegun`, a task that never noted that it has begun ends with its last waiter: what
    only queues for a silent archive would else be in the way of those who ask when it speaks again.
    """

    def __init__(self, nursery: trio.Nursery, run_on_unbegun: bool = True) -> None:
        self._nursery = nursery
        self._run_on_unbegun = run_on_unbegun
        self._under_way: dict[Hashable, Flight[T]] = {}
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, key: Hashable) -> bool:
        flight = self._under_way.get(key)
        return flight is not None and not flight.is_done

    @property
    def is_closed(self) -> bool:
        """Tell whether nothing begins any more."""
        return self._is_closed

    def join(self, key: Hashable, what: str, work: Callable[[Flight[T]], Awaitable[T]]) -> Flight[T]:
        """Return the task of `key`, begun with `work` where none is under way."""
        flight = self._under_way.get(key)
        if flight is None or flight.is_done:  # a task that was given up may be slow to end
            flight = Flight[T](what, self._run_on_unbegun)
            if self._is_closed:
                flight.give_up(_ENDING)
                return flight
            self._under_way[key] = flight
            self._nursery.start_soon(self._run, key, flight, work)
        return flight

    def under_way(self, key: Hashable) -> Flight[T] | None:
        """Return the task of `key`, None where none is under way."""
        return self._under_way.get(key)

    def make_way(self) -> None:
        """Give up one task that nobody waits for and that has long been silent, if there is one."""
        for flight in self._under_way.values():
            if flight.is_silent and not flight.is_wanted:
                flight.give_up("it made way for another")
                return

    def close(self) -> None:
        """Give up what is under way, and whatever is asked from now on."""
        self._is_closed = True
        for flight in self._under_way.values():
            flight.give_up(_ENDING)

    async def _run(self, key: Hashable, flight: Flight[T], work: Callable[[Flight[T]], Awaitable[T]]) -> None:
        try:
            await flight.run(work)
        finally:
            if self._under_way.get(key) is flight:
                del self._under_way[key]
