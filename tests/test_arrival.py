"""A large object is read while it arrives, and never to its end before it is known to be true."""

import gc
import os
import random
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import cache as remembered

import pytest
import trio

from tciafs.archives.base import ArchiveError, Failed, Overdue, Refused, Unavailable
from tciafs.content.blocks import BLOCK_BYTES
from tciafs.content.cache import Cache, claim
from tciafs.content.content import Content
from tciafs.content.handle import ArrivingHandle, Patience, WholeHandle
from tciafs.content.index import Index
from tciafs.content.limits import INDEX_NAME, Limits
from tciafs.content.place import Place
from tciafs.model import Instance
from tests.test_content import until
from tests.test_fetch import Scripted, digest

MIB = 1 << 20
SIZE = 18 * MIB + 5
LAST = SIZE // BLOCK_BYTES * BLOCK_BYTES


@remembered
def content_of(uid, size):
    return random.Random(uid).randbytes(size)


class Bodies(Scripted):
    """An archive that has every instance; scripts in `bodies` stand for the bytes of the next attempts.

    A step of a script may be an event to wait for.
    """

    def __init__(self, *bodies):
        super().__init__(*bodies)
        self.fetched: list[str] = []

    @asynccontextmanager
    async def open_instance(self, instance, span=None):
        self.fetched.append(instance.sop_instance_uid)
        body = self.bodies.pop(0) if self.bodies else whole(instance)
        if isinstance(body, Exception):
            raise body
        chunks = self._steps(body)
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def _steps(self, script):
        for step in script:
            if isinstance(step, trio.Event):
                await step.wait()
            else:
                async for chunk in self._chunks([step]):
                    yield chunk

    async def get_md5(self, instance):
        return digest(content_of(instance.sop_instance_uid, instance.size or instance.estimate))


def made(uid, size=SIZE):
    return Instance("1.2", uid, "2019", size=size, estimate=size)


def whole(instance, begin=0, end=None):
    """Return the chunks of an instance."""
    content = content_of(instance.sop_instance_uid, instance.size or instance.estimate)[begin:end]
    return [content[start : start + MIB] for start in range(0, len(content), MIB)]


@asynccontextmanager
async def mounted(
    directory,
    archive,
    limit=1 << 40,
    keep_free=0.0,
    account="scripted/public",
    patience=None,
    verify_md5=True,
    ahead=False,
):
    """Wire the content of an account as a mount does."""
    claim(directory)
    (directory / account).mkdir(parents=True, exist_ok=True)
    with (
        closing(Index.open(directory / account / INDEX_NAME)) as index,
        closing(Limits(directory, limit, keep_free)) as limits,
    ):
        async with trio.open_nursery() as nursery:
            place = Place(Cache(directory / account), index, limits)
            yield Content(archive, place, nursery, patience=patience, verify_md5=verify_md5, ahead=ahead)
            nursery.cancel_scope.cancel()


async def bytes_of(content, instance):
    handle = await content.open(instance)
    try:
        return bytes(await handle.read(0, handle.size + 1))
    finally:
        handle.close()


def expected(instance):
    return content_of(instance.sop_instance_uid, instance.size or instance.estimate)


def fd_count():
    gc.collect()
    return sorted(
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.lexists(f"/proc/self/fd/{fd}")
    )


@pytest.fixture(autouse=True)
def no_descriptor_left():
    before = fd_count()
    yield
    assert fd_count() == before


@pytest.fixture
def room(tmp_path):
    return tmp_path / "cache"


def parts(room):
    return [path for path in room.glob("*/*/parts/*") if path.is_file()]


async def test_bytes_are_readable_as_they_arrive_and_the_last_block_once_verified(room):
    one = made("1")
    first, rest = trio.Event(), trio.Event()
    archive = Bodies([*whole(one, 0, 9 * MIB), first, *whole(one, 9 * MIB), rest])
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        assert isinstance(handle, ArrivingHandle)
        assert (handle.size, handle.keep_cache) == (SIZE, False)
        with trio.fail_after(5):
            assert await handle.read(100, MIB) == expected(one)[100 : 100 + MIB]
        with trio.move_on_after(0.2) as scope:
            await handle.read(12 * MIB, 100)
        assert scope.cancelled_caught
        first.set()
        with trio.fail_after(5):
            assert await handle.read(LAST - 9, 9) == expected(one)[LAST - 9 : LAST]
        for offset, size in ((LAST, 1), (LAST - 1, 2), (SIZE - 1, 1)):
            with trio.move_on_after(0.1) as scope:
                await handle.read(offset, size)
            assert scope.cancelled_caught
        rest.set()
        with trio.fail_after(5):
            assert await handle.read(LAST - 1, 100 * MIB) == expected(one)[LAST - 1 :]
            assert await handle.read(SIZE, 10) == b""
        async with content_is_idle(content):
            handle.close()
        again = await content.open(one)
        assert isinstance(again, WholeHandle)
        assert again.keep_cache
        again.close()
    assert archive.fetched == ["1"]


@asynccontextmanager
async def content_is_idle(content):
    with trio.fail_after(5):
        while content.active:  # noqa: ASYNC110 (nothing else tells)
            await trio.sleep(0.01)
    yield


async def test_two_readers_are_at_different_places_of_one_fetch(room):
    one = made("1")
    more = trio.Event()
    archive = Bodies([*whole(one, 0, 6 * MIB), more, *whole(one, 6 * MIB)])
    got = {}
    async with mounted(room, archive) as content:

        async def read(name, offsets):
            handle = await content.open(one)
            try:
                got[name] = [bytes(await handle.read(offset, MIB)) for offset in offsets]
            finally:
                handle.close()

        async with trio.open_nursery() as readers:
            readers.start_soon(read, "ahead", range(16 * MIB, SIZE, MIB))
            readers.start_soon(read, "behind", range(0, SIZE, MIB))
            await trio.sleep(0.2)
            more.set()
    assert b"".join(got["behind"]) == expected(one)
    assert b"".join(got["ahead"]) == expected(one)[16 * MIB :]
    assert archive.fetched == ["1"]


async def test_a_handle_of_a_failed_attempt_fails_for_good_while_the_retry_serves_the_next(room):
    one = made("1")
    fail, go_on = trio.Event(), trio.Event()
    archive = Bodies(
        [*whole(one, 0, 6 * MIB), fail, Unavailable("cut")],
        [go_on, *whole(one)],
    )
    async with mounted(room, archive) as content:
        failed = await content.open(one)
        assert await failed.read(0, 10) == expected(one)[:10]
        async with trio.open_nursery() as nursery:
            waiter_done = trio.Event()

            async def wait_whole():  # somebody still wants it, so the attempt is made again
                flight = content._flight(content_key, one)
                await flight.result(60)
                waiter_done.set()

            content_key = "1@2019"
            nursery.start_soon(wait_whole)
            await trio.sleep(0.05)
            fail.set()
            with pytest.raises(Unavailable, match="cut"), trio.fail_after(5):
                await failed.read(12 * MIB, 10)
            got = []

            async def open_next():
                handle = await content.open(one)
                got.append((handle.keep_cache, bytes(await handle.read(0, SIZE))))
                handle.close()

            nursery.start_soon(open_next)  # between the attempts: the failed one is not for it
            await trio.sleep(0.5)
            assert got == []
            go_on.set()
        assert got == [(False, expected(one))]
        with pytest.raises(Unavailable, match="cut"):
            await failed.read(0, 10)
        failed.close()
        keeps = []
        for _ in range(2):
            handle = await content.open(one)
            keeps.append(handle.keep_cache)
            handle.close()
        assert keeps == [False, True]  # pages of the failed attempt may be with the kernel
    assert archive.fetched == ["1", "1"]
    assert parts(room) == []


@pytest.mark.parametrize("failure", [Unavailable("down"), Failed("500"), Refused("401")])
async def test_when_nobody_else_waits_a_failure_ends_it_and_the_next_open_begins_anew(room, failure):
    one = made("1")
    archive = Bodies([*whole(one, 0, 6 * MIB), 0.05, failure])
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        with pytest.raises(type(failure)):
            await handle.read(0, SIZE)
        handle.close()
        async with content_is_idle(content):
            pass
        assert await content.totals() == (0, 0)
        assert parts(room) == []
        assert await bytes_of(content, one) == expected(one)
    assert archive.fetched == ["1", "1"]


async def test_wrong_bytes_are_never_read_to_their_end(room):
    one, other = made("1"), made("2")
    archive = Bodies([*whole(other), 0.05])
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        with pytest.raises(ArchiveError, match="its MD5 is"):
            await handle.read(LAST, BLOCK_BYTES)
        handle.close()
        assert await bytes_of(content, one) == expected(one)


async def test_a_silent_archive_is_overdue_and_the_next_reader_goes_on(room):
    one = made("1")
    more = trio.Event()
    archive = Bodies([*whole(one, 0, 6 * MIB), more, *whole(one, 6 * MIB)])
    async with mounted(room, archive, patience=Patience(deadline=0.3)) as content:
        handle = await content.open(one)
        start = trio.current_time()
        with pytest.raises(Overdue, match="nothing came for"):
            await handle.read(10 * MIB, 10)
        assert 0.25 < trio.current_time() - start < 2
        more.set()
        assert await handle.read(0, SIZE) == expected(one)
        handle.close()
    assert archive.fetched == ["1"]


async def test_another_size_than_promised_fails_the_handle_and_the_next_open_is_right(room):
    true = made("1", SIZE + 7)
    one = replace(true, size=SIZE)
    archive = Bodies(whole(true))
    archive.get_md5 = lambda instance: Scripted.get_md5(archive, instance)  # type: ignore[method-assign]
    archive.digests = [digest(expected(true))]
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        assert handle.size == SIZE
        with pytest.raises(ArchiveError, match="open it again"):
            await handle.read(LAST, BLOCK_BYTES)
        with pytest.raises(ArchiveError, match="open it again"):
            await handle.read(0, 1)
        handle.close()
        async with content_is_idle(content):
            pass
        again = await content.open(one)
        assert (again.size, again.keep_cache) == (SIZE + 7, False)
        assert bytes(await again.read(0, SIZE + 8)) == expected(true)
        again.close()
    assert archive.fetched == ["1"]


async def test_whoever_gives_up_leaves_no_descriptor_and_no_part(room):
    one = made("1")
    archive = Bodies([*whole(one, 0, 6 * MIB), trio.Event()])
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        with trio.move_on_after(0.1):
            await handle.read(12 * MIB, 1)
        content.close()
        with pytest.raises(Unavailable, match="given up"), trio.fail_after(5):
            await handle.read(12 * MIB, 1)
        handle.close()
        async with content_is_idle(content):
            pass
        assert parts(room) == []


async def test_a_mount_that_ends_amid_a_fetch_leaves_nothing(room):
    one = made("1")
    async with mounted(room, Bodies([*whole(one, 0, 6 * MIB), trio.Event()])) as content:
        handle = await content.open(one)
        handle.close()
    assert parts(room) == []


async def test_what_another_mount_fetches_is_waited_for_while_it_grows_and_no_longer(room):
    one = replace(made("1"), estimate=1)  # patience is the deadline alone
    pieces = [step for chunk in whole(one)[:4] for step in (chunk, 0.7)]
    patience = Patience(deadline=1.2)
    async with (
        mounted(room, Bodies([*pieces, *whole(one)[4:]], [*pieces, trio.Event()])) as first,
        mounted(room, Bodies(), patience=patience) as second,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(bytes_of, first, one)
        await until(lambda: parts(room))
        began = trio.current_time()
        assert await bytes_of(second, one) == expected(one)
        assert trio.current_time() - began > 2
        assert second.counts.bytes == 0
        other = replace(one, version="2020")
        nursery.start_soon(bytes_of, first, other)
        await until(lambda: parts(room))
        began = trio.current_time()
        with pytest.raises(Overdue):
            await second.open(other)
        assert 3 < trio.current_time() - began < 3 + 1.2 * 3
        nursery.cancel_scope.cancel()


async def test_a_file_that_is_cut_while_it_arrives_gives_no_short_answer(room):
    one = made("1")
    archive = Bodies([*whole(one, 0, 9 * MIB), trio.Event()])
    async with mounted(room, archive) as content:
        handle = await content.open(one)
        await trio.sleep(0.3)
        (part,) = parts(room)
        os.truncate(part, MIB)
        with pytest.raises(OSError, match="was cut while it arrived"):
            await handle.read(0, 2 * MIB)
        handle.close()


async def test_a_waiter_that_is_cancelled_at_the_last_moment_leaks_nothing(room):
    small = [made(str(number), 1000) for number in range(60)]
    archive = Bodies()
    async with mounted(room, archive) as content:
        for number, one in enumerate(small):
            async with trio.open_nursery() as openers:

                async def give_up(one=one, number=number):
                    with trio.move_on_after(number / 10_000):
                        (await content.open(one)).close()

                openers.start_soon(give_up)
                openers.start_soon(give_up)
        async with content_is_idle(content):
            pass
        for one in small:
            assert await bytes_of(content, one) == expected(one)
