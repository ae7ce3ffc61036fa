"""Ask the archive anew for one directory, and tell what that changed."""

from __future__ import annotations

from dataclasses import dataclass

from tciafs.archives.base import BadAnswer
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.difference import Difference
from tciafs.catalog.rows import ROOT, Node
from tciafs.model import Kind, Series


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What the archive's answer changed in a directory, and how many listings below it were expired."""

    difference: Difference
    expired: int


async def refresh(catalog: Catalog, node: Node) -> Refreshed:
    """Renew the listing of a directory; what is listed below it is renewed when it is looked at.

    Raise `ArchiveError` where the archive does not tell; then everything is as it was. What is gone from
    the archive, the directory itself included, is no error.
    """
    before = await catalog.entries(node)
    now = await _renewed(catalog, node)
    if now is None:
        return Refreshed(Difference.between(before, []), 0)
    expired = await catalog.expire_below(now)
    return Refreshed(Difference.between(before, await catalog.entries(now)), expired)


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
