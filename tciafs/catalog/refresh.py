"""Ask the archive anew for one directory, or for what was listed of a collection; tell what that changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tciafs.archives.base import BadAnswer
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.difference import Difference
from tciafs.catalog.rows import ROOT, Node
from tciafs.flights import Flight
from tciafs.model import Kind, Series

Wait = Callable[[Flight[None]], Awaitable[None]]
"""Wait for a renewal that may take long; raise its error."""


@dataclass(slots=True)
class Refreshed:
    """What is new, changed or gone, by paths from the directory; how many listings below were expired."""

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    expired: int = 0

    def add(
        self, difference: Difference, path: Sequence[str] = (), shows: Callable[[Node], bool] = lambda _: True
    ) -> None:
        """Add what changed in the directory at a path; of a study below, its series tell that."""
        changed = {name: node for name, (_, node) in difference.changed.items()}
        if path:
            changed = {name: node for name, node in changed.items() if node.kind is not Kind.STUDY}
        told = ((self.new, difference.new), (self.changed, changed), (self.gone, difference.gone))
        for paths, nodes in told:
            paths += ["/".join((*path, name)) for name, node in nodes.items() if shows(node)]


async def refresh(catalog: Catalog, node: Node, wait: Wait) -> Refreshed:
    """Renew the listing of a directory; what is listed below it is renewed when it is looked at.

    Of a collection of which much was listed, all of that is renewed now. Raise `ArchiveError` where the
    archive does not tell. What is gone from the archive, the directory itself included, is no error.
    """
    told = Refreshed()
    before = await catalog.entries(node)
    now = await _renewed(catalog, node)
    if now is None:
        told.add(Difference.between(before, []))
        return told
    told.add(Difference.between(before, await catalog.entries(now)))
    with catalog.changes.watching() as changes:
        update = await catalog.update(now)
        if update is None:
            told.expired = await catalog.expire_below(now)
            return told
        await wait(update)
    for inode, difference in changes:
        if path := await _path(catalog, now, inode):
            told.add(difference, path, catalog.shows)
    told.expired = await catalog.count_expired(now)
    return told


async def _path(catalog: Catalog, top: Node, inode: int) -> list[str]:
    """Return the names from a directory down to another one; none where that is not shown below it."""
    names: list[str] = []
    node = await catalog.node(inode)
    while node and node.inode != top.inode:
        name = await catalog.name_of(node) if node.kind > top.kind and catalog.shows(node) else None
        if name is None:
            return []
        names.insert(0, name)
        node = await catalog.node(node.parent)
    return names


async def _renewed(catalog: Catalog, node: Node) -> Node | None:
    """Ask for what a directory holds; return what stands in its place now, None where nothing does."""
    now: Node | None = node
    if isinstance(node.record, Series):  # its version is told by the study's listing alone
        now = await _newest(catalog, await _parent(catalog, node), node.record)
    if now is None:
        return None
    try:
        await catalog.ask_anew(now)
    except BadAnswer:  # what is gone lists nothing: its parent must tell
        if node.kind is Kind.ROOT or await _is_there(catalog, node):
            raise
        return None
    return now


async def _newest(catalog: Catalog, study: Node, series: Series) -> Node | None:
    renewed = await _renewed(catalog, study)
    for _, node in await catalog.entries(renewed) if renewed else []:
        if isinstance(node.record, Series) and node.record.series_instance_uid == series.series_instance_uid:
            return node
    return None


async def _is_there(catalog: Catalog, node: Node) -> bool:
    if node.kind is not Kind.SERIES:  # whose parent was asked before it
        await catalog.ask_anew(await _parent(catalog, node))
    return await catalog.is_listed(node)


async def _parent(catalog: Catalog, node: Node) -> Node:
    return await catalog.node(node.parent) or ROOT
