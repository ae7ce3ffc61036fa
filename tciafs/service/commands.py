"""What a running drive can be asked over its control socket: its status, and to renew a listing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from tciafs.archives.base import ArchiveError
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.refresh import refresh
from tciafs.catalog.rows import ROOT, Node
from tciafs.database import Lost
from tciafs.model import Kind
from tciafs.service.control import Command, Request, Tell, WrongRequest


class Commands:
    """The commands of one mount; a `refresh` is answered within `seconds`."""

    def __init__(self, catalog: Catalog, status: Callable[[], Mapping[str, Any]], seconds: float) -> None:
        self._catalog = catalog
        self._status = status
        self._seconds = seconds

    def by_name(self) -> dict[str, Command]:
        """Return the commands by what a request calls them."""
        return {"status": self.status, "refresh": self.refresh}

    async def status(self, request: Request, tell: Tell) -> None:
        """Tell what status.json says."""
        await tell({"status": self._status()})

    async def refresh(self, request: Request, tell: Tell) -> None:
        """Ask the archive anew for the directory `path`, or for the series of the file `path`.

        `path` is a list of names, from the root of the drive. Tell the names that are new, changed or gone.
        """
        names = request.get("path")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WrongRequest("path must be a list of names")
        await tell({"seconds": self._seconds})
        answer: dict[str, Any] = {"error": f"the archive did not answer within {self._seconds:g} s"}
        with trio.move_on_after(self._seconds):
            answer = await self._refreshed(names)
        await tell(answer)

    async def _refreshed(self, names: Sequence[str]) -> dict[str, Any]:
        try:
            node = await self._directory(names)
            told = await refresh(self._catalog, node)
        except (ArchiveError, OSError) as exc:
            return {"error": str(exc)}
        except Lost:
            return {"error": "the listings were found damaged and are begun anew; look again"}
        difference = told.difference
        return {
            "new": list(difference.new),
            "changed": list(difference.changed),
            "gone": list(difference.gone),
            "expired": told.expired,
        }

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
