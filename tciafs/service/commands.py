"""What a running drive can be asked over its socket: its status, to renew a listing, and what was read."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import trio

from tciafs.archives.base import ArchiveError
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.refresh import Wait, refresh
from tciafs.catalog.rows import ROOT, Node
from tciafs.database import Lost, Unwritable
from tciafs.flights import Flight
from tciafs.model import Kind, Terms
from tciafs.service.control import Command, Request, Tell, WrongRequest
from tciafs.service.journal import Journal

_TELL_SECONDS = 5.0  # from one word to who waits to the next


class Commands:
    """The commands of one mount; a `refresh` is answered within `seconds`."""

    def __init__(
        self, catalog: Catalog, journal: Journal, status: Callable[[], Mapping[str, Any]], seconds: float
    ) -> None:
        self._catalog = catalog
        self._journal = journal
        self._status = status
        self._seconds = seconds

    def by_name(self) -> dict[str, Command]:
        """Return the commands by what a request calls them."""
        return {"status": self.status, "refresh": self.refresh, "read": self.read}

    async def status(self, request: Request, tell: Tell) -> None:
        """Tell what status.json says."""
        await tell({"status": self._status()})

    async def refresh(self, request: Request, tell: Tell) -> None:
        """Ask the archive anew for the directory `path`, or for the series of the file `path`.

        `path` is a list of names, from the root of the drive. Tell the names that are new, changed or gone;
        of a collection of which much was listed, the paths of all below that are.
        """
        names = request.get("path")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WrongRequest("path must be a list of names")
        await tell({"seconds": self._seconds})
        answer: dict[str, Any] = {"error": f"the archive did not answer within {self._seconds:g} s"}
        with trio.move_on_after(self._seconds) as scope:

            async def wait(update: Flight[None]) -> None:
                scope.deadline = math.inf  # what takes long is waited for as long as it comes
                await self._wait(update, tell)

            answer = await self._refreshed(names, wait)
        await tell(answer)

    async def read(self, request: Request, tell: Tell) -> None:
        """Tell the series of which bytes were read: `since` seconds since 1970 by any drive of the cache.

        Without `since`, those that this drive gave since it was mounted. They come by collection and terms.
        """
        since = request.get("since")
        if not isinstance(since, int | float | None):
            raise WrongRequest("since must be a number of seconds since 1970")
        try:
            found = await (self._journal.of_this_mount() if since is None else self._journal.since(since))
        except (sqlite3.Error, Unwritable, Lost) as exc:
            await tell({"error": f"the journal of what was read cannot be read: {exc}"})
            return
        uids: defaultdict[tuple[str, Terms], list[str]] = defaultdict(list)
        for series in sorted(found, key=lambda one: one.series_instance_uid):
            uids[series.collection, series.terms].append(series.series_instance_uid)
        used = [
            {"collection": name, "terms": asdict(terms), "series": uids[name, terms]} for name, terms in uids
        ]
        await tell({"read": used, "lost": self._journal.lost})

    async def _wait(self, update: Flight[None], tell: Tell) -> None:
        began = trio.current_time()
        while not update.is_done:
            await tell({"seconds": self._seconds})
            with trio.move_on_after(min(_TELL_SECONDS, self._seconds)):
                await update.result(self._seconds, began=began)
        await update.result(0.0)

    async def _refreshed(self, names: Sequence[str], wait: Wait) -> dict[str, Any]:
        try:
            node = await self._directory(names)
            told = await refresh(self._catalog, node, wait)
        except (ArchiveError, OSError) as exc:
            return {"error": str(exc)}
        except Lost:
            return {"error": "the listings were found damaged and are begun anew; look again"}
        return asdict(told)

    async def _directory(self, names: Sequence[str]) -> Node:
        """Return the directory that a path leads to, or that has the file to which it leads."""
        node = ROOT
        for name in names:
            if node.kind is Kind.INSTANCE:
                raise NotADirectoryError("no such file or directory")
            found, _ = await self._catalog.child(node, name)
            if found is None:
                raise FileNotFoundError("no such file or directory")
            node = found.node
        if node.kind is Kind.INSTANCE:
            return await self._catalog.node(node.parent) or ROOT
        return node
