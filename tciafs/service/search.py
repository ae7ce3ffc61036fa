"""A search without a mount: a short session with the archive, and with the catalog that mounts share."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import trio

from tciafs.archives.base import ArchiveError
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.nbia import NBIA
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.hints import COLLECTIONS_LOOKED_AT, causes, missed
from tciafs.catalog.paths import Paths
from tciafs.catalog.store import Store
from tciafs.config import Config
from tciafs.content.cache import NotOurs, claim
from tciafs.criteria import Criteria, same
from tciafs.model import Series
from tciafs.service.login import connected


class CannotSearch(Exception):
    """The search failed; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; `why` says of what it missed, how others are spelled.

    `paths` are those of a drive, by SeriesInstanceUID, where they were wanted.
    """

    series: list[Series]
    paths: dict[str, str] = field(default_factory=dict)
    why: Sequence[str] = ()


async def search(config: Config, criteria: Criteria, with_paths: bool = False) -> Found:
    """Search the archive; raise `CannotSearch`."""
    async with _session(config) as archive:
        series = await archive.search(criteria)
        if not series:
            return Found([], why=await _why(archive, criteria))
        return Found(series, await _paths(config, archive, series) if with_paths else {})


async def count_patients(config: Config) -> dict[str, int]:
    """Return how many patients each collection has; raise `CannotSearch`."""
    async with _session(config) as archive:
        return await archive.count_patients()


@asynccontextmanager
async def _session(config: Config) -> AsyncIterator[NBIA]:
    capabilities = Capabilities(config.archive_dir / "capabilities.json")
    try:
        async with connected(config) as http:
            yield NBIA(config.archive_name, http, capabilities, config.api, config.login_account)
    except ArchiveError as exc:
        raise CannotSearch(f"{config.archive_name}: {exc}") from exc
    except (NotOurs, OSError, sqlite3.Error) as exc:
        raise CannotSearch(f"the cache {config.cache_dir} cannot be used: {exc}") from exc


async def _why(archive: NBIA, criteria: Criteria) -> list[str]:
    """Say of each value that the archive has not, how others are spelled; nothing where it does not tell."""
    selection = criteria.selection
    try:
        found: list[str] = []
        names: set[str] = set()
        if selection.collections:
            names = {collection.name for collection in await archive.get_collections()}
            found += await missed("collection", selection.collections, names)
        there = [name for name in selection.collections if name in names]
        found += await causes(archive, selection, there[:COLLECTIONS_LOOKED_AT])
        if criteria.manufacturers:
            known = await archive.get_manufacturers()
            wanted = [value for value in criteria.manufacturers if not same(value, known)]
            found += await missed("manufacturer", wanted, known)
        if criteria.species:
            known = await archive.get_species()
            wanted = [value for value in criteria.species if not (same(value, known) or value.isdecimal())]
            found += await missed("species", wanted, known)
    except ArchiveError:
        return []
    return found


async def _paths(config: Config, archive: NBIA, series: Sequence[Series]) -> dict[str, str]:
    claim(config.cache_dir)
    config.archive_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = config.archive_dir / "catalog.sqlite"
    with closing(Store.open(path, config.archive_name, config.layout)) as store:
        return await _located(config, archive, store, series)


async def _located(config: Config, archive: NBIA, store: Store, series: Sequence[Series]) -> dict[str, str]:
    freshness = Freshness(
        config.ttl_collections, config.ttl_listings, config.ttl_instances, deadline=math.inf
    )
    found: dict[str, str] = {}
    failure: ArchiveError | None = None
    async with trio.open_nursery() as fetches:
        catalog = Catalog(archive, store, fetches, freshness)
        try:
            found = await Paths(catalog, store).of(series)
        except ArchiveError as exc:  # which the nursery would wrap
            failure = exc
        fetches.cancel_scope.cancel()
    if failure:
        raise failure
    return found
