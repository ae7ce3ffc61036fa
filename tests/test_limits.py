"""The cache keeps within its limit over all archives and accounts, and what was used least goes first."""

import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack, closing

import pytest
import trio
import trio.testing

from tciafs.content.blocks import Digests
from tciafs.content.cache import TAG_NAME, Cache, claim
from tciafs.content.index import Index, Stored
from tciafs.content.limits import INDEX_NAME, Limits
from tests.test_arrival import Bodies, bytes_of, expected, fd_count, made, mounted, parts, whole
from tests.test_content import PROJECT
from tests.test_durability import held
from tests.test_fetch import digest

SIZE = 1000
ACCOUNTS = ("nbia/public", "nbia/somebody", "idc/public")


@pytest.fixture(autouse=True)
def no_descriptor_left():
    before = fd_count()
    yield
    assert fd_count() == before


@pytest.fixture
def room(tmp_path):
    claim(tmp_path / "cache")
    return tmp_path / "cache"


async def put(directory, key, size=SIZE, used=None):
    """Keep an object as a fetch does; `used` in seconds since 1970."""
    directory.mkdir(parents=True, exist_ok=True)
    cache, content, digests = Cache(directory), os.urandom(size), Digests()
    digests.update(content)
    part = cache.begin(key)
    assert part is not None
    part.write(content)
    cache.commit(part, key)
    part.close()
    with closing(Index.open(directory / INDEX_NAME)) as index:
        await index.put(Stored(key, "1.2", size, digest(content), digests.finish(), True))
    if used is not None:
        with closing(sqlite3.connect(directory / INDEX_NAME)) as db, db:
            db.execute("UPDATE object SET last_used = ? WHERE key = ?", (used, key))


async def filled(room, count=30):
    """Keep objects 0, 1, 2 ... in turn in three accounts, the first used least lately."""
    for number in range(count):
        await put(room / ACCOUNTS[number % 3], str(number), used=1000.0 + number)


async def kept(room):
    """Return the keys on disk, of which each must have a file and a row."""
    keys = set()
    for path in room.glob(f"*/*/{INDEX_NAME}"):
        with closing(Index.open_anothers(path)) as index:
            rows = await index.on_disk()
        cache = Cache(path.parent)
        assert {cache.path(row.key) for row in rows} == set(cache.files())
        keys |= {row.key for row in rows}
    return keys


def numbers(*args):
    return {str(number) for number in range(*args)}


async def test_the_oldest_of_all_accounts_go_and_nine_tenths_are_left(room):
    await filled(room)
    limits = Limits(room, 30 * SIZE, keep_free=0)
    async with limits.reserved(SIZE) as is_room:
        assert is_room
        assert limits.used <= 26 * SIZE
        assert limits.evictions == 4
    assert await kept(room) == numbers(4, 30)
    async with limits.reserved(SIZE) as is_room:  # there is room for some time now
        assert (is_room, limits.evictions) == (True, 4)


async def test_nothing_goes_while_there_is_room(room):
    await filled(room)
    limits = Limits(room, 31 * SIZE, keep_free=0)
    async with limits.reserved(SIZE) as is_room:
        assert is_room
        assert (limits.used, limits.evictions) == (30 * SIZE, 0)


async def test_what_is_under_way_counts(room):
    await filled(room)
    limits = Limits(room, 34 * SIZE, keep_free=0)
    async with limits.reserved(2 * SIZE) as first, limits.reserved(2 * SIZE) as second:
        assert (first, second, limits.evictions) == (True, True, 0)
        async with limits.reserved(SIZE) as third:
            assert third
            assert limits.used + 5 * SIZE <= 0.9 * 34 * SIZE
    async with limits.reserved(20 * SIZE) as big, limits.reserved(20 * SIZE) as too_much:
        assert (big, too_much) == (True, False)


async def test_nothing_is_removed_in_vain(room):
    await filled(room)
    limits = Limits(room, 40 * SIZE, keep_free=0)
    async with limits.reserved(41 * SIZE) as is_room:
        assert not is_room
    async with limits.reserved(10 * SIZE), limits.reserved(31 * SIZE) as is_room:
        assert not is_room
    full = Limits(room, 40 * SIZE, keep_free=1.0)  # no file system can leave all of itself free
    async with full.reserved(SIZE) as is_room:
        assert not is_room
    assert await kept(room) == numbers(30)


async def test_when_an_object_was_used_is_respected_even_when_told_late(room):
    await filled(room, 10)
    with closing(Index.open(room / ACCOUNTS[0] / INDEX_NAME)) as index:
        await index.note_used({"0": 5000.0})
        await index.note_used({"0": 500.0, "9": 10.0})  # another mount, which knows less
    limits = Limits(room, 10 * SIZE, keep_free=0)
    async with limits.reserved(SIZE):
        pass
    assert await kept(room) == {"0", *numbers(3, 10)}


async def test_the_full_disk_makes_room_although_there_seems_to_be_some(room):
    await filled(room)
    limits = Limits(room, 1 << 40, keep_free=0)
    await limits.evict(SIZE)  # without ever having counted
    assert await kept(room) == numbers(3, 30)
    await limits.evict(10 * SIZE)
    assert await kept(room) == numbers(13, 30)


async def test_nothing_outside_of_a_cache_of_ours_is_removed(room, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for number in range(4):
        await put(elsewhere / "public", f"other {number}", used=1.0)
    (room / "linked").symlink_to(elsewhere)
    await filled(room, 3)
    limits = Limits(room, 2 * SIZE, keep_free=0)
    await limits.evict(100 * SIZE)
    assert await kept(elsewhere.parent) == {f"other {number}" for number in range(4)}
    (room / "linked").unlink()
    assert await kept(room) == set()
    await filled(room, 3)
    (room / TAG_NAME).unlink()
    await limits.evict(100 * SIZE)
    assert await kept(room) == numbers(3)


@pytest.mark.parametrize("spoil", ["garbage", "layout", "page", "empty", "directory", "objects"])
async def test_an_index_that_cannot_be_used_stops_nobody_and_stays_as_it_is(room, spoil):
    await filled(room)
    foreign = room / "foreign" / "public"
    for number in range(40):
        await put(foreign, f"{number}" * 90, size=1, used=1.0)
    path = foreign / INDEX_NAME
    if spoil == "garbage":
        path.write_bytes(b"not a database" * 1000)
    elif spoil == "layout":
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA user_version = 77")
    elif spoil == "page":
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    elif spoil == "empty":
        path.write_bytes(b"")
    elif spoil == "directory":
        path.unlink()
        path.mkdir()
    else:
        shutil.rmtree(foreign / "objects")
        (foreign / "objects").touch()
    before = path.read_bytes() if path.is_file() else None
    limits = Limits(room, 30 * SIZE, keep_free=0)
    async with limits.reserved(SIZE) as is_room:
        assert is_room
    assert limits.evictions >= 4
    assert before == (path.read_bytes() if path.is_file() else None)
    shutil.rmtree(foreign.parent)
    assert await kept(room) == numbers(4, 30)


async def test_two_mounts_that_evict_at_once_do_it_once(room):
    await filled(room, 60)
    both = [Limits(room, 60 * SIZE, keep_free=0) for _ in range(2)]
    async with AsyncExitStack() as stack:

        async def reserve(limits):
            assert await stack.enter_async_context(limits.reserved(SIZE))

        async with trio.open_nursery() as nursery:
            for limits in both * 2:
                nursery.start_soon(reserve, limits)
    assert 51 <= len(await kept(room)) <= 53
    assert sum(limits.evictions for limits in both) == 60 - len(await kept(room))


async def test_an_eviction_of_another_mount_is_waited_for_but_not_for_ever(room, monkeypatch):
    await filled(room)
    limits = Limits(room, 30 * SIZE, keep_free=0)
    with (room / TAG_NAME).open() as tag:
        fcntl.flock(tag, fcntl.LOCK_EX)
        threading.Timer(0.3, fcntl.flock, (tag, fcntl.LOCK_UN)).start()
        start = time.monotonic()
        async with limits.reserved(SIZE) as is_room:
            assert is_room
        assert 0.25 < time.monotonic() - start < 2
        monkeypatch.setattr("tciafs.content.limits._LOCK_SECONDS", 0.2)
        fcntl.flock(tag, fcntl.LOCK_EX)
        async with limits.reserved(10 * SIZE) as is_room:
            assert is_room


async def test_two_mounts_that_fetch_at_once_keep_the_limit(room):
    limit = 100 * SIZE
    many = [made(str(number), SIZE) for number in range(240)]
    highest = 0

    async def fetch(content, wanted):
        for one in wanted:
            assert await bytes_of(content, one) == expected(one)

    async with (
        mounted(room, Bodies(), limit) as first,
        mounted(room, Bodies(), limit, account="b/b") as second,
    ):
        async with trio.open_nursery() as nursery:
            for content, wanted in ((first, many[:120]), (second, many[120:])):
                for start in range(4):
                    nursery.start_soon(fetch, content, wanted[start::4])
            while len(nursery.child_tasks):
                await trio.sleep(0.01)
                highest = max(highest, held(room))
        assert highest <= limit
        assert held(room) >= 60 * SIZE
    assert len(await kept(room)) * SIZE == held(room)


async def test_what_another_mount_has_under_way_and_has_kept_counts_at_once(room):
    with closing(Limits(room, 10 * SIZE, 0)) as one, closing(Limits(room, 10 * SIZE, 0)) as other:
        async with other.reserved(SIZE) as is_room:  # each has made its sum
            assert is_room
        async with one.reserved(6 * SIZE) as first:
            async with other.reserved(5 * SIZE) as second, other.reserved(4 * SIZE) as third:
                assert (first, second, third) == (True, False, True)
            one.note_kept(6 * SIZE)
        async with other.reserved(5 * SIZE) as fourth, other.reserved(4 * SIZE) as fifth:
            assert (fourth, fifth) == (False, True)
        assert one.evictions + other.evictions == 0


LIMITS = """
import sys
from pathlib import Path
import trio
from tciafs.content.limits import Limits

async def main(room, size):
    limits = Limits(Path(room), size, 0)
    async with limits.reserved(size) as is_room:
        print(is_room, flush=True)
        await trio.sleep_forever()

trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


async def test_what_a_mount_had_under_way_that_was_killed_counts_nothing(room):
    with closing(Limits(room, 10 * SIZE, 0)) as limits:
        command = [sys.executable, "-c", LIMITS, str(room), str(10 * SIZE)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT)  # noqa: ASYNC220
        try:
            assert process.stdout
            assert process.stdout.readline() == b"True\n"
            async with limits.reserved(SIZE) as is_room:
                assert not is_room
        finally:
            process.kill()
            process.communicate()
        async with limits.reserved(10 * SIZE) as is_room:
            assert is_room
            assert limits.used == 0
    with closing(Limits(room, 10 * SIZE, 0)) as limits:
        async with limits.reserved(10 * SIZE) as is_room:
            assert is_room
            assert len(list(room.glob("reserved-*"))) == 1


async def test_where_a_reservation_cannot_be_written_nobody_fails(room, monkeypatch):
    monkeypatch.setattr("tciafs.content.reservations._PREFIX", "no such directory/reserved-")
    with closing(Limits(room, 10 * SIZE, 0)) as limits:
        async with limits.reserved(SIZE) as is_room:
            assert is_room


async def test_an_object_larger_than_the_limit_is_read_and_not_kept(room):
    small, large = made("small", 1000), made("large", 20 << 20)
    archive = Bodies()
    async with mounted(room, archive, limit=10_000) as content:
        assert await bytes_of(content, small) == expected(small)
        for _ in range(2):
            assert await bytes_of(content, large) == expected(large)
        assert await bytes_of(content, small) == expected(small)
        assert content.place.limits.evictions == 0
    assert await kept(room) == {"small@2019"}
    assert archive.fetched == ["small", "large", "large"]
    assert parts(room) == []


async def test_a_share_of_the_disk_is_left_to_others(room):
    archive = Bodies()
    one = made("1", 1000)
    async with mounted(room, archive, keep_free=1.0) as content:
        for _ in range(2):
            assert await bytes_of(content, one) == expected(one)
        assert await content.totals() == (0, 0)
    disk = os.statvfs(room)
    free = disk.f_bavail / disk.f_blocks
    async with mounted(room, archive, keep_free=free / 2) as content:
        await bytes_of(content, one)
        assert await content.totals() == (1, 1000)
    assert archive.fetched == ["1"] * 3


async def test_open_handles_read_on_after_their_object_was_evicted(room):
    one, other = made("1", 20 << 20), made("2", 1000)
    archive = Bodies()
    async with mounted(room, archive) as content:
        await bytes_of(content, one)
    async with mounted(room, archive) as content:
        handles = [await content.open(one), await content.open(one)]
        await bytes_of(content, other)
        await content.place.limits.evict(1 << 40)
        assert await content.totals() == (0, 0)
        for handle in handles:
            assert bytes(await handle.read(0, handle.size)) == expected(one)
            handle.close()
        assert await bytes_of(content, one) == expected(one)
    assert archive.fetched == ["1", "2", "1"]


async def test_an_object_committed_again_amid_its_eviction_stays_known(room):
    directory = room / ACCOUNTS[0]
    await put(directory, "1", used=5.0)
    with closing(Index.open(directory / INDEX_NAME)) as index:
        chosen = [(used, key) for used, key, _ in await index.least_recently_used(10)]
        await put(directory, "1")
        await index.note_evicted(chosen)
        assert await index.totals() == (1, SIZE)
        (stored,) = await index.on_disk()
        await index.put(Stored("1", "1.2", SIZE, "other", b"", on_disk=False))  # read from memory elsewhere
        assert await index.get("1") == stored
        await index.note_gone(["1"])
        await index.put(Stored("1", "1.2", SIZE, "other", b"", on_disk=False))
        assert (await index.get("1")) == Stored("1", "1.2", SIZE, "other", b"", on_disk=False)


async def test_what_is_kept_while_the_sum_is_made_is_not_forgotten(room):
    await filled(room, 6)
    limits = Limits(room, 1 << 40, keep_free=0)
    async with limits._accounts() as accounts, trio.open_nursery() as nursery:
        nursery.start_soon(limits._count, accounts)
        await trio.testing.wait_all_tasks_blocked()  # the index is being asked
        limits.note_kept(SIZE)
    assert limits.used == 7 * SIZE


@pytest.mark.alarming
async def test_an_index_that_takes_no_rows_costs_the_keeping_but_not_the_bytes(room):
    many = [made(str(number), SIZE) for number in range(4)]
    large = made("large", 20 << 20)
    archive = Bodies()
    async with mounted(room, archive) as content:
        await bytes_of(content, many[0])
        pages = "PRAGMA max_page_count = 1"  # what SQLite says then is what it says of a full disk
        await content.place.index._database.run(lambda db: db.execute(pages))
        await content.place.index._database.run(lambda db: db.execute("PRAGMA query_only = 1"))
        for one in (*many, large, *many):
            assert await bytes_of(content, one) == expected(one)
        await content.note_used()
        cache = content.place.cache
        assert cache.files() == [cache.path("0@2019")]
        cache.remove("0@2019")
        assert await bytes_of(content, many[0]) == expected(many[0])
        await content.place.index._database.run(lambda db: db.execute("PRAGMA query_only = 0"))
    assert parts(room) == []


async def test_a_fetch_cancelled_amid_its_commit_leaves_no_file_without_a_row(room):
    for number in range(12):
        one = made(str(number), 2 << 20)
        async with mounted(room, Bodies([*whole(one)])) as content:
            with trio.move_on_after(number / 400):
                await bytes_of(content, one)
    await kept(room)
    assert parts(room) == []
