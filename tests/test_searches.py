"""A search is made once however many ask, shown past its time, and made again behind."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, closing

import pytest
import trio

from tciafs.archives.base import ArchiveError, Unavailable
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.searches import Level, Search, Searches
from tciafs.catalog.store import Store
from tciafs.model import Kind
from tciafs.names import Layout
from tciafs.selection import Selection

SEARCH = "v4/getSimpleSearch"
CT = Search(Level.COLLECTIONS, Selection(modalities=("CT",)))
HAVE_CT = frozenset({("collection", "Demo-CT"), ("collection", "Demo-Mixed")})
OLD = frozenset({("collection", "Old")})


@asynccontextmanager
async def searching(archive, room, freshness):
    with closing(Store.open(room / "catalog.sqlite", "test", Layout.UID)) as store:
        async with Http.connect(archive.url) as http, trio.open_nursery() as nursery:
            nbia = NBIA("test", http, Capabilities(room / "capabilities.json"))
            yield Searches(nbia, store, nursery, freshness), store
            nursery.cancel_scope.cancel()


async def other_than(keys, searches, kind):
    """Wait until something else is found."""
    with trio.fail_after(5):
        while (result := await searches.find(CT, kind)).keys == keys:  # noqa: ASYNC110 (nothing else tells)
            await trio.sleep(0.02)
    return result


async def test_many_who_ask_at_once_cost_one_search_and_those_who_ask_later_none(tmp_path, archive):
    archive.faults(latency_ms=50)
    for requests in ({SEARCH: 1}, {}):
        async with searching(archive, tmp_path, Freshness()) as (searches, _):
            async with trio.open_nursery() as askers:
                for _ in range(20):
                    askers.start_soon(searches.find, CT, Kind.ROOT)
            assert archive.requests() == requests
            result = await searches.find(CT, Kind.ROOT)
            assert result.keys == HAVE_CT
            assert 24 * 3600 - 10 < result.age.expires_in <= 24 * 3600
            assert (await searches.find(CT, Kind.COLLECTION)).age.expires_in <= 6 * 3600
        archive.reset()


@pytest.mark.parametrize("seconds", [-7 * 3600, 3600])  # before now, and under a clock that went wrong
async def test_what_is_past_its_time_is_shown_at_once_and_made_again_behind(tmp_path, archive, seconds):
    async with searching(archive, tmp_path, Freshness()) as (searches, store):
        await store.put_found(CT.question, time.time() + seconds, OLD)
        result = await searches.find(CT, Kind.COLLECTION)
        assert (result.keys, result.age.expires_in < 0) == (OLD, True)
        result = await other_than(OLD, searches, Kind.COLLECTION)
        assert (result.keys, result.age.expires_in > 0) == (HAVE_CT, True)
        assert archive.requests() == {SEARCH: 1}
        found = await store.found(CT.question)
        assert found is not None
        assert found[1] == HAVE_CT


async def test_after_a_failure_a_search_is_not_made_again_for_a_while(tmp_path, archive):
    archive.faults(rules=[{"endpoint": SEARCH, "do": "html"}])
    async with searching(archive, tmp_path, Freshness(pause=0.5)) as (searches, store):
        with pytest.raises(ArchiveError):
            await searches.find(CT, Kind.ROOT)
        await store.put_found(CT.question, 0.0, OLD)
        archive.reset()
        for _ in range(10):
            assert (await searches.find(CT, Kind.ROOT)).keys == OLD
            await trio.sleep(0.01)
        assert archive.requests() == {}
        await trio.sleep(0.6)
        assert (await searches.find(CT, Kind.ROOT)).keys == OLD
        assert (await other_than(OLD, searches, Kind.ROOT)).keys == HAVE_CT


async def test_a_search_is_given_up_when_the_mount_ends(tmp_path, archive):
    archive.faults(rules=[{"endpoint": SEARCH, "do": "stall"}])
    async with searching(archive, tmp_path, Freshness()) as (searches, _), trio.open_nursery() as askers:

        async def ask():
            with pytest.raises(Unavailable):
                await searches.find(CT, Kind.ROOT)

        with trio.fail_after(5):
            askers.start_soon(ask)
            while archive.requests() == {}:  # noqa: ASYNC110 (nothing else tells)
                await trio.sleep(0.02)
            searches.close()
