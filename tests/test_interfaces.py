"""Whichever interface a server has, it is found by the server's own word, and the records are the same."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tciafs.archives.base import BadAnswer, Failed, Refused, Unavailable, Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http, guest
from tciafs.archives.nbia import NBIA
from tciafs.model import Collection, Description
from tciafs.selection import Selection
from tests.archive import EmbeddedArchive

WEEK = 7 * 24 * 3600
PHANTOM = ("Demo-CT", "PHANTOM-01")
COLLECTIONS = {Collection("Demo-CT"), Collection("Demo MR"), Collection("Demo-Mixed")}


@pytest.fixture
def remembered(tmp_path: Path) -> Path:
    return tmp_path / "capabilities.json"


@asynccontextmanager
async def asking(archive: EmbeddedArchive, remembered: Path, api: str):
    async with Http.connect(archive.url) as http:
        yield NBIA("demo", http, Capabilities(remembered), api)


def versions(archive: EmbeddedArchive) -> set[str]:
    """Return which interfaces were asked; "" is the unversioned one."""
    return {endpoint.rpartition("/")[0] for endpoint in archive.requests()}


async def phantom_of(nbia: NBIA):
    return next(each for each in await nbia.get_series(*PHANTOM) if each.image_count == 120)


async def told_by(nbia: NBIA):
    """Return everything that lists and streams tell."""
    collections = await nbia.get_collections()
    patients = [each for name in collections for each in await nbia.get_patients(name.name)]
    studies = [
        found for each in patients for found in await nbia.get_studies(each.collection, each.patient_id)
    ]
    series = [found for each in patients for found in await nbia.get_series(each.collection, each.patient_id)]
    streamed = []
    for name in collections:
        for opened in (nbia.open_studies(name.name), nbia.open_series_of(name.name)):
            async with opened as parts:
                streamed += [record async for records in parts for record in records]
    terms = await nbia.get_terms("Demo-Mixed")
    values = await nbia.get_modalities(), await nbia.get_body_parts()
    return set(collections), set(patients), set(studies), set(series), set(streamed), terms, values


@pytest.mark.parametrize("api", ["v2", "v1", "auto"])
async def test_every_interface_lists_the_same(archive, remembered, tmp_path, api):
    async with asking(archive, remembered, api) as nbia, asking(archive, tmp_path / "other", "v4") as v4:
        assert await told_by(nbia) == await told_by(v4)


@pytest.mark.parametrize("api", ["v4", "v2"])
async def test_sizes_and_numbers_are_exact_where_there_is_a_drill_down(archive, remembered, api):
    async with asking(archive, remembered, api) as nbia:
        series = await nbia.get_series(*PHANTOM)
        archive.forget()
        listed = await nbia.get_instances(series[0], series[1:])
        assert listed.keys() == {each.series_instance_uid for each in series}
        assert sum(archive.requests().values()) == 2
        phantom = listed[(await phantom_of(nbia)).series_instance_uid]
        assert {each.size for each in phantom} == {132398}
        assert {each.instance_number for each in phantom} == set(range(1, 121))


async def test_v1_tells_uids_and_sizes_are_estimated(archive, remembered):
    async with asking(archive, remembered, "v1") as nbia:
        series = await phantom_of(nbia)
        [instances] = (await nbia.get_instances(series)).values()
        assert len(instances) == 120
        assert {(each.instance_number, each.size, each.estimate) for each in instances} == {
            (None, None, 132398)
        }
    assert archive.requests() == {"v1/getSeries": 1, "v1/getSOPInstanceUIDs": 1}


async def test_a_server_older_than_a_column_is_asked_for_the_size_of_a_series(archive, remembered):
    archive.faults(lacking_columns=["FileSize"])
    async with asking(archive, remembered, "v1") as nbia:
        series = await phantom_of(nbia)
        assert series.file_size is None
        for asked in (series, replace(series, image_count=0)):
            [instances] = (await nbia.get_instances(asked)).values()
            assert {each.estimate for each in instances} == {132398}
        archive.faults(lacking_columns=["FileSize"], disabled=["v1/getSeriesSize"])
        for _ in range(2):
            [instances] = (await nbia.get_instances(series)).values()
            assert {each.estimate for each in instances} == {1}
    assert archive.requests()["v1/getSeriesSize"] == 3


@pytest.mark.parametrize(("api", "asked"), [("v4", {"v4", ""}), ("v2", {"v2", ""}), ("v1", {"v1"})])
async def test_an_interface_that_was_chosen_is_asked_alone(archive, remembered, api, asked):
    async with asking(archive, remembered, api) as nbia:
        await told_by(nbia)
        series = await phantom_of(nbia)
        instance = (await nbia.get_instances(series))[series.series_instance_uid][0]
        async with nbia.open_instance(instance) as chunks:
            assert sum([len(chunk) async for chunk in chunks]) == 132398
        assert len(await nbia.get_md5(instance) or "") == 32
        assert (await nbia.get_series_md5(series.series_instance_uid) is None) == (api != "v4")
        async with nbia.open_series(series.series_instance_uid) as zipped:
            names = [entry.name async for entry in zipped.entries()]
        assert len(names) == 120
        assert (zipped.md5s == {}) == (api != "v4")
        described = await nbia.get_description("Demo-CT")
        assert (described == Description()) == (api == "v1")
        for selection in (Selection(modalities=("MR",)), Selection(patients=("PHANTOM-01",))):
            await nbia.find_collections(selection)
            await nbia.find_patients(selection)
        assert nbia.api == api
    assert versions(archive) == asked
    assert not remembered.exists()


@pytest.mark.parametrize("api", ["v2", "v1"])
async def test_lists_find_what_a_search_finds(archive, remembered, tmp_path, api):
    mine = ("Demo-CT", "Demo-Mixed")
    selections = [
        Selection(**kinds, collections=names)
        for names in ((), mine, ("no such",))
        for kinds in (
            {"modalities": ("ct",)},
            {"modalities": ("RTSTRUCT", "SEG")},
            {"modalities": ("none",)},
            {"body_parts": ("chest",)},
            {"body_parts": ("NOT SPECIFIED",)},
            {"modalities": ("CT", "MR"), "body_parts": ("CHEST", "NOT SPECIFIED")},
            {"patients": ("PHANTOM-01", "nobody"), "modalities": ("CT",)},
        )
    ]
    async with asking(archive, remembered, api) as nbia, asking(archive, tmp_path / "other", "v4") as v4:
        for selection in selections:
            if not selection.patients:
                found = await v4.find_collections(selection)
                assert set(await nbia.find_collections(selection)) == set(found), selection
            assert set(await nbia.find_patients(selection)) == set(await v4.find_patients(selection)), (
                selection
            )


@pytest.mark.parametrize(
    "endpoint", ["getCollectionValues", "getModalityValues", "getBodyPartValues", "getSeries"]
)
async def test_a_list_that_comes_empty_is_not_believed_to_find_nothing(archive, remembered, endpoint):
    selection = Selection(modalities=("CT",), body_parts=("CHEST",))
    async with asking(archive, remembered, "v1") as nbia:
        archive.faults(rules=[{"do": "empty", "endpoint": endpoint}])
        with pytest.raises(BadAnswer):
            await nbia.find_patients(selection)
        archive.faults(rules=[{"do": "empty", "endpoint": "getPatientByCollectionAndModality"}])
        with pytest.raises(BadAnswer):
            await nbia.find_patients(Selection(modalities=("CT",)))


# Which interface a server has.


@pytest.mark.says(
    "An archive lacks an interface when it says so and another one answers, never because a request failed;"
    " it is asked again after a week."
)
@pytest.mark.parametrize(
    ("interfaces", "found", "lacking"),
    [
        (["v4"], "v4", set()),
        (["v1", "v2", "v4", "unversioned"], "v4", set()),
        (["v1", "v2", "unversioned"], "v2", {"v4"}),
        (["v2"], "v2", {"v4"}),
        (["v1"], "v1", {"v4", "v2"}),
    ],
)
async def test_the_newest_interface_that_a_server_has_is_found_and_remembered(
    archive, remembered, interfaces, found, lacking
):
    archive.faults(interfaces=interfaces)
    async with asking(archive, remembered, "auto") as nbia:
        assert set(await nbia.get_collections()) == COLLECTIONS
        assert nbia.api == found
    known = set(json.loads(remembered.read_text())) if remembered.exists() else set()
    assert known == lacking
    archive.forget()
    async with asking(archive, remembered, "auto") as nbia:
        assert nbia.api == found
        assert set(await nbia.get_collections()) == COLLECTIONS
    assert archive.requests() == {f"{found}/getCollectionValues": 1}
    remembered.write_text(json.dumps({name: time.time() - WEEK - 60 for name in lacking}))
    async with asking(archive, remembered, "auto") as nbia:
        await nbia.get_collections()
    assert archive.requests()["v4/getCollectionValues"] >= 1  # a week later it is asked again


async def test_whatever_is_asked_first_finds_out(archive, remembered):
    async with asking(archive, remembered, "v1") as nbia:
        series = await phantom_of(nbia)
        instance = (await nbia.get_instances(series))[series.series_instance_uid][0]
        md5 = await nbia.get_md5(instance)
    archive.faults(interfaces=["v1"])

    async def read(nbia: NBIA) -> int:
        async with nbia.open_instance(instance) as chunks:
            return sum([len(chunk) async for chunk in chunks])

    async def zipped(nbia: NBIA) -> int:
        async with nbia.open_series(series.series_instance_uid) as stream:
            return len([entry async for entry in stream.entries()])

    questions = {
        read: 132398,
        zipped: 120,
        (lambda nbia: nbia.get_md5(instance)): md5,
        (lambda nbia: nbia.get_series_md5(series.series_instance_uid)): None,
        (lambda nbia: nbia.find_collections(Selection(modalities=("MR",)))): [Collection("Demo MR")],
    }
    for question, answer in questions.items():
        remembered.unlink(missing_ok=True)
        async with asking(archive, remembered, "auto") as nbia:
            assert await question(nbia) == answer
            assert nbia.api == "v1"


async def test_many_questions_at_once_find_out_once(archive, remembered):
    archive.faults(interfaces=["v1"], latency_ms=20)
    async with asking(archive, remembered, "auto") as nbia, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(nbia.get_patients, "Demo-CT")
    asked = archive.requests()
    assert [asked[f"{version}/getCollectionValues"] for version in ("v4", "v2", "v1")] == [1, 1, 1]
    assert asked["v1/getPatient"] == 20


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"do": "status"}, Failed),
        ({"do": "status", "status": 401}, Refused),
        ({"do": "status", "status": 404}, BadAnswer),
        ({"do": "status", "status": 503, "retry_after": 0}, Unavailable),
        ({"do": "html"}, BadAnswer),
    ],
)
async def test_an_interface_that_fails_is_not_one_that_lacks(archive, remembered, rule, error):
    archive.faults(rules=[rule])
    async with asking(archive, remembered, "auto") as nbia:
        with pytest.raises(error):
            await nbia.get_collections()
        assert nbia.api == "v4"
        archive.faults(interfaces=["v2", "v1"], rules=[{**rule, "endpoint": "v2/getCollectionValues"}])
        with pytest.raises(error):
            await nbia.get_collections()
        assert nbia.api == "v4"
    assert not remembered.exists()


async def test_what_is_no_nbia_teaches_nothing(archive, remembered):
    archive.faults(interfaces=[])
    async with asking(archive, remembered, "auto") as nbia:
        for _ in range(2):
            with pytest.raises(Unsupported, match=r"no interface of NBIA \(v4, v2, v1\) is at http://"):
                await nbia.get_collections()
    assert not remembered.exists()


async def test_one_endpoint_that_is_lacking_is_not_the_interface(archive, remembered):
    archive.faults(disabled=["v4/getMD5HashForImage", "v4/getSOPInstanceUIDs", "v4/getSimpleSearch"])
    async with asking(archive, remembered, "auto") as nbia:
        series = await phantom_of(nbia)
        with pytest.raises(Unsupported):
            await nbia.get_instances(series)
        assert nbia.api == "v4"
    assert set(json.loads(remembered.read_text())) == {"v4/getSimpleSearch"}
    assert versions(archive) == {"v4"}


# Who asks.


async def test_who_asks_is_said_by_one_function(archive, remembered, monkeypatch):
    asked = []

    def nobody(endpoint: str) -> dict[str, str]:
        asked.append(endpoint)
        return {}

    monkeypatch.setattr("tciafs.archives.http.guest", nobody)
    async with Http.connect(archive.url) as http:
        for api in ("v4", "v1"):
            assert await NBIA("demo", http, Capabilities(remembered), api).get_collections()
        with pytest.raises(Failed, match="null"):  # NBIA's word for a header that did not come
            await NBIA("demo", http, Capabilities(remembered), "v2").get_collections()
        async with http.stream("v1/getCollectionValues", {}, 10) as chunks:
            assert [chunk async for chunk in chunks]
    assert asked[:2] == ["v4/getCollectionValues", "v1/getCollectionValues"]
    assert asked.count("v2/getCollectionValues") == 3
    assert asked[-1] == "v1/getCollectionValues"


def test_a_guest_is_named_where_a_name_is_wanted_and_nowhere_else():
    named = {endpoint: guest(endpoint) for endpoint in ("v1/a", "v4/a", "v2/a", "a")}
    told = {"Authorization": "Bearer undefined"}
    assert named == {"v1/a": {}, "v4/a": {}, "v2/a": told, "a": told}
