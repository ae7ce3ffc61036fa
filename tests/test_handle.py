"""Damage is found when a block is first read in a mount, and mended once; mounts share what they fetch."""

import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tciafs.archives.base import Unavailable
from tciafs.content import handle as handles
from tciafs.content.blocks import BLOCK_BYTES, Digests, is_whole
from tciafs.content.cache import Cache
from tciafs.content.handle import WholeHandle
from tciafs.content.index import Stored
from tests.test_arrival import (
    MIB,
    SIZE,
    Bodies,
    bytes_of,
    content_is_idle,
    expected,
    fd_count,
    made,
    mounted,
    parts,
    whole,
)
from tests.test_fetch import digest

PROJECT = Path(__file__).parent.parent
SMALL = made("small", 3 * MIB + 1)
LARGE = made("large")
alarming = pytest.mark.alarming


@pytest.fixture(autouse=True)
def no_descriptor_left():
    before = fd_count()
    yield
    assert fd_count() == before


@pytest.fixture
def room(tmp_path):
    return tmp_path / "cache"


def files(room, kind="objects"):
    return [path for path in room.glob(f"*/*/{kind}/**/*") if path.is_file()]


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def zero(path, offset):
    with path.open("r+b") as file:
        file.seek(offset // BLOCK_BYTES * BLOCK_BYTES)
        file.write(bytes(min(BLOCK_BYTES, path.stat().st_size - file.tell())))


def cut(path, offset):
    os.truncate(path, offset)


@asynccontextmanager
async def filled(room, archive, *instances):
    """Fetch in one mount, and yield the next one with the files it finds."""
    async with mounted(room, Bodies()) as content:
        for one in instances:
            await bytes_of(content, one)
    async with mounted(room, archive) as content:
        yield content


@alarming
@pytest.mark.parametrize("damage", [flip, zero, cut])
@pytest.mark.parametrize("one", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("offset", [0, 3 * MIB])
async def test_damage_is_found_set_aside_and_mended_with_one_fetch(room, damage, one, offset):
    archive = Bodies()
    async with filled(room, archive, one) as content:
        (path,) = files(room)
        damage(path, offset)
        assert await bytes_of(content, one) == expected(one)
        assert await bytes_of(content, one) == expected(one)
        assert archive.fetched == [one.sop_instance_uid]
        assert len(files(room, "damaged")) == 1
        assert await content.totals() == (1, one.size)
    async with mounted(room, archive) as content:
        assert await bytes_of(content, one) == expected(one)
    assert len(archive.fetched) == 1


@alarming
async def test_damage_of_a_large_object_is_found_when_its_block_is_read(room):
    archive = Bodies()
    async with filled(room, archive, LARGE) as content:
        flip(files(room)[0], 9 * MIB)
        handle = await content.open(LARGE)
        assert handle.keep_cache
        assert await handle.read(0, 4 * MIB) == expected(LARGE)[: 4 * MIB]
        assert archive.fetched == []
        assert await handle.read(9 * MIB - 5, 10) == expected(LARGE)[9 * MIB - 5 : 9 * MIB + 5]
        assert archive.fetched == ["large"]
        keeps = []
        for _ in range(2):
            again = await content.open(LARGE)
            keeps.append(again.keep_cache)
            again.close()
        assert keeps == [False, True]
        handle.close()


@alarming
async def test_when_the_archive_is_gone_damage_costs_its_own_blocks_only(room):
    archive = Bodies()
    async with filled(room, archive, LARGE, SMALL, made("sound", 1000)) as content:
        cache = content.place.cache
        flip(cache.path("large@2019"), 9 * MIB)
        flip(cache.path("small@2019"), 5)
        archive.bodies = [Unavailable("gone", 0.0)] * 100
        handle = await content.open(LARGE)
        with pytest.raises(Unavailable):
            await handle.read(8 * MIB, 10)
        assert await handle.read(4 * MIB, 10) == expected(LARGE)[4 * MIB : 4 * MIB + 10]
        with pytest.raises(Unavailable):
            await handle.read(8 * MIB, 10)
        with pytest.raises(Unavailable):
            await content.open(SMALL)
        assert await bytes_of(content, made("sound", 1000)) == expected(made("sound", 1000))
        archive.bodies = []
        assert await handle.read(0, SIZE) == expected(LARGE)  # mended as soon as it can be
        handle.close()
        assert await bytes_of(content, SMALL) == expected(SMALL)


@alarming
async def test_many_readers_of_a_damaged_object_cost_one_fetch(room):
    archive = Bodies()
    async with filled(room, archive, LARGE) as content:
        for block in range(0, SIZE, BLOCK_BYTES):
            flip(files(room)[0], block)
        early = [await content.open(LARGE) for _ in range(3)]
        got = []

        async def read(handle, offset):
            got.append(await handle.read(offset, MIB) == expected(LARGE)[offset : offset + MIB])

        async with trio.open_nursery() as readers:
            for handle in early[:2]:
                for offset in range(0, SIZE, MIB):
                    readers.start_soon(read, handle, offset)
        assert got == [True] * 38
        await read(early[2], 0)  # has the damaged file open still
        assert got[-1]
        assert archive.fetched == ["large"]
        assert len(files(room, "damaged")) == 1
        for handle in early:
            handle.close()


async def test_a_block_is_verified_once_in_a_mount_and_again_in_the_next(room, monkeypatch):
    seen = []

    def counted(block, number, digests):
        seen.append(number)
        return is_whole(block, number, digests)

    monkeypatch.setattr(handles, "is_whole", counted)
    async with mounted(room, Bodies()) as content:
        await bytes_of(content, LARGE)
        await bytes_of(content, LARGE)
        assert seen == []
    for _ in range(2):
        async with mounted(room, Bodies()) as content:
            handle = await content.open(LARGE)
            async with trio.open_nursery() as readers:
                for offset in range(0, SIZE, MIB // 2):
                    readers.start_soon(handle.read, offset, MIB // 2)
            handle.close()
            assert sorted(seen) == list(range(5))
            await bytes_of(content, LARGE)
            assert sorted(seen) == list(range(5))
            seen.clear()


async def test_damage_again_after_the_repair_is_an_error_and_other_bytes_are_never_mixed_in(tmp_path):
    content = b"true" * 1000
    digests = Digests()
    digests.update(content)
    stored = Stored("key", "1.2", len(content), digest(content), digests.finish(), True)
    path = tmp_path / "file"
    path.write_bytes(b"x" * len(content))
    repaired = []

    async def repair(damaged):
        repaired.append(damaged)
        return os.open(path, os.O_RDONLY), answer, {0}

    answer = stored
    handle = WholeHandle(os.open(path, os.O_RDONLY), stored, {0}, repair)
    for _ in range(2):
        with pytest.raises(OSError, match="damaged again and again"):
            await handle.read(0, 10)
    assert len(repaired) == 1
    handle.close()
    answer = Stored("key", "1.2", len(content), digest(b"other"), b"", True)
    handle = WholeHandle(os.open(path, os.O_RDONLY), stored, {0}, repair)
    with pytest.raises(OSError, match="other bytes than it had"):
        await handle.read(0, 10)
    handle.close()


async def test_a_file_that_is_cut_while_open_gives_an_error_and_no_short_answer(room):
    async with filled(room, Bodies(), SMALL) as content:
        handle = await content.open(SMALL)
        os.truncate(files(room)[0], 100)
        with pytest.raises(OSError, match="it was cut while open"):
            await handle.read(0, 1000)
        handle.close()


# Two mounts.


@pytest.mark.parametrize("one", [SMALL, LARGE], ids=["small", "large"])
async def test_two_mounts_fetch_an_object_once(room, one):
    ready = trio.Event()
    archive, other_archive = Bodies([*whole(one, 0, MIB), ready, *whole(one, MIB)]), Bodies()
    got = []
    async with mounted(room, archive) as content, mounted(room, other_archive) as other:

        async def read(which):
            got.append(await bytes_of(which, one) == expected(one))

        async with trio.open_nursery() as readers:
            readers.start_soon(read, content)
            await trio.sleep(0.1)
            for _ in range(2):
                readers.start_soon(read, other)
            await trio.sleep(0.3)
            assert got == []
            ready.set()
        assert got == [True] * 3
        assert (archive.fetched, other_archive.fetched) == ([one.sop_instance_uid], [])
        assert await other.totals() == (1, one.size)
    assert parts(room) == []


async def test_those_who_wait_for_another_mount_keep_nobody_else_from_reading(room):
    many = [made(str(number), 1000) for number in range(20)]
    never = trio.Event()
    async with (
        mounted(room, Bodies(*[[never]] * 8)) as content,
        mounted(room, Bodies()) as other,
        trio.open_nursery() as readers,
    ):
        for one in many[:8]:
            readers.start_soon(bytes_of, content, one)
        await trio.sleep(0.1)
        with trio.fail_after(5):
            for one in many[8:]:
                assert await bytes_of(other, one) == expected(one)
        for one in many[:5]:
            readers.start_soon(bytes_of, other, one)
        await trio.sleep(0.1)
        with trio.fail_after(5):
            assert await bytes_of(other, made("21", 1000)) == expected(made("21", 1000))
        never.set()


@alarming
async def test_a_damaged_object_that_two_mounts_find_is_fetched_once(room):
    one, two = Bodies(), Bodies()
    async with filled(room, one, LARGE) as content, mounted(room, two) as other:
        flip(files(room)[0], 0)
        first, second = await content.open(LARGE), await other.open(LARGE)
        assert await first.read(0, 10) == expected(LARGE)[:10]
        assert await second.read(0, 10) == expected(LARGE)[:10]
        assert len(one.fetched) + len(two.fetched) == 1
        assert len(files(room, "damaged")) == 1
        first.close()
        second.close()
        assert await other.totals() == (1, SIZE)


@alarming
async def test_what_another_mount_brought_is_verified_here(room):
    archive = Bodies()
    async with mounted(room, archive) as content, mounted(room, Bodies()) as other:
        await content.place.index.note_gone([])
        await bytes_of(other, SMALL)
        flip(files(room)[0], 0)
        assert await bytes_of(content, SMALL) == expected(SMALL)
        assert archive.fetched == ["small"]


WRITER = """
import sys
from pathlib import Path
import trio
from tests.test_arrival import Bodies, bytes_of, made, mounted, whole

async def main(room, uid, size, endless):
    one = made(uid, int(size))
    script = [*whole(one)[:-1], trio.Event()] if endless == "yes" else [0.5, *whole(one)]
    async with mounted(Path(room), Bodies(script)) as content:
        print("open", flush=True)
        await bytes_of(content, one)

trio.run(main, *sys.argv[1:])
"""


@asynccontextmanager
async def process(room, one, endless):
    command = [sys.executable, "-c", WRITER, str(room), one.sop_instance_uid, str(one.size), endless]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE) as writer:  # noqa: ASYNC220
        try:
            assert writer.stdout is not None
            await trio.to_thread.run_sync(writer.stdout.readline)
            with trio.fail_after(10):
                while not parts(room):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            yield writer
        finally:
            writer.kill()


async def test_two_processes_fetch_an_object_once(room):
    archive = Bodies()
    async with process(room, SMALL, "no"), mounted(room, archive) as content:
        with trio.fail_after(10):
            assert await bytes_of(content, SMALL) == expected(SMALL)
    assert archive.fetched == []


async def test_when_the_process_that_fetches_is_killed_the_waiter_takes_over_at_once(room):
    archive = Bodies()
    async with process(room, LARGE, "yes") as writer, mounted(room, archive) as content:
        async with trio.open_nursery() as readers:

            async def read():
                assert await bytes_of(content, LARGE) == expected(LARGE)

            readers.start_soon(read)
            await trio.sleep(0.5)
            assert archive.fetched == []
            writer.send_signal(signal.SIGKILL)
            start = trio.current_time()
        assert trio.current_time() - start < 2
        assert archive.fetched == ["large"]
        async with content_is_idle(content):
            pass
    assert parts(room) == []


# Full disks.


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 8 MB."""
    room = tmp_path / "disk"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", room]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield room
    finally:
        subprocess.run(["umount", room], check=True)


def fill(disk):
    """Leave not a byte."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return


@alarming
async def test_a_full_disk_is_evicted_then_served_from_memory(small_disk):
    many = [made(str(number), 600_000) for number in range(20)]
    async with mounted(small_disk, Bodies()) as content:  # no limit of ours: the disk's own
        for one in many:
            assert await bytes_of(content, one) == expected(one)
        files_now, size = await content.totals()
        assert 0 < size <= 8 * MIB
        assert files_now == len(files(small_disk))
        assert content.place.limits.evictions >= 20 - files_now > 0
        assert await bytes_of(content, many[-1]) == expected(many[-1])
        for path in files(small_disk):
            path.unlink()
        fill(small_disk)
        for one in many[:3]:
            assert await bytes_of(content, one) == expected(one)
        (small_disk / "ballast").unlink()
        assert await bytes_of(content, many[5]) == expected(many[5])
        assert files(small_disk)
    assert Cache(small_disk / "scripted" / "public").remove_leftovers() == 0
