"""After a remount, who reads a series of cached files in order finds the next ones verified already."""

import threading
from contextlib import asynccontextmanager

import pytest
import trio

from tciafs.archives.base import Unavailable
from tciafs.content import handle, verified
from tciafs.content.ahead.check import CheckAhead
from tciafs.content.ahead.order import Order
from tciafs.content.handle import is_whole_in
from tciafs.content.upkeep import clear_objects
from tciafs.database import Lost, Unwritable
from tciafs.model import Instance
from tests.test_arrival import MIB, Bodies, expected, fd_count, made, mounted
from tests.test_content import until
from tests.test_handle import files, flip

IMAGES = [made(str(number), 1000 + number) for number in range(12)]


@pytest.fixture(autouse=True)
def no_descriptor_left():
    before = fd_count()
    yield
    assert fd_count() == before


@pytest.fixture
def room(tmp_path):
    return tmp_path / "cache"


class Looks:
    """Which objects were compared with their digests, once somebody opened them and ahead of that."""

    def __init__(self):
        self.opened: set[str] = set()
        self.opening: list[str] = []
        self.ahead: list[str] = []
        self.gates: dict[str, threading.Event] = {}  # what is verified ahead waits for these

    def look(self, fd, stored, number):
        uid = stored.key.partition("@")[0]
        if uid in self.opened:
            self.opening.append(uid)
        else:
            self.ahead.append(uid)
            if uid in self.gates:
                assert self.gates[uid].wait(10)
        return is_whole_in(fd, stored, number)


@pytest.fixture
def looks(monkeypatch):
    looks = Looks()
    monkeypatch.setattr(handle, "is_whole_in", looks.look)
    monkeypatch.setattr(verified, "is_whole_in", looks.look)
    return looks


class Reader:
    def __init__(self, content, images, looks=None):
        self.content, self.images, self.looks = content, images, looks
        self.asked = 0

    async def siblings(self):
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return self.images

    async def read(self, *positions):
        for position in positions:
            image = self.images[position]
            if self.looks:
                self.looks.opened.add(image.sop_instance_uid)
            opened = await self.content.open(image, siblings=self.siblings)
            try:
                assert await opened.read(0, opened.size + 1) == expected(image)
            finally:
                opened.close()


@asynccontextmanager
async def remounted(room, archive, looks, images=IMAGES, ahead=True):
    """Fetch a series in one mount, and yield who reads it in the next, which knows what is on disk."""
    async with mounted(room, Bodies()) as content:
        await Reader(content, images).read(*range(len(images)))
    async with mounted(room, archive, ahead=ahead) as content:
        await content.known.of_series("1.2")
        yield Reader(content, images, looks)
        content.close()


async def a_moment():
    await trio.sleep(0.1)


async def test_the_next_files_are_verified_before_they_are_opened_and_each_once(room, looks, monkeypatch):
    archive = Bodies()
    async with remounted(room, archive, looks) as reader:
        await reader.read(0)
        await reader.read(1)
        await until(lambda: looks.ahead == ["2", "3"])
        await reader.read(2)
        await until(lambda: looks.ahead == ["2", "3", "4", "5", "6"])
        for position in range(3, 12):
            await reader.read(position)
            await a_moment()
        assert looks.ahead == [str(position) for position in range(2, 12)]
        assert looks.opening == ["0", "1"]
        assert reader.asked == 1
        monkeypatch.setattr(Order, "note", None)  # from now on, nobody counts
        await reader.read(*range(12))
        await a_moment()
        assert len(looks.ahead + looks.opening) == 12
        assert reader.asked == 1
    assert archive.fetched == []


async def test_who_reads_as_fast_as_it_goes_has_each_file_verified_once(room, looks):
    async with remounted(room, Bodies(), looks) as reader:
        await reader.read(*range(12))
        assert sorted(looks.ahead + looks.opening) == sorted(str(position) for position in range(12))
        assert looks.ahead


async def test_readers_beside_each_other_have_each_file_verified_once(room, looks):
    async with remounted(room, Bodies(), looks) as reader, trio.open_nursery() as readers:
        for begin in range(3):
            readers.start_soon(reader.read, *range(begin, 12, 3))
    assert sorted(looks.ahead + looks.opening) == sorted(str(position) for position in range(12))


async def test_many_who_open_one_file_at_once_have_it_verified_once(room, looks):
    async with remounted(room, Bodies(), looks) as reader, trio.open_nursery() as readers:
        for _ in range(5):
            readers.start_soon(reader.read, 5)
    assert (looks.opening, looks.ahead) == (["5"], [])


async def test_opens_at_random_cost_no_other_file(room, looks):
    async with remounted(room, Bodies(), looks) as reader:
        await reader.read(5, 5)
        await a_moment()
        assert reader.asked == 0
        await reader.read(0, 10)
        await a_moment()
        assert (looks.opening, looks.ahead) == (["5", "0", "10"], [])
        await reader.read(11)  # in order, though there is nothing after it
        await a_moment()
        assert looks.ahead == []


async def test_nothing_is_verified_ahead_where_that_is_off(room, looks):
    async with remounted(room, Bodies(), looks, ahead=False) as reader:
        await reader.read(0, 1, 2)
        await a_moment()
        assert (looks.opening, looks.ahead, reader.asked) == (["0", "1", "2"], [], 0)


@pytest.mark.alarming
async def test_a_damaged_file_is_left_to_who_opens_it_and_told_once(room, looks, caplog):
    archive = Bodies()
    async with remounted(room, archive, looks) as reader:
        path = reader.content.place.cache.path("2@2019")
        flip(path, 700)
        damaged = path.read_bytes()
        await reader.read(0, 1)
        await until(lambda: looks.ahead == ["2", "3"])
        await a_moment()
        assert (path.read_bytes(), files(room, "damaged"), caplog.records) == (damaged, [], [])
        assert archive.fetched == []
        await reader.read(2)
        assert archive.fetched == ["2"]
        assert [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
        assert len(caplog.records) == len(files(room, "damaged")) == 1
        await reader.read(*range(12))
        assert looks.ahead.count("2") == 1
        assert archive.fetched == ["2"]


@pytest.mark.alarming
@pytest.mark.parametrize("is_damaged", [False, True])
async def test_an_open_waits_for_the_verification_under_way(room, looks, is_damaged):
    archive = Bodies()
    looks.gates["2"] = threading.Event()
    async with remounted(room, archive, looks) as reader:
        if is_damaged:
            flip(reader.content.place.cache.path("2@2019"), 700)
        await reader.read(0, 1)
        await until(lambda: looks.ahead == ["2"])
        async with trio.open_nursery() as readers:
            readers.start_soon(reader.read, 2)
            with trio.move_on_after(0.1):
                await reader.read(2)  # who gives up leaves the others waiting, and no file open
            assert "2" not in looks.opening
            looks.gates["2"].set()
        assert looks.ahead.count("2") == 1
        assert ("2" in looks.opening) == is_damaged
        assert archive.fetched == ["2"] * is_damaged


async def test_files_that_are_evicted_or_cleared_meanwhile_are_fetched_by_who_opens_them(room, looks):
    archive = Bodies()
    looks.gates["3"] = threading.Event()
    async with remounted(room, archive, looks) as reader:
        place = reader.content.place
        place.cache.path("2@2019").unlink()  # as another mount evicts
        await reader.read(0, 1)
        await until(lambda: looks.ahead == ["3"])
        await clear_objects(place.cache, place.index)
        looks.gates["3"].set()
        await a_moment()
        assert archive.fetched == []
        await reader.read(*range(12))
        assert sorted(archive.fetched, key=int) == [str(position) for position in range(12)]


async def test_what_is_not_on_disk_and_what_is_read_block_by_block_is_passed_over(room, looks):
    images = [*IMAGES[:2], made("large", 17 * MIB), *IMAGES[2:6]]
    async with remounted(room, Bodies(), looks, images) as reader:
        reader.images = [*images[:3], made("never fetched", 1000), *images[3:]]
        await reader.read(0, 1)
        await a_moment()
        assert looks.ahead == []
        await reader.read(4)
        await until(lambda: looks.ahead == ["3", "4", "5"])
        assert looks.opening == ["0", "1", "2"]


async def test_nothing_begins_after_the_end(room, looks):
    looks.gates["2"] = threading.Event()
    async with remounted(room, Bodies(), looks) as reader:
        await reader.read(0, 1)
        await until(lambda: looks.ahead == ["2"])
        reader.content.close()
        looks.gates["2"].set()
        await reader.read(4, 5, 6)
        await a_moment()
        assert looks.ahead == ["2"]


@pytest.mark.parametrize("failure", [Unavailable("gone", 0.0), Lost("anew"), Unwritable("full")])
async def test_a_series_whose_order_nobody_can_tell_is_read_all_the_same(room, looks, failure):
    async with remounted(room, Bodies(), looks) as reader:

        async def fail():
            raise failure

        reader.siblings = fail
        await reader.read(*range(12))
        assert (len(looks.opening), looks.ahead) == (12, [])


async def test_a_series_that_is_verified_costs_no_question_and_no_task(nursery):
    async def never(*_):
        raise AssertionError("nothing is left to verify")

    ahead = CheckAhead(nursery, never)
    for _ in range(2):
        for number in range(100):
            ahead.note_open(Instance("1", str(number), "2019"), False, never)
    assert not nursery.child_tasks
