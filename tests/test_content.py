"""The bytes of an object: fetched once for all who open it, true or not there, kept for ever."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import md5
from pathlib import Path

import pytest
import trio

from tciafs.archives.base import ArchiveError, BadAnswer, Overdue, Unavailable
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.content.cache import Cache
from tciafs.content.content import Content
from tciafs.content.handle import Patience
from tciafs.content.index import Index, object_key
from tciafs.content.limits import Limits
from tciafs.content.place import Place
from tests.archive import start_archive

IMAGE, MD5 = "v4/getSingleImage", "v4/getMD5HashForImage"
_numbers = itertools.count()
PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def edited_archive():
    """Serve the sample data, and what the tests of this module add to them."""
    with start_archive() as archive:
        yield archive


@asynccontextmanager
async def opening(room, archive, patience=None, verify_md5=True):
    """Wire the content to the embedded archive as a mount does."""
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(room / "capabilities.json"))
        with closing(Index.open(room / "content.sqlite")) as index:
            async with trio.open_nursery() as nursery:
                place = Place(Cache(room), index, Limits(room, 1 << 40, keep_free=0))
                place.cache.remove_leftovers()
                content = Content(nbia, place, nursery, patience=patience, verify_md5=verify_md5)
                yield content
                nursery.cancel_scope.cancel()


async def instances_of(archive, collection, patient_id):
    """Return the instances of a patient's largest series, as a catalog would."""
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(Path("/nonexistent/capabilities")))
        series = max(await nbia.get_series(collection, patient_id), key=lambda each: each.image_count)
        found = (await nbia.get_instances(series))[series.series_instance_uid]
    assert isinstance(found, list)
    return sorted(found, key=lambda each: each.instance_number or 0)


async def some(archive):
    """Return an image of 39 kB."""
    return (await instances_of(archive, "Demo-CT", "1CT1"))[0]


async def made_up(archive, **edit):
    """Return the only image of a series of its own."""
    collection = f"Own {next(_numbers)}"
    (uid,) = archive.edit(synthetic={"collection": collection, "patient_id": "p"})
    if edit:
        archive.edit(series=uid, **edit)
    return (await instances_of(archive, collection, "p"))[0]


async def bytes_of(content, instance):
    handle = await content.open(instance)
    try:
        return bytes(await handle.read(0, handle.size + 1))
    finally:
        handle.close()


async def truth(archive, instance):
    """Return what any other client gets."""
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(Path("/nonexistent/capabilities")))
        async with nbia.open_instance(instance) as chunks:
            return b"".join([chunk async for chunk in chunks])


def files(room, kind="objects"):
    return [path for path in (room / kind).rglob("*") if path.is_file()]


def rule(do, endpoint="getSingleImage", **more):
    return {"do": do, "endpoint": endpoint, **more}


async def until(condition, seconds=5.0):
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (nothing else tells)
            await trio.sleep(0.02)


# Fetched once.


async def test_many_who_open_an_instance_at_once_cost_one_image_and_one_md5(tmp_path, archive):
    instance = await some(archive)
    expected = await truth(archive, instance)
    archive.reset()
    archive.faults(latency_ms=100)
    got = []
    async with opening(tmp_path, archive) as content:

        async def read():
            got.append(await bytes_of(content, instance))

        async with trio.open_nursery() as readers:
            for _ in range(30):
                readers.start_soon(read)
        assert archive.requests() == {IMAGE: 1, MD5: 1}
        assert got == [expected] * 30
        assert await bytes_of(content, instance) == expected
        assert archive.requests() == {IMAGE: 1, MD5: 1}
        assert (content.counts.misses, content.counts.hits) == (30, 1)
        assert (content.counts.completed, content.counts.failed) == (1, 0)
        assert content.counts.bytes == len(expected)
        assert content.active == 0


async def test_the_bytes_of_a_large_object_and_of_a_whole_series_are_those_of_the_archive(tmp_path, archive):
    (large,) = [one for one in await instances_of_every_series(archive) if one.estimate > 10_000_000]
    wanted = [large, *(await instances_of(archive, "Demo-CT", "98890234"))]
    async with opening(tmp_path, archive) as content:
        for instance in wanted:
            assert await bytes_of(content, instance) == await truth(archive, instance)
    assert len(files(tmp_path)) == len(wanted)


async def instances_of_every_series(archive):
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(Path("/nonexistent/capabilities")))
        series = await nbia.get_series("Demo-CT", "PHANTOM-01")
        listed = await nbia.get_instances(series[0], series[1:])
    return [instance for found in listed.values() if isinstance(found, list) for instance in found]


async def test_after_reopening_nothing_is_asked(tmp_path, archive):
    instance = await some(archive)
    async with opening(tmp_path, archive) as content:
        before = await bytes_of(content, instance)
    archive.reset()
    async with opening(tmp_path, archive) as content:
        opened = await content.open(instance)
        assert (opened.size, opened.keep_cache) == (len(before), True)
        opened.close()
        assert await bytes_of(content, instance) == before
        assert await content.totals() == (1, len(before))
        assert (content.counts.hits, content.counts.misses) == (2, 0)
    assert archive.requests() == {}


async def test_a_series_submitted_again_is_fetched_again(tmp_path, archive):
    instance = await some(archive)
    async with opening(tmp_path, archive) as content:
        await bytes_of(content, instance)
        await bytes_of(content, replace(instance, version="2030-01-01"))
    assert archive.requests()[IMAGE] == 2
    assert len(files(tmp_path)) == 2


async def test_whoever_stops_waiting_leaves_the_fetch_to_the_others(tmp_path, archive):
    instance = await some(archive)
    archive.reset()
    archive.faults(latency_ms=300)
    async with opening(tmp_path, archive) as content:
        with trio.move_on_after(0.1) as scope:
            await content.open(instance)
        assert scope.cancelled_caught
        assert content.active == 1
        assert len(await bytes_of(content, instance)) == instance.size
        assert archive.requests() == {IMAGE: 1, MD5: 1}


# In time.


@pytest.mark.parametrize("do", ["stall", "stall_body"])
async def test_an_archive_that_stalls_is_overdue_in_time_and_the_next_one_who_opens_joins(
    tmp_path, archive, do
):
    instance = await some(archive)
    archive.reset()
    archive.faults(rules=[rule(do)])
    async with opening(tmp_path, archive, Patience(deadline=2)) as content:
        start = trio.current_time()
        with pytest.raises(Overdue, match="no answer within 2 s"):
            await content.open(instance)
        assert 1.9 < trio.current_time() - start < 3
        assert content.active == 1
        assert archive.requests()[IMAGE] == 1
        archive.faults()
        with trio.move_on_after(0.3) as scope:  # the fetch that is under way is stuck still
            await content.open(instance)
        assert scope.cancelled_caught
        assert archive.requests()[IMAGE] == 1
        content.close()
        await until(lambda: content.active == 0)
        assert files(tmp_path, "parts") == files(tmp_path) == []
    async with opening(tmp_path, archive) as content:
        assert len(await bytes_of(content, instance)) == instance.size


async def test_an_archive_that_is_late_is_joined_and_its_bytes_are_had(tmp_path, archive):
    instance = await some(archive)
    archive.reset()
    archive.faults(rules=[rule("delay", ms=1500)])
    async with opening(tmp_path, archive, Patience(deadline=1)) as content:
        with pytest.raises(Overdue):
            await content.open(instance)
        assert len(await bytes_of(content, instance)) == instance.size
        assert archive.requests() == {IMAGE: 1, MD5: 1}


async def test_bytes_that_keep_coming_are_waited_for_beyond_the_deadline_but_not_beyond_the_limit(
    tmp_path, archive
):
    instance = await some(archive)
    archive.faults(rules=[rule("trickle", bytes_per_second=20_000)])
    async with opening(tmp_path, archive, Patience(deadline=1, limit=1.5)) as content:
        start = trio.current_time()
        with pytest.raises(Overdue):
            await content.open(instance)
        assert trio.current_time() - start == pytest.approx(1.5, abs=0.3)
    async with opening(tmp_path, archive, Patience(deadline=1)) as content:
        start = trio.current_time()
        assert len(await bytes_of(content, instance)) == instance.size
        assert trio.current_time() - start > 1.5


async def test_closing_releases_whoever_waits(tmp_path, archive):
    instance = await some(archive)
    archive.faults(rules=[rule("stall")])
    async with opening(tmp_path, archive) as content:
        async with trio.open_nursery() as waiters:

            async def wait():
                with pytest.raises(Unavailable, match="is ending"):
                    await content.open(instance)

            for _ in range(3):
                waiters.start_soon(wait)
            await until(lambda: content.active == 1)
            await trio.sleep(0.2)
            content.close()
            with trio.fail_after(1):
                await wait()
        await until(lambda: content.active == 0)
        assert content.counts.failed == 1
    assert files(tmp_path, "parts") == []


# True or not at all.


@pytest.mark.parametrize("do", ["cut", "corrupt", "short", "html", "empty", "status"])
async def test_an_image_that_came_wrong_once_is_fetched_again(tmp_path, archive, do):
    instance = await some(archive)
    expected = await truth(archive, instance)
    archive.reset()
    archive.faults(rules=[rule(do, times=1)])
    async with opening(tmp_path, archive) as content:
        assert await bytes_of(content, instance) == expected
        assert archive.requests() == {IMAGE: 2, MD5: archive.requests()[MD5]}
        assert (content.counts.completed, content.counts.failed) == (1, 0)
    assert files(tmp_path, "parts") == []


@pytest.mark.parametrize(
    ("do", "kind"),
    [
        ("corrupt", BadAnswer),
        ("short", BadAnswer),
        ("html", BadAnswer),
        ("empty", BadAnswer),
        ("cut", Unavailable),
        ("status", ArchiveError),
    ],
)
async def test_an_image_that_never_comes_right_is_an_error_and_leaves_nothing(tmp_path, archive, do, kind):
    instance = await some(archive)
    archive.reset()
    archive.faults(rules=[rule(do)])
    async with opening(tmp_path, archive) as content:
        with pytest.raises(kind):
            await content.open(instance)
        assert archive.requests()[IMAGE] == 3
        assert files(tmp_path) == files(tmp_path, "parts") == []
        assert await content.known.get(instance) is None
        assert (content.counts.completed, content.counts.failed) == (0, 1)
        assert await content.totals() == (0, 0)
        archive.faults()
        assert len(await bytes_of(content, instance)) == instance.size


async def test_an_archive_that_is_gone_is_an_error_and_what_is_there_is_read_on(tmp_path, own_archive):
    known, unknown = (await instances_of(own_archive, "Demo-CT", "98890234"))[:2]
    async with opening(tmp_path, own_archive) as content:
        await bytes_of(content, known)
        own_archive.stop()
        start = trio.current_time()
        with pytest.raises(Unavailable):
            await content.open(unknown)
        assert trio.current_time() - start < 5
        assert len(await bytes_of(content, known)) == known.size


async def test_verify_size_asks_for_no_md5(tmp_path, archive):
    instance = await some(archive)
    archive.reset()
    async with opening(tmp_path, archive, verify_md5=False) as content:
        assert len(await bytes_of(content, instance)) == instance.size
    assert archive.requests() == {IMAGE: 1}


async def test_verify_size_refuses_what_is_short_in_a_different_way_each_time(tmp_path, archive):
    instance = await some(archive)
    archive.faults(rules=[rule("short", times=1), rule("empty", times=1), rule("html")])
    async with opening(tmp_path, archive, verify_md5=False) as content:
        with pytest.raises(BadAnswer):
            await content.open(instance)
    assert files(tmp_path) == []


async def test_verify_size_believes_another_size_than_promised_when_two_fetches_agree(
    tmp_path, edited_archive
):
    instance = await made_up(edited_archive, promised_size_delta=7)
    edited_archive.reset()
    async with opening(tmp_path, edited_archive, verify_md5=False) as content:
        opened = await content.open(instance)
        opened.close()
        assert opened.size == instance.size - 7
        assert edited_archive.requests() == {IMAGE: 2}
        assert (await content.known.get(instance)).size == opened.size


async def test_a_wrong_promise_is_corrected_by_the_md5_and_remembered(tmp_path, edited_archive):
    instance = await made_up(edited_archive, promised_size_delta=-7)
    edited_archive.reset()
    async with opening(tmp_path, edited_archive) as content:
        opened = await content.open(instance)
        opened.close()
        assert opened.size == instance.size + 7
        assert edited_archive.requests() == {IMAGE: 1, MD5: 1}
    async with opening(tmp_path, edited_archive) as content:
        assert (await content.known.get(instance)).size == instance.size + 7
        opened = await content.open(instance)
        opened.close()
        assert opened.size == instance.size + 7


async def test_an_archive_without_the_md5_endpoint_is_asked_for_it_once(tmp_path, archive):
    one, other = (await instances_of(archive, "Demo-CT", "98890234"))[:2]
    archive.reset()
    archive.faults(disabled=[MD5])
    async with opening(tmp_path, archive) as content:
        for instance in (one, other):
            assert len(await bytes_of(content, instance)) == instance.size
    assert archive.requests() == {IMAGE: 2, MD5: 1}


async def test_a_size_that_nobody_promised_becomes_known(tmp_path, edited_archive):
    instance = await made_up(edited_archive, null_sizes=True)
    assert (instance.size, instance.estimate) == (None, 1)
    async with opening(tmp_path, edited_archive) as content:
        assert await content.known.get(instance) is None
        assert await content.known.of_series(instance.series_instance_uid) == {}
        opened = await content.open(instance)
        opened.close()
        stored = await content.known.get(instance)
        assert stored.size == opened.size > 1
        assert await content.known.of_series(instance.series_instance_uid) == {object_key(instance): stored}
        assert stored.md5 == md5(await bytes_of(content, instance)).hexdigest()


# What happens to files behind our back.


@pytest.mark.alarming
@pytest.mark.parametrize("reopened", [True, False])
async def test_a_file_that_was_truncated_is_fetched_again(tmp_path, archive, caplog, reopened):
    instance = await some(archive)
    async with opening(tmp_path, archive) as content:
        expected = await bytes_of(content, instance)
        if not reopened:
            os.truncate(files(tmp_path)[0], 100)
            assert await bytes_of(content, instance) == expected
            assert await content.totals() == (1, len(expected))
    if reopened:
        os.truncate(files(tmp_path)[0], 100)
        async with opening(tmp_path, archive) as content:
            assert await content.totals() == (1, len(expected))
            assert await bytes_of(content, instance) == expected
            assert await content.totals() == (1, len(expected))
            assert content.counts.misses == 1
    assert archive.requests()[IMAGE] == 2
    assert "is damaged (it has 100 bytes instead of 39206): set aside" in caplog.text


async def test_a_file_that_was_removed_is_fetched_again_and_its_size_stays_known(tmp_path, archive):
    instance = await some(archive)
    async with opening(tmp_path, archive) as content:
        assert await content.totals() == (0, 0)
        expected = await bytes_of(content, instance)
        assert await content.totals() == (1, len(expected))
        files(tmp_path)[0].unlink()
        archive.faults(rules=[rule("html")])
        with pytest.raises(BadAnswer):
            await content.open(instance)
        assert await content.totals() == (0, 0)
        stored = await content.known.get(instance)
        assert (stored.size, stored.on_disk) == (len(expected), False)
        archive.faults()
        opened = await content.open(instance)
        opened.close()
        assert opened.size == len(expected)
        assert await bytes_of(content, instance) == expected
        assert await content.totals() == (1, len(expected))


async def test_totals_grow_with_each_object(tmp_path, archive):
    wanted = await instances_of(archive, "Demo-CT", "98890234")
    size = 0
    async with opening(tmp_path, archive) as content:
        for number, instance in enumerate(wanted):
            assert await content.totals() == (number, size)
            size += len(await bytes_of(content, instance))
    async with opening(tmp_path, archive) as content:
        assert await content.totals() == (len(wanted), size)


async def test_two_mounts_share_what_either_has_fetched(tmp_path, archive):
    instance = await some(archive)
    async with opening(tmp_path, archive) as one, opening(tmp_path, archive) as other:
        await bytes_of(one, instance)
        archive.reset()
        assert len(await bytes_of(other, instance)) == instance.size
    assert archive.requests() == {}


@pytest.mark.alarming
async def test_what_stands_in_an_objects_place_is_set_aside(tmp_path, archive):
    instance = await some(archive)
    async with opening(tmp_path, archive) as content:
        await bytes_of(content, instance)
        (path,) = files(tmp_path)
        path.unlink()
        path.mkdir()
        with trio.fail_after(5):
            assert len(await bytes_of(content, instance)) == instance.size
        assert path.is_file()


# Disk and process.


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 300 kB."""
    room = tmp_path / "disk"
    room.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", room]
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    yield room
    subprocess.run(["umount", room], check=True)


async def test_what_a_full_disk_does_not_take_is_read_from_memory(tmp_path, small_disk, archive):
    instance = await some(archive)
    (large,) = [one for one in await instances_of_every_series(archive) if one.estimate > 10_000_000]
    async with opening(tmp_path, archive) as content:  # the index has space of its own
        content.place = replace(content.place, cache=Cache(small_disk))
        for _ in range(2):
            assert (
                md5(await bytes_of(content, large)).hexdigest()
                == md5(await truth(archive, large)).hexdigest()
            )
            assert files(small_disk) == files(small_disk, "parts") == []
        assert len(await bytes_of(content, instance)) == instance.size
        ballast = small_disk / "ballast"
        other = replace(instance, version="another")
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(bytes(free))
        assert len(await bytes_of(content, other)) == instance.size
        assert len(files(small_disk)) == 1
        assert files(small_disk, "parts") == []
        assert len(await bytes_of(content, instance)) == instance.size
        Cache(small_disk)  # a mount can begin on a full disk
        ballast.unlink()
        assert len(await bytes_of(content, other)) == instance.size
        assert len(files(small_disk)) == 2


FETCHER = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
import trio
from tciafs.model import Instance
from tests.test_content import opening

async def main(room, url, *fields):
    async with opening(Path(room), SimpleNamespace(url=url)) as content:
        print("open", flush=True)
        await content.open(Instance(*fields))

trio.run(main, *json.loads(sys.argv[1]))
"""


async def test_a_process_killed_in_mid_fetch_leaves_a_cache_that_works_at_once(tmp_path, archive):
    instance = await some(archive)
    (large,) = [one for one in await instances_of_every_series(archive) if one.estimate > 10_000_000]
    async with opening(tmp_path, archive) as content:
        await bytes_of(content, instance)
    archive.reset()
    archive.faults(rules=[rule("trickle", bytes_per_second=4_000_000)])
    fields = [large.series_instance_uid, large.sop_instance_uid, large.version]
    argument = json.dumps([str(tmp_path), archive.url, *fields])
    process = subprocess.Popen([sys.executable, "-c", FETCHER, argument], cwd=PROJECT)  # noqa: ASYNC220
    try:
        await until(lambda: any(part.stat().st_size for part in files(tmp_path, "parts")), 15)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    archive.faults()
    assert len(files(tmp_path)) == 1
    start = time.monotonic()
    async with opening(tmp_path, archive) as content:
        assert files(tmp_path, "parts") == []
        assert len(await bytes_of(content, instance)) == instance.size
        assert await bytes_of(content, large) == await truth(archive, large)
        assert await content.totals() == (2, instance.size + large.size)
    assert time.monotonic() - start < 5


async def test_objects_opened_in_any_order_by_many_are_each_their_own(tmp_path, edited_archive):
    edited_archive.edit(synthetic={"collection": "Many", "patient_id": "p", "series_of": 60})
    wanted = await instances_of(edited_archive, "Many", "p")
    expected = {one.sop_instance_uid: await truth(edited_archive, one) for one in wanted}
    edited_archive.reset()
    order = wanted * 3
    random.Random(7).shuffle(order)
    async with opening(tmp_path, edited_archive) as content:

        async def check(instance):
            assert await bytes_of(content, instance) == expected[instance.sop_instance_uid]

        async with trio.open_nursery() as readers:
            for instance in order:
                readers.start_soon(check, instance)
    assert edited_archive.requests() == {IMAGE: 60, MD5: 60}
