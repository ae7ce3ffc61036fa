"""A series read in order is brought ahead of its reader, by whatever way works, and never a wrong byte."""

import random
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pydicom
import pytest
import trio
import trio.testing
from pydicom.data import get_testdata_file

from tciafs.archives.base import TRANSFERS, ArchiveError
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.content.ahead.confirm import Confirmation, series_md5
from tciafs.content.ahead.header import sop_instance_uid
from tciafs.content.ahead.order import Order
from tciafs.content.ahead.pace import Pace
from tciafs.content.cache import Cache
from tciafs.content.content import Content
from tciafs.content.handle import Patience
from tciafs.content.index import Index
from tciafs.content.limits import INDEX_NAME, Limits
from tciafs.content.place import Place
from tciafs.demo.phantom import slice_file
from tciafs.model import Instance
from tests.archive import EmbeddedArchive, start_archive
from tests.test_content import instances_of

IMAGE, MD5, ZIP, ALL_MD5 = "v4/getSingleImage", "v4/getMD5HashForImage", "v4/getImage", "v4/getMD5Hierarchy"
WAN = {"latency_ms": 100, "bandwidth_mbit": 30}  # where a ZIP is worth its request


# Who reads in order.


def test_the_window_grows_with_each_open_in_order_and_then_it_is_the_whole_series():
    order, windows = Order(), []
    for position in range(8):
        assert not order.is_whole
        order.note(position)
        windows.append(order.window)
    assert windows == [0, 2, 4, 8, 8, 8, 8, 32]
    assert order.is_whole


def test_two_opens_far_from_each_other_bring_nothing():
    order = Order()
    for position in (0, 110, 3, 219):
        order.note(position)
        assert (order.window, order.is_whole) == (0, False)


def test_readers_side_by_side_and_opening_twice_are_in_order():
    order = Order()
    for position in (0, 0, 2, 1, 1, 4, 3, 6, 5, 5, 8, 7, 10, 9, 12, 14):
        order.note(position)
    assert order.is_whole
    assert order.front == 14


def test_a_zip_is_worth_its_request_where_a_round_trip_costs_more_than_the_bytes():
    assert Pace().zip_share(1e6, 6) == 0
    far, near = Pace(), Pace()
    for _ in range(20):
        far.note(0.1, 0.1, 500_000)
        near.note(0.001, 0.004, 500_000)
        near.note(9, 9, 12)  # what is so small tells nothing
    assert far.seconds(500_000) == pytest.approx(0.2)
    assert far.zip_share(500_000, 6) == pytest.approx(5 / 11)
    assert near.zip_share(500_000, 6) < 0.05
    assert far.zip_share(10_000, 6) > 0.9


def test_a_file_says_its_uid_in_its_first_bytes_and_noise_says_none():
    content = slice_file(5)
    assert sop_instance_uid(content[:2000]) == sop_instance_uid(content)
    assert sop_instance_uid(content)
    for noise in (b"", b"\0" * 5000, random.Random(1).randbytes(5000), content[:140], b"<html>" * 50):
        assert sop_instance_uid(noise) is None


def test_what_a_file_says_is_its_uid_whatever_its_transfer_syntax():
    told = {}
    for name in (
        "CT_small",
        "MR_small_RLE",
        "MR_small_implicit",
        "JPEG2000",
        "image_dfl",
        "MR_small_bigendian",
    ):
        path = Path(str(get_testdata_file(f"{name}.dcm", download=False)))
        told[name] = sop_instance_uid(path.read_bytes()[:4096])
        assert told[name] in (None, pydicom.dcmread(path).SOPInstanceUID)
    assert [name for name, uid in told.items() if uid is None] == ["image_dfl", "MR_small_bigendian"]


def test_a_file_whose_meta_information_and_data_differ_says_none():
    content = slice_file(5)
    uid = str(sop_instance_uid(content)).encode()
    assert sop_instance_uid(content.replace(uid, b"1" * len(uid), 1)) is None


# The embedded archive, as a mount would use it.


@pytest.fixture(scope="module")
def phantom():
    with start_archive() as archive:
        yield archive


@pytest.fixture
def far(phantom):
    phantom.reset()
    phantom.faults(**WAN)
    yield phantom
    phantom.reset()


class Reader:
    """Whoever opens images of the phantom's 120 slices."""

    def __init__(self, archive: EmbeddedArchive, content: Content, images: list[Instance]) -> None:
        self.archive, self.content, self.images = archive, content, images

    async def read(self, instance: Instance) -> bytes:
        async def siblings():
            return self.images

        handle = await self.content.open(instance, siblings=siblings)
        try:
            return bytes(await handle.read(0, handle.size + 1))
        finally:
            handle.close()

    async def read_all(self, positions=range(120)) -> None:
        for position in positions:
            assert sop_instance_uid(read := await self.read(self.images[position])) == self.uid(position)
            assert md5(read).hexdigest() == TRUTH[self.uid(position)]

    def uid(self, position: int) -> str:
        return self.images[position].sop_instance_uid

    async def settled(self, seconds: float = 20) -> None:
        with trio.fail_after(seconds):
            while self.content.active:  # noqa: ASYNC110 (nothing else tells)
                await trio.sleep(0.02)

    def stored(self) -> int:
        return sum(1 for _ in self.content.place.cache.files())


TRUTH: dict[str | None, str] = {
    sop_instance_uid(content): md5(content).hexdigest() for content in map(slice_file, range(120))
}


@asynccontextmanager
async def reading(room: Path, archive: EmbeddedArchive, limit: int = 1 << 40, **options):
    """Wire the content to the embedded archive as a mount does."""
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(room / "capabilities.json"))
        images = await instances_of(archive, "Demo-CT", "PHANTOM-01")
        archive.forget()
        with closing(Index.open(room / INDEX_NAME)) as index:
            async with trio.open_nursery() as nursery:
                place = Place(Cache(room), index, Limits(room, limit, keep_free=0))
                content = Content(nbia, place, nursery, ahead=True, **options)
                yield Reader(archive, content, images)
                content.close()
                nursery.cancel_scope.cancel()


async def test_a_series_in_order_comes_by_zip_and_single_images_each_image_once(tmp_path, far):
    async with reading(tmp_path, far) as reader:
        await reader.read_all()
        await reader.settled()
        assert reader.stored() == 120
    asked = far.requests()
    assert asked[ZIP] == 1
    assert 8 <= asked[IMAGE] < 120
    assert len(set(far.log())) == len(far.log())  # nothing was asked twice
    assert far.high_water()["images"] <= TRANSFERS
    async with reading(tmp_path, far) as reader:
        await reader.read_all()
    assert far.requests() == {}


async def test_a_series_whose_numbers_nobody_told_comes_by_single_images_alone(tmp_path, far):
    async with reading(tmp_path, far) as reader:
        reader.images = [replace(image, instance_number=None) for image in reader.images]
        await reader.read_all()
        await reader.settled()
        assert reader.stored() == 120
    assert far.requests()[IMAGE] == 120
    assert ZIP not in far.requests()


async def test_two_slices_cost_two_images_and_one_more_in_order_two_ahead(tmp_path, far):
    async with reading(tmp_path, far) as reader:
        await reader.read_all([3, 70])
        await reader.settled()
        assert far.requests() == {IMAGE: 2, MD5: 2}
        await reader.read_all([71])
        await reader.settled()
        assert far.requests() == {IMAGE: 5, MD5: 5}


async def test_the_rest_comes_though_the_reader_stops_after_eight(tmp_path, far):
    far.faults(**WAN, disabled=["v4/getImage"])  # whose list of MD5s might speak first
    async with reading(tmp_path, far) as reader:
        await reader.read_all(range(8))
        await reader.settled()
        assert reader.stored() == 120
        assert far.requests()[MD5] < 60  # the digest of the series spoke for the others
        assert far.requests()[ALL_MD5] == 1
        far.faults(rules=[{"do": "status", "endpoint": "*", "status": 503}])
        await reader.read_all()


async def test_no_more_than_half_of_the_cache_comes_ahead(tmp_path, far):
    async with reading(tmp_path, far, limit=20 << 20) as reader:
        await reader.read_all(range(12))
        await reader.settled()
        assert 12 < reader.stored() <= 12 + 33
        assert ZIP not in far.requests()


async def test_a_cache_without_room_is_no_reason_to_fail(tmp_path, far):
    async with reading(tmp_path, far, limit=300_000) as reader:
        await reader.read_all(range(20))
        assert far.requests()[IMAGE] <= 60


async def test_a_reader_of_another_series_does_not_wait_for_what_nobody_waits_for(tmp_path, far):
    far.edit(synthetic={"collection": "Other", "patient_id": "p"})
    other = (await instances_of(far, "Other", "p"))[0]
    async with reading(tmp_path, far) as reader:
        await reader.read_all(range(8))
        far.faults(
            rules=[
                {"do": "stall", "endpoint": "getSingleImage", "match": reader.images[0].series_instance_uid}
            ]
        )
        with trio.fail_after(20):
            while reader.content.active <= 4:  # noqa: ASYNC110 -- the content tells nobody
                await trio.sleep(0.01)
        with trio.fail_after(2):
            await reader.read(other)


WAYS: dict[str, dict[str, Any]] = {
    "no ZIP": {"disabled": ["v4/getImage"]},
    "no digest of the series": {"disabled": ["v4/getMD5Hierarchy"]},
    "neither": {"disabled": ["v4/getImage", "v4/getMD5Hierarchy"]},
    "no MD5s at all": {"disabled": ["v4/getMD5Hierarchy", "v4/getMD5HashForImage"]},
    "half a ZIP that is a valid one": {"rules": [{"do": "short", "endpoint": "getImage"}]},
    "a ZIP that is cut": {"rules": [{"do": "cut", "endpoint": "getImage"}]},
    "a ZIP with flipped bytes": {"rules": [{"do": "corrupt", "endpoint": "getImage"}]},
    "a web page for a ZIP": {"rules": [{"do": "html", "endpoint": "getImage"}]},
    "a ZIP that is refused": {"rules": [{"do": "status", "endpoint": "getImage"}]},
    "an older server": {
        "rules": [
            {
                "do": "status",
                "endpoint": "getImage",
                "match": "IncludeMD5",
                "status": 400,
                "body": "Invalid query parameter: 'IncludeMD5'. Allowed parameters are: [NewFileNames]",
            }
        ]
    },
    "no end of trouble": {"rules": [{"do": "status", "endpoint": "getSingleImage", "times": 9, "skip": 20}]},
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_byte_is_right_whichever_way_fails(tmp_path, far, way):
    far.faults(**WAN, **WAYS[way])
    async with reading(tmp_path, far) as reader:
        await reader.read_all()
        await reader.settled()
        assert reader.stored() == 120
        if way == "an older server":
            assert "IncludeMD5" in (tmp_path / "capabilities.json").read_text()


async def test_a_zip_that_falls_silent_is_left_alone(tmp_path, far):
    far.faults(**WAN, rules=[{"do": "stall_body", "endpoint": "getImage"}])
    async with reading(tmp_path, far, patience=Patience(12)) as reader:
        await reader.read_all()
        assert reader.stored() == 120


async def test_one_image_that_the_archive_has_lost_costs_no_other(tmp_path, far):
    async with reading(tmp_path, far) as reader:
        far.faults(
            **WAN,
            rules=[
                {"do": "status", "endpoint": "getSingleImage", "match": reader.uid(100)},
                {"do": "short", "endpoint": "getImage"},
            ],
        )
        await reader.read_all(range(100))
        with pytest.raises(ArchiveError, match="getSingleImage"):
            await reader.read(reader.images[100])
        await reader.read_all(range(101, 120))
        await reader.settled()
        assert reader.stored() == 119


async def test_what_is_not_what_the_archive_has_is_never_read(tmp_path, far):
    async with reading(tmp_path, far) as reader:
        rules = [{"do": "corrupt", "endpoint": "getSingleImage", "match": reader.uid(n)} for n in (40, 90)]
        far.faults(**WAN, rules=[*rules, {"do": "short", "endpoint": "getImage"}])
        await reader.read_all([n for n in range(120) if n not in (40, 90)])
        await reader.settled()
        stored = {path.read_bytes()[:4096] for path in reader.content.place.cache.files()}
        assert len(stored) == 118 + (reader.stored() - 118)
        for path in reader.content.place.cache.files():
            assert md5(path.read_bytes()).hexdigest() in TRUTH.values()


# Who says that it is true.


class Telling:
    """An archive that is asked for MD5s alone."""

    def __init__(self, md5s: dict[str, str], of_all: str | None) -> None:
        self.md5s, self.of_all = md5s, of_all
        self.asked: list[str] = []

    async def get_md5(self, instance):
        self.asked.append(instance.sop_instance_uid)
        return self.md5s[instance.sop_instance_uid]

    async def get_series_md5(self, uid):
        self.asked.append(uid)
        return self.of_all


IMAGES = [Instance("1", f"1.{n}", "") for n in range(8)]
MD5S = {image.sop_instance_uid: f"{n:032x}" for n, image in enumerate(IMAGES)}


async def confirmed(archive, came, act):
    """Return what each image is told, `act` being done once all wait; None where one still waits."""
    confirmation, told = Confirmation(archive), {}

    async def ask(image):
        told[image.sop_instance_uid] = await confirmation.promised_md5(image, came[image.sop_instance_uid])

    async with trio.open_nursery() as nursery:
        for image in IMAGES:
            nursery.start_soon(ask, image)
        await trio.testing.wait_all_tasks_blocked()
        await act(confirmation)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return told


async def test_one_question_speaks_for_all_where_the_archive_has_the_same():
    archive = Telling(MD5S, series_md5(MD5S.values()))
    assert await confirmed(archive, MD5S, lambda each: each.settle("1", {}, 8)) == MD5S
    assert archive.asked == ["1"]


@pytest.mark.parametrize("of_all", ["0" * 32, None])
async def test_each_is_asked_for_where_the_digest_of_all_is_another(of_all):
    archive = Telling(MD5S, of_all)
    came = {**MD5S, "1.3": "f" * 32}
    assert await confirmed(archive, came, lambda each: each.settle("1", {}, 8)) == MD5S
    assert archive.asked[0] == "1"
    assert sorted(archive.asked[1:]) == list(MD5S)


async def test_an_image_that_says_another_uid_is_asked_for_by_its_own():
    archive = Telling(MD5S, series_md5(MD5S.values()))
    came = {**MD5S, "1.3": MD5S["1.4"], "1.4": MD5S["1.3"]}  # the digest of all is the same

    async def act(confirmation):
        confirmation.doubt(IMAGES[3])
        confirmation.doubt(IMAGES[4])
        await confirmation.settle("1", {}, 8)

    assert await confirmed(archive, came, act) == MD5S
    assert archive.asked[0] == "1"
    assert sorted(archive.asked[1:]) == ["1.3", "1.4"]


async def test_only_those_who_are_about_to_be_read_are_asked_for_before_the_end():
    archive = Telling(MD5S, None)

    async def act(confirmation):
        confirmation.hurry(IMAGES[:2])
        confirmation.tell({"1.5": "5" * 32})

    told = await confirmed(archive, MD5S, act)
    assert told == {"1.0": MD5S["1.0"], "1.1": MD5S["1.1"], "1.5": "5" * 32}
    assert sorted(archive.asked) == ["1.0", "1.1"]
