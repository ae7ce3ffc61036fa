"""A whole cache is examined and mended beside the mounts that use it."""

import os
from contextlib import closing

import pytest
import trio

from tciafs.content.cache import Cache
from tciafs.content.index import Index
from tciafs.content.limits import INDEX_NAME
from tciafs.content.upkeep import clear_objects, examine, mend
from tests.test_arrival import Bodies, bytes_of, expected, made, mounted, parts, whole
from tests.test_handle import cut, flip, zero

MANY = [made(str(number), 5000 + number) for number in range(8)]
LARGE = made("large")


@pytest.fixture
async def room(tmp_path):
    async with mounted(tmp_path / "cache", Bodies()) as content:
        for one in (*MANY, LARGE):
            await bytes_of(content, one)
    return tmp_path / "cache"


@pytest.fixture
def parts_of(room):
    directory = room / "scripted" / "public"
    with closing(Index.open(directory / INDEX_NAME)) as index:
        yield Cache(directory), index


async def test_a_sound_cache_has_nothing_wrong(parts_of):
    cache, index = parts_of
    assert (await examine(cache, index)).count == 0
    assert await mend(cache, index) == 0
    assert len(cache.files()) == 9


async def test_whatever_is_wrong_is_found_and_mended(room, parts_of):
    cache, index = parts_of
    flip(cache.path("0@2019"), 4000)
    zero(cache.path("large@2019"), 9 << 20)
    cut(cache.path("1@2019"), 100)
    cache.path("2@2019").write_bytes(b"")
    with cache.path("3@2019").open("ab") as file:
        file.write(b"more")
    cache.path("4@2019").unlink()
    nobodys = cache.path("5@2019").parent / "nobody's"
    nobodys.write_bytes(b"?")
    cache.path("6@2019").unlink()
    cache.path("6@2019").mkdir()
    found = await examine(cache, index)
    damaged = {"0@2019", "large@2019", "1@2019", "2@2019", "3@2019", "6@2019"}
    assert {stored.key for stored in found.damaged} == damaged
    assert [stored.key for stored in found.missing] == ["4@2019"]
    assert found.unknown == [nobodys]
    assert found.count == len(list(found.lines())) == 8
    assert {line.partition(":")[0] for line in found.lines()} == {"damaged", "gone", "nobody's"}
    cache.path("6@2019").rmdir()
    part = cache.begin("left by a crash")
    assert part is not None
    os.close(part.fd)
    assert await mend(cache, index) == 9
    assert (await examine(cache, index)).count == 0
    assert {stored.key for stored in await index.on_disk()} == {"5@2019", "7@2019"}
    assert len(cache.files()) == 2
    assert parts(room) == []
    archive = Bodies()
    async with mounted(room, archive) as content:
        for one in (*MANY, LARGE):
            assert await bytes_of(content, one) == expected(one)
    assert len(archive.fetched) == 7


async def test_a_file_that_has_yet_to_be_recorded_is_left_alone(room, parts_of):
    cache, index = parts_of
    part = cache.begin("new")
    assert part is not None
    part.write(b"bytes")
    assert await mend(cache, index) == 0
    cache.commit(part, "new")
    assert (await examine(cache, index)).count == 0
    assert await mend(cache, index) == 0
    assert cache.path("new").exists()
    part.close()
    assert (await examine(cache, index)).unknown == [cache.path("new")]
    assert await mend(cache, index) == 1


async def test_upkeep_beside_a_mount_that_fetches_finds_nothing_and_takes_nothing(room, parts_of):
    cache, index = parts_of
    new = [made(f"new {number}", 300_000) for number in range(60)]
    archive = Bodies()
    wrong = []
    async with mounted(room, archive) as content, trio.open_nursery() as nursery:

        async def look():
            while True:
                wrong.append((await examine(cache, index)).count)
                wrong.append(await mend(cache, index))

        nursery.start_soon(look)
        for one in new:
            assert await bytes_of(content, one) == expected(one)
        for one in new:
            assert await bytes_of(content, one) == expected(one)
        nursery.cancel_scope.cancel()
    assert len(wrong) > 2
    assert sum(wrong) == 0
    assert len(archive.fetched) == 60


async def test_clearing_removes_all_files_keeps_the_sizes_and_spares_what_is_under_way(room, parts_of):
    cache, index = parts_of
    new = made("new", 5 << 20)
    ready = trio.Event()
    async with mounted(room, Bodies([*whole(new, 0, 1 << 20), ready, *whole(new, 1 << 20)])) as content:
        handle = await content.open(LARGE)
        async with trio.open_nursery() as nursery:

            async def read():
                assert await bytes_of(content, new) == expected(new)

            nursery.start_soon(read)
            await trio.sleep(0.1)
            total = sum(one.size or 0 for one in (*MANY, LARGE))
            assert await clear_objects(cache, index) == (9, total)
            assert cache.files() == []
            assert await clear_objects(cache, index) == (0, 0)
            ready.set()
        assert bytes(await handle.read(0, handle.size)) == expected(LARGE)
        handle.close()
        stored = await index.get("0@2019")
        assert stored is not None
        assert (stored.size, stored.on_disk) == (5000, False)
        assert await content.totals() == (1, 5 << 20)
        assert await bytes_of(content, MANY[0]) == expected(MANY[0])
    assert (await examine(cache, index)).count == 0
