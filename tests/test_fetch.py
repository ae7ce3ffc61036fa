"""One object on its way: tried three times, and committed only when it is true."""

import types
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import md5

import pytest
import tenacity
import trio

from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused, Unavailable, Unsupported
from tciafs.content.cache import Cache
from tciafs.content.fetch import Fetch
from tciafs.content.index import Index
from tciafs.content.limits import Limits
from tciafs.content.place import Place
from tciafs.model import Instance

BYTES = b"DICM" * 1000
OTHER = b"MCID" * 1000
INSTANCE = Instance("1.2", "1.2.3", "2019-02-25", size=len(BYTES), estimate=len(BYTES))


def digest(content):
    return md5(content).hexdigest()


class Scripted:
    """An archive that delivers what a test tells it to, one item an attempt; the last one stays.

    An item is bytes, or a list of chunks, seconds to wait, and errors to raise.
    """

    name = "scripted"
    has_ranges = False

    def __init__(self, *bodies, digests=()):
        self.bodies = list(bodies)
        self.digests = list(digests) or [digest(BYTES)]
        self.opened = 0
        self.asked = 0

    @asynccontextmanager
    async def open_instance(self, instance, span=None):
        self.opened += 1
        body = self.bodies.pop(0) if len(self.bodies) > 1 else self.bodies[0]
        if isinstance(body, Exception):
            raise body
        chunks = self._chunks(body if isinstance(body, list) else [body])
        try:
            yield chunks
        finally:
            await chunks.aclose()

    async def _chunks(self, script):
        for step in script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, bytes):
                await trio.lowlevel.checkpoint()
                yield step
            else:
                await trio.sleep(step)

    async def get_md5(self, instance):
        self.asked += 1
        found = self.digests.pop(0) if len(self.digests) > 1 else self.digests[0]
        if isinstance(found, Exception):
            raise found
        return found

    async def get_collections(self):
        raise AssertionError("a fetch lists nothing")

    async def get_patients(self, collection):
        raise AssertionError("a fetch lists nothing")

    async def get_studies(self, collection, patient_id):
        raise AssertionError("a fetch lists nothing")

    async def get_series(self, collection, patient_id):
        raise AssertionError("a fetch lists nothing")

    async def get_instances(self, wanted, others=()):
        raise AssertionError("a fetch lists nothing")


@pytest.fixture
def room(tmp_path):
    """Check at the end that no part is left, and no object where none was believed."""
    yield tmp_path
    assert list((tmp_path / "parts").iterdir()) == []


async def fetched_anew(room, archive, *more, **options):
    """Fetch the same object again, as if it had been removed."""
    for path in (room / "objects").rglob("*"):
        if path.is_file():
            path.unlink()
    return await fetched(room, archive, *more, **options)


async def fetched(room, archive, instance=INSTANCE, verify_md5=True, note=lambda count: None):
    with closing(Index.open(room / "index")) as index:
        place = Place(Cache(room), index, Limits(room, 1 << 40, keep_free=0))
        fetch = Fetch(archive, place, instance, verify_md5, lambda count, arrival: note(count))
        return (await fetch.run(lambda: True)).stored


def on_disk(room):
    return [path.read_bytes() for path in (room / "objects").rglob("*") if path.is_file()]


async def test_what_holds_is_committed(room, autojump_clock):
    counts: list[int] = []
    archive = Scripted(BYTES)
    stored = await fetched(room, archive, note=counts.append)
    assert (stored.size, stored.md5, stored.on_disk) == (len(BYTES), digest(BYTES), True)
    assert (stored.key, stored.series) == ("1.2.3@2019-02-25", "1.2")
    assert on_disk(room) == [BYTES]
    assert sum(counts) == len(BYTES)
    assert (archive.opened, archive.asked) == (1, 1)


async def test_an_object_of_many_megabytes_is_whole(room, autojump_clock):
    content = bytes(range(256)) * 20_000
    counts: list[int] = []
    chunks = [content[start : start + 70_001] for start in range(0, len(content), 70_001)]
    archive = Scripted(chunks, digests=[digest(content)])
    await fetched(room, archive, replace(INSTANCE, size=len(content)), note=counts.append)
    assert on_disk(room) == [content]
    assert sum(counts) == len(content)
    assert len(counts) > 50  # whoever waits hears of it on the way


@pytest.mark.parametrize(
    "failure",
    [
        Unavailable("down"),
        Failed("500"),
        BadAnswer("a web page"),
        [BYTES[:100], Unavailable("cut")],
        BYTES[:-1],
        OTHER,
        b"",
    ],
    ids=["down", "failed", "bad answer", "cut", "short", "corrupt", "nothing"],
)
async def test_an_attempt_that_failed_is_made_again_and_after_three_there_is_an_error(
    room, autojump_clock, failure
):
    archive = Scripted(failure, failure, BYTES)
    await fetched(room, archive)
    assert on_disk(room) == [BYTES]
    assert archive.opened == 3
    archive = Scripted(failure)
    with pytest.raises(ArchiveError):
        await fetched(room, archive, replace(INSTANCE, sop_instance_uid="9"))
    assert archive.opened == 3
    assert on_disk(room) == [BYTES]


@pytest.mark.parametrize("failure", [Refused("401"), Unsupported("404"), OSError(5, "Input/output error")])
async def test_what_no_second_attempt_mends_is_not_tried_again(room, autojump_clock, failure):
    archive = Scripted(failure, BYTES)
    with pytest.raises(type(failure)):
        await fetched(room, archive)
    assert archive.opened == 1
    assert on_disk(room) == []


async def test_bytes_that_do_not_match_their_md5_are_never_kept(room, autojump_clock):
    with pytest.raises(BadAnswer, match=f"image 1.2.3: its MD5 is {digest(OTHER)}, not {digest(BYTES)}"):
        await fetched(room, Scripted(OTHER))
    assert on_disk(room) == []


async def test_bytes_are_not_believed_while_the_md5_cannot_be_had(room, autojump_clock):
    archive = Scripted(BYTES, digests=[Unavailable("no digest now")])
    with pytest.raises(Unavailable, match="no digest now"):
        await fetched(room, archive)
    assert on_disk(room) == []
    await fetched(room, Scripted(BYTES, digests=[Failed("500"), digest(BYTES)]))
    assert on_disk(room) == [BYTES]


async def test_a_failure_of_the_bytes_is_told_before_one_of_the_md5(room, autojump_clock):
    with pytest.raises(BadAnswer, match="the bytes"):
        await fetched(room, Scripted([1, BadAnswer("the bytes")], digests=[BadAnswer("the digest")]))


async def test_the_archives_wish_to_wait_is_heard_within_reason(room, autojump_clock):
    for wanted, waited in ((7.0, 7.0), (3600.0, 30.0), (0.0, 0.0)):
        start = trio.current_time()
        await fetched_anew(room, Scripted(Unavailable("busy", wanted), BYTES))
        assert trio.current_time() - start == pytest.approx(waited, abs=0.01)


async def test_three_attempts_are_made_however_long_each_takes(room, autojump_clock, monkeypatch):
    # The clock of the library that counts the attempts, not one of ours.
    monkeypatch.setattr(tenacity, "time", types.SimpleNamespace(monotonic=trio.current_time))
    slow = [*([b"x" * 9000, 9] * 12), BadAnswer("no")]
    archive = Scripted(slow, slow, BYTES)
    await fetched(room, archive)
    assert trio.current_time() > 2 * 100
    assert archive.opened == 3


async def test_an_archive_that_falls_silent_is_left_after_twenty_seconds(room, autojump_clock):
    archive = Scripted([BYTES[:100], 1e6], BYTES)
    await fetched(room, archive)
    assert trio.current_time() == pytest.approx(20, abs=1)
    with pytest.raises(Unavailable, match=r"^image 1.2.3: the archive fell silent after 0 bytes$"):
        await fetched_anew(room, Scripted([1e6]))


async def test_a_trickle_below_the_least_speed_is_left_and_one_above_is_not(room, autojump_clock):
    content = BYTES * 10
    chunks = [content[start : start + 4000] for start in range(0, len(content), 4000)]
    slow = [step for chunk in chunks for step in (9, chunk)]
    with pytest.raises(Unavailable, match="fell silent after 8000 bytes"):
        await fetched(room, Scripted(slow))
    fast = [step for chunk in chunks for step in (5, chunk)]
    start = trio.current_time()
    await fetched(room, Scripted(fast, digests=[digest(content)]), replace(INSTANCE, size=len(content)))
    assert trio.current_time() - start == pytest.approx(50, abs=1)


async def test_a_wrong_promise_of_the_size_does_not_matter_where_the_md5_holds(room, autojump_clock):
    stored = await fetched(room, Scripted(BYTES), replace(INSTANCE, size=7))
    assert stored.size == len(BYTES)


@pytest.mark.parametrize("verify_md5", [True, False])
async def test_without_an_md5_a_size_other_than_promised_needs_two_fetches_that_agree(
    room, autojump_clock, verify_md5
):
    archive = Scripted(BYTES, digests=[None])
    stored = await fetched(room, archive, replace(INSTANCE, size=7), verify_md5)
    assert stored.size == len(BYTES)
    assert archive.opened == 2
    assert archive.asked == (2 if verify_md5 else 0)


async def test_without_an_md5_fetches_that_never_agree_with_anything_fail(room, autojump_clock):
    with pytest.raises(BadAnswer, match=r"^image 1.2.3: 3 bytes came, not 4000$"):
        await fetched(room, Scripted(b"a", b"bb", b"ccc"), verify_md5=False)
    # The same length is not the same bytes.
    with pytest.raises(BadAnswer):
        await fetched(room, Scripted(b"aaa", b"bbb", b"ccc"), verify_md5=False)
    archive = Scripted(b"aaa", b"bbb", b"aaa")
    await fetched(room, archive, verify_md5=False)
    assert archive.opened == 3


async def test_without_an_md5_the_promised_size_is_believed_at_once(room, autojump_clock):
    for promised in (len(BYTES), None):
        archive = Scripted(BYTES)
        stored = await fetched_anew(room, archive, replace(INSTANCE, size=promised), verify_md5=False)
        assert (stored.size, archive.opened, archive.asked) == (len(BYTES), 1, 0)


async def test_without_an_md5_nothing_at_all_is_never_an_image(room, autojump_clock):
    archive = Scripted(b"")
    with pytest.raises(BadAnswer, match="nothing came"):
        await fetched(room, archive, replace(INSTANCE, size=None), verify_md5=False)
    assert archive.opened == 3
    assert on_disk(room) == []


async def test_a_fetch_that_is_cancelled_leaves_nothing(room, autojump_clock):
    with trio.move_on_after(5) as scope:
        await fetched(room, Scripted([BYTES, 1e6]))
    assert scope.cancelled_caught
    assert on_disk(room) == []
