"""An NBIA server's answers as records: equal to the files it serves, however little of it works."""

import hashlib
import io
import itertools
import json
import time
from collections import Counter, defaultdict
from datetime import date, datetime
from typing import Any

import httpx
import pydicom
import pytest

from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused, Unavailable
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.model import Collection, Description, Instance, Patient, Study, Terms
from tciafs.selection import Selection
from tests.archive import start_archive

SEARCH, DRILL_DOWN, OLD_DRILL_DOWN = "v4/getSimpleSearch", "v4/getImageDrillDown", "getImageDrillDown"
UIDS, MD5 = "v4/getSOPInstanceUIDs", "v4/getMD5HashForImage"
WEEK = 7 * 24 * 3600
_numbers = itertools.count(1)


@pytest.fixture
def remembered(tmp_path):
    return tmp_path / "capabilities.json"


def client(http, remembered):
    return NBIA("demo", http, Capabilities(remembered))


@pytest.fixture
async def nbia(archive, remembered):
    async with Http.connect(archive.url) as http:
        yield client(http, remembered)


@pytest.fixture(scope="module")
def files(sample_archive):
    """Read every file that the archive serves, as any DICOM client would: collection, header and size."""
    files = []
    with httpx.Client(base_url=sample_archive.url, trust_env=False, timeout=30) as api:
        for row in api.get("/v1/getSeries").json():
            series = {"SeriesInstanceUID": row["SeriesInstanceUID"]}
            for uid in api.get("/v1/getSOPInstanceUIDs", params=series).json():
                content = api.get("/v1/getSingleImage", params={**series, **uid}).content
                header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
                files.append((row["Collection"], header, len(content)))
    return files


def text(header, keyword):
    return str(header.get(keyword) or "").strip(" \0") or None


def day(header, keyword):
    spelled = text(header, keyword)
    return datetime.strptime(spelled, "%Y%m%d").date() if spelled else None


def patient_id(header):
    return text(header, "PatientID") or "UNKNOWN"


def grouped(files, *keywords):
    """Group the files by collection, patient and these keywords."""
    groups = defaultdict(list)
    for collection, header, size in files:
        groups[collection, patient_id(header), *(text(header, each) for each in keywords)].append(
            (header, size)
        )
    return groups


# Listings.


async def test_collections_and_patients_are_those_of_the_files(nbia, files):
    collections = await nbia.get_collections()
    assert sorted(collections, key=repr) == sorted({Collection(name) for name, _, _ in files}, key=repr)
    found = [patient for each in collections for patient in await nbia.get_patients(each.name)]
    expected = {Patient(collection, patient_id(header)) for collection, header, _ in files}
    assert len(found) == len(expected)
    assert set(found) == expected


async def test_studies_are_those_of_the_files(nbia, files):
    series_of = defaultdict(set)
    for study in grouped(files, "StudyInstanceUID", "SeriesInstanceUID"):
        series_of[study[:3]].add(study[3])
    found = []
    for collection, patient in grouped(files):
        found += await nbia.get_studies(collection, patient)
    expected = {
        Study(
            collection,
            patient,
            uid,
            day(headers[0][0], "StudyDate"),
            text(headers[0][0], "StudyDescription"),
            text(headers[0][0], "StudyID"),
            len(series_of[collection, patient, uid]),
        )
        for (collection, patient, uid), headers in grouped(files, "StudyInstanceUID").items()
    }
    assert len(found) == len(expected)
    assert {study.study_instance_uid for study in found} == {study.study_instance_uid for study in expected}
    assert set(found) == expected


async def test_series_are_those_of_the_files(nbia, files):
    found = {}
    for collection, patient in grouped(files):
        for series in await nbia.get_series(collection, patient):
            key = (collection, patient, series.study_instance_uid, series.series_instance_uid)
            assert key not in found
            found[key] = series
    groups = grouped(files, "StudyInstanceUID", "SeriesInstanceUID")
    assert found.keys() == groups.keys()
    for key, members in groups.items():
        header, series = members[0][0], found[key]
        assert (series.collection, series.patient_id) == key[:2]
        assert series.modality == text(header, "Modality")
        assert series.series_number == text(header, "SeriesNumber")
        assert series.series_description == text(header, "SeriesDescription")
        assert series.body_part == text(header, "BodyPartExamined")
        assert series.image_count == len(members)
        assert series.file_size == sum(size for _, size in members)
        assert (series.submitted, series.released) == (date(2019, 2, 25), date(2019, 3, 8))
        assert series.version == "2019-02-25"
        assert series.license_name.startswith("Creative Commons Attribution")
        assert series.license_uri.startswith("https://creativecommons.org/licenses/by/")
        assert series.data_description_uri.startswith("https://doi.org/10.7937/")
        assert series.third_party_analysis == (series.modality == "SEG")


async def test_instances_are_those_of_the_files_in_number_and_to_the_byte(nbia, archive, files):
    expected = {
        Instance(
            text(header, "SeriesInstanceUID"),
            text(header, "SOPInstanceUID"),
            "2019-02-25",
            None if header.get("InstanceNumber") is None else int(header.InstanceNumber),
            size,
            size,
        )
        for _, header, size in files
    }
    found = []
    for collection, patient in grouped(files):
        wanted, *others = await nbia.get_series(collection, patient)
        archive.reset()
        listed = await nbia.get_instances(wanted, others)
        assert archive.requests() == {SEARCH: 1, OLD_DRILL_DOWN: 1}
        for series in (wanted, *others):
            instances = listed[series.series_instance_uid]
            assert {each.series_instance_uid for each in instances} == {series.series_instance_uid}
            found += instances
    assert len(found) == len(expected)
    assert set(found) == expected


async def test_the_stored_file_is_what_is_streamed(nbia, files):
    for collection, patient in list(grouped(files))[:3]:
        [wanted, *_] = await nbia.get_series(collection, patient)
        for instance in (await nbia.get_instances(wanted))[wanted.series_instance_uid][:2]:
            async with nbia.open_instance(instance) as chunks:
                content = b"".join([chunk async for chunk in chunks])
            assert len(content) == instance.size
            assert pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID == instance.sop_instance_uid
            assert await nbia.get_md5(instance) == hashlib.md5(content).hexdigest()


async def test_what_is_not_there_is_listed_as_nothing(nbia):
    assert await nbia.get_patients("no such") == []
    assert await nbia.get_studies("Demo-CT", "no such") == []
    assert await nbia.get_series("Demo-CT", "no such") == []


@pytest.mark.parametrize(
    ("endpoint", "ask"),
    [
        ("v4/getCollectionValues", lambda nbia: nbia.get_collections()),
        ("v4/getPatient", lambda nbia: nbia.get_patients("Demo-CT")),
        ("v4/getPatientStudy", lambda nbia: nbia.get_studies("Demo-CT", "PHANTOM-01")),
        ("v4/getSeries", lambda nbia: nbia.get_series("Demo-CT", "PHANTOM-01")),
    ],
)
async def test_a_listing_that_fails_is_an_error_and_never_an_empty_one(nbia, archive, endpoint, ask):
    assert await ask(nbia)
    for rule, error in (
        ({"do": "html"}, BadAnswer),
        ({"do": "malformed"}, BadAnswer),
        ({"do": "status", "status": 401}, Refused),
        ({"do": "status", "status": 503, "retry_after": 0}, Unavailable),
    ):
        archive.faults(rules=[{"endpoint": endpoint, **rule}])
        with pytest.raises(error):
            await ask(nbia)


# Listings of an archive that changes. Each test makes up series of its own.


@pytest.fixture(scope="module")
def changing_archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture
def changing(changing_archive):
    changing_archive.reset()
    yield changing_archive
    changing_archive.reset()


@pytest.fixture
async def changing_nbia(changing, remembered):
    async with Http.connect(changing.url) as http:
        yield client(http, remembered)


async def make_study(archive, nbia, *counts):
    """Make up a study with a series for each count of instances; return them in that order."""
    made_up = {"collection": "Made-Up", "patient_id": f"P-{next(_numbers)}"}
    uids = archive.edit(synthetic={**made_up, "series_of": counts[0]})
    [first] = await nbia.get_series(*made_up.values())
    for count in counts[1:]:
        uid = {"study_instance_uid": first.study_instance_uid}
        uids += archive.edit(synthetic={**made_up, **uid, "series_of": count})
    listed = {each.series_instance_uid: each for each in await nbia.get_series(*made_up.values())}
    archive.reset()
    return [listed[uid] for uid in uids]


def counts_of(listed, series_list):
    """Return the number of instances of each series, or the name of its error."""
    found = [listed[series.series_instance_uid] for series in series_list]
    return [type(each).__name__ if isinstance(each, ArchiveError) else len(each) for each in found]


def sizes_of(listed, series):
    return {each.size for each in listed[series.series_instance_uid]}


def numbers_of(listed, series):
    return [number for each in listed[series.series_instance_uid] if (number := each.instance_number)]


async def test_ids_that_differ_only_in_case_are_two_patients(changing_nbia, changing):
    for spelled in ("Case-x", "CASE-X"):
        changing.edit(synthetic={"collection": "Cases", "patient_id": spelled})
        changing.edit(synthetic={"collection": "CASES", "patient_id": spelled})
    for collection in ("Cases", "CASES"):
        patients = await changing_nbia.get_patients(collection)
        assert sorted(each.patient_id for each in patients) == ["CASE-X", "Case-x"]
        assert {each.collection for each in patients} == {collection}
        for patient in patients:
            for listing in (changing_nbia.get_studies, changing_nbia.get_series):
                [record] = await listing(collection, patient.patient_id)
                assert (record.collection, record.patient_id) == (collection, patient.patient_id)


async def test_ids_with_odd_characters_are_asked_for_as_they_are(changing_nbia, changing):
    for patient_id in ("a&b=c", "100%+ä'", "x/../y"):
        changing.edit(synthetic={"collection": "Odd & Co?", "patient_id": patient_id})
        [series] = await changing_nbia.get_series("Odd & Co?", patient_id)
        assert counts_of(await changing_nbia.get_instances(series), [series]) == [1]


async def test_a_series_submitted_again_is_a_new_version(changing_nbia, changing):
    [series] = await make_study(changing, changing_nbia, 1)
    assert series.version == "2019-02-25"
    changing.edit(series=series.series_instance_uid, submitted="2024-12-31")
    [again] = await changing_nbia.get_series(series.collection, series.patient_id)
    assert again.version == "2024-12-31"
    [instance] = (await changing_nbia.get_instances(again))[series.series_instance_uid]
    assert instance.version == "2024-12-31"


@pytest.mark.parametrize("missing", ["null_instance_numbers", "null_sizes"])
async def test_a_null_in_one_series_costs_nothing_while_the_unversioned_drill_down_answers(
    changing_nbia, changing, missing
):
    study = good, bad = await make_study(changing, changing_nbia, 2, 3)
    changing.edit(series=bad.series_instance_uid, **{missing: True})
    listed = await changing_nbia.get_instances(good, [bad])
    assert changing.requests() == {SEARCH: 1, OLD_DRILL_DOWN: 1}
    assert counts_of(listed, study) == [2, 3]
    assert sizes_of(listed, good) == {good.file_size // 2}
    assert sorted(numbers_of(listed, good)) == [1, 2]
    if missing == "null_sizes":
        assert sizes_of(listed, bad) == {None}
        assert {each.estimate for each in listed[bad.series_instance_uid]} == {bad.file_size // 3}
    else:
        assert sizes_of(listed, bad) == {bad.file_size // 3}
        assert numbers_of(listed, bad) == []


async def test_v4_alone_fails_on_a_null_and_yet_one_bad_series_never_costs_the_others(
    changing_nbia, changing
):
    study = await make_study(changing, changing_nbia, 1, 2, 3, 4, 5, 6, 7)
    bad = study[3]
    changing.edit(series=bad.series_instance_uid, null_instance_numbers=True)
    changing.faults(disabled=[OLD_DRILL_DOWN])
    listed = await changing_nbia.get_instances(study[0], study[1:])
    assert counts_of(listed, study) == [1, 2, 3, "Failed", 5, 6, 7]
    assert sorted(numbers_of(listed, study[6])) == [1, 2, 3, 4, 5, 6, 7]
    assert changing.requests()[SEARCH] == 1
    assert changing.requests()[OLD_DRILL_DOWN] == 1
    assert changing.requests()[DRILL_DOWN] <= 2 + 2 * 3
    listed = await changing_nbia.get_instances(bad, study[:3])  # once it is wanted, its UIDs are
    assert counts_of(listed, study[:4]) == [1, 2, 3, 4]
    assert numbers_of(listed, bad) == []
    assert sizes_of(listed, bad) == {None}
    assert sorted(numbers_of(listed, study[2])) == [1, 2, 3]
    assert changing_nbia.http.last_error is None


@pytest.mark.parametrize(
    ("disabled", "rule"),
    [
        ([], {"do": "status"}),
        ([OLD_DRILL_DOWN], {"do": "status", "body": "Server was not able to process your request\nDeadlock"}),
        ([OLD_DRILL_DOWN], {"do": "status", "status": 501}),
    ],
)
async def test_another_failure_of_a_drill_down_never_names_files_by_uid(nbia, archive, disabled, rule):
    archive.faults(disabled=disabled, rules=[{**rule, "endpoint": "getImageDrillDown"}])
    series = await a_series(nbia)
    listed = await nbia.get_instances(series)
    assert isinstance(listed[series.series_instance_uid], Failed)
    assert UIDS not in archive.requests()


async def test_series_of_several_patients_can_be_asked_for_at_once(changing_nbia, changing):
    series_list = [
        series for count in (1, 2, 3) for series in await make_study(changing, changing_nbia, count)
    ]
    listed = await changing_nbia.get_instances(series_list[0], series_list[1:])
    assert counts_of(listed, series_list) == [1, 2, 3]
    assert changing.requests() == {SEARCH: 1, OLD_DRILL_DOWN: 1}


async def test_a_promised_size_is_believed_as_it_is(changing_nbia, changing):
    [series] = await make_study(changing, changing_nbia, 2)
    changing.edit(series=series.series_instance_uid, promised_size_delta=7)
    listed = await changing_nbia.get_instances(series)
    assert sizes_of(listed, series) == {series.file_size // 2 + 7}


async def test_a_series_that_has_gone_meanwhile_has_no_instances_and_the_others_have_theirs(
    changing_nbia, changing
):
    study = gone, there = await make_study(changing, changing_nbia, 2, 3)
    changing.edit(hide_series=gone.series_instance_uid)
    assert counts_of(await changing_nbia.get_instances(gone, [there]), study) == [0, 3]
    changing.reset()
    assert counts_of(await changing_nbia.get_instances(gone), [gone]) == [0]
    assert changing.requests() == {SEARCH: 1}


# What a server may lack.


async def a_series(nbia, patient="PHANTOM-01"):
    return max(await nbia.get_series("Demo-CT", patient), key=lambda series: series.image_count)


async def test_without_the_unversioned_drill_down_that_of_v4_answers_and_is_asked_first(nbia, archive):
    series = await a_series(nbia)
    archive.reset()
    archive.faults(disabled=[OLD_DRILL_DOWN])
    for asked in (
        {OLD_DRILL_DOWN: 1, SEARCH: 1, DRILL_DOWN: 1},
        {SEARCH: 2, DRILL_DOWN: 2, OLD_DRILL_DOWN: 1},
    ):
        listed = await nbia.get_instances(series)
        assert sizes_of(listed, series) == {132398}
        assert archive.requests() == asked


async def test_without_the_drill_down_of_v4_it_is_never_asked_for(nbia, archive):
    series = await a_series(nbia)
    archive.reset()
    archive.faults(disabled=[DRILL_DOWN])
    listed = await nbia.get_instances(series)
    assert sizes_of(listed, series) == {132398}
    assert sorted(numbers_of(listed, series)) == list(range(1, 121))
    assert archive.requests() == {SEARCH: 1, OLD_DRILL_DOWN: 1}


@pytest.mark.parametrize(
    ("disabled", "asked"),
    [
        ([OLD_DRILL_DOWN, DRILL_DOWN], {SEARCH: 1, OLD_DRILL_DOWN: 1, DRILL_DOWN: 1}),
        ([SEARCH], {SEARCH: 1}),
    ],
)
async def test_without_any_drill_down_the_uids_are_listed_and_this_is_remembered(
    archive, remembered, disabled, asked
):
    async with Http.connect(archive.url) as http:
        nbia = client(http, remembered)
        many, one = sorted(await nbia.get_series("Demo-CT", "PHANTOM-01"), key=lambda s: -s.image_count)
        archive.reset()
        archive.faults(disabled=disabled)
        listed = await nbia.get_instances(many, [one])
        assert archive.requests() == {**asked, UIDS: 1}
        assert listed.keys() == {many.series_instance_uid}
        assert counts_of(listed, [many]) == [120]
        assert sizes_of(listed, many) == {None}
        assert {each.estimate for each in listed[many.series_instance_uid]} == {132398}
        assert numbers_of(listed, many) == []
        [single] = (await nbia.get_instances(one))[one.series_instance_uid]
        assert (single.size, single.estimate) == (one.file_size, one.file_size)
        assert archive.requests() == {**asked, UIDS: 2}
    archive.reset()
    async with Http.connect(archive.url) as http:  # another mount, of a server that now has all
        assert counts_of(await client(http, remembered).get_instances(many), [many]) == [120]
        assert archive.requests() == {UIDS: 1}
        known = {endpoint: when - WEEK - 60 for endpoint, when in json.loads(remembered.read_text()).items()}
        assert known.keys() == set(disabled)
        remembered.write_text(json.dumps(known))
        listed = await client(http, remembered).get_instances(many)
        assert sizes_of(listed, many) == {132398}
        assert archive.requests() == {UIDS: 1, SEARCH: 1, OLD_DRILL_DOWN: 1}


async def test_what_is_remembered_is_asked_again_after_a_week_and_learned_again(archive, remembered):
    remembered.write_text(json.dumps({SEARCH: time.time() - WEEK - 60}))
    archive.faults(disabled=[SEARCH])
    async with Http.connect(archive.url) as http:
        nbia = client(http, remembered)
        series = await a_series(nbia)
        for _ in range(2):
            assert counts_of(await nbia.get_instances(series), [series]) == [120]
        assert archive.requests()[SEARCH] == 1
    assert time.time() - json.loads(remembered.read_text())[SEARCH] < 60


async def test_a_broken_memory_is_as_good_as_none(archive, remembered):
    remembered.write_text('{"v4/getSimpleSearch": ')
    async with Http.connect(archive.url) as http:
        nbia = client(http, remembered)
        series = await a_series(nbia)
        assert sizes_of(await nbia.get_instances(series), series) == {132398}


# What may fail without being lacking.


async def test_an_outage_of_the_drill_downs_is_an_error_of_bounded_cost_and_teaches_nothing(
    changing_nbia, changing, remembered
):
    study = await make_study(changing, changing_nbia, *[1] * 40)
    changing.faults(rules=[{"do": "status", "endpoint": "getImageDrillDown"}])
    listed = await changing_nbia.get_instances(study[0], study[1:])
    assert counts_of(listed, study) == ["Failed"] * 40
    asked = changing.requests()
    assert set(asked) == {SEARCH, OLD_DRILL_DOWN, DRILL_DOWN}
    assert sum(asked.values()) < 80
    assert not remembered.exists()
    changing.faults()
    assert counts_of(await changing_nbia.get_instances(study[0], study[1:]), study) == [1] * 40


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"do": "status", "status": 503, "retry_after": 0}, Unavailable),
        ({"do": "status", "status": 404}, Failed),
        ({"do": "status", "status": 401}, Failed),
        ({"do": "html"}, Failed),
        ({"do": "malformed"}, Failed),
        ({"do": "cut"}, Unavailable),
    ],
)
async def test_drill_downs_that_fail_in_any_way_are_not_taken_for_lacking(
    nbia, archive, remembered, rule, error
):
    series = await a_series(nbia)
    archive.reset()
    archive.faults(rules=[{**rule, "endpoint": "getImageDrillDown"}])
    try:
        found = (await nbia.get_instances(series))[series.series_instance_uid]
    except Unavailable as exc:
        found = exc
    assert type(found) is error
    assert not remembered.exists()
    assert UIDS not in archive.requests()
    archive.faults()
    assert sizes_of(await nbia.get_instances(series), series) == {132398}


@pytest.mark.parametrize(
    "rule",
    [{"do": "html"}, {"do": "status", "status": 401}, {"do": "status", "status": 404}, {"do": "status"}],
)
async def test_one_drill_down_that_fails_is_made_up_for_by_the_other(nbia, archive, remembered, rule):
    series = await a_series(nbia)
    for broken, whole in ((OLD_DRILL_DOWN, DRILL_DOWN), (DRILL_DOWN, OLD_DRILL_DOWN)):
        archive.reset()
        # An unversioned name stands for all versions: what is to answer is taken out first.
        faithful = [{"do": "delay", "endpoint": DRILL_DOWN}] if whole == DRILL_DOWN else []
        archive.faults(rules=[*faithful, {**rule, "endpoint": broken}])
        assert sizes_of(await nbia.get_instances(series), series) == {132398}
        assert archive.requests()[whole] == 1
        asked = archive.requests()[broken]
        assert sizes_of(await nbia.get_instances(series), series) == {132398}
        assert archive.requests() == {SEARCH: 2, broken: asked, whole: 2}  # it is asked first now
        assert nbia.http.last_error is None
    assert not remembered.exists()


@pytest.mark.parametrize(
    ("rule", "error", "asked"),
    [
        ({"do": "status"}, Failed, 3),
        ({"do": "status", "status": 404}, BadAnswer, 1),
        ({"do": "status", "status": 401}, Refused, 1),
        ({"do": "html"}, BadAnswer, 1),
    ],
)
async def test_a_search_that_fails_is_an_error_and_not_taken_for_lacking(
    nbia, archive, remembered, rule, error, asked
):
    series = await a_series(nbia)
    archive.reset()
    archive.faults(rules=[{**rule, "endpoint": SEARCH}])
    with pytest.raises(error):
        await nbia.get_instances(series)
    assert archive.requests() == {SEARCH: asked}
    assert not remembered.exists()


async def test_a_search_that_finds_nothing_has_no_images_to_ask_for(nbia, archive):
    series = await a_series(nbia)
    archive.reset()
    archive.faults(rules=[{"do": "empty", "endpoint": SEARCH}])
    assert await nbia.get_instances(series) == {series.series_instance_uid: []}
    assert archive.requests() == {SEARCH: 1}


async def test_a_memory_that_cannot_be_written_costs_nobody_a_listing(archive, tmp_path):
    archive.faults(disabled=[SEARCH, MD5])
    async with Http.connect(archive.url) as http:
        nbia = client(http, tmp_path / "no such folder" / "capabilities.json")
        series = await a_series(nbia)
        instances = (await nbia.get_instances(series))[series.series_instance_uid]
        assert len(instances) == 120
        assert await nbia.get_md5(instances[0]) is None


# Digests.


async def an_instance(nbia):
    series = await a_series(nbia)
    return (await nbia.get_instances(series))[series.series_instance_uid][0]


async def test_a_digest_in_capitals_is_the_same_digest(nbia, archive):
    instance = await an_instance(nbia)
    digest = await nbia.get_md5(instance)
    archive.faults(rules=[{"do": "status", "status": 200, "body": digest.upper(), "endpoint": MD5}])
    assert await nbia.get_md5(instance) == digest


async def test_an_empty_digest_is_one_that_the_archive_does_not_have(nbia, archive):
    unknown = Instance("1.2", "1.2.3.unknown", "")
    assert await nbia.get_md5(unknown) is None
    assert await nbia.get_md5(unknown) is None
    assert archive.requests() == {MD5: 2}


async def test_an_archive_without_digests_is_asked_once_a_week(nbia, archive, remembered):
    instance = Instance("1.2", "1.2.3", "")
    archive.faults(disabled=[MD5])
    for _ in range(3):
        assert await nbia.get_md5(instance) is None
    assert archive.requests() == {MD5: 1}
    async with Http.connect(archive.url) as http:
        assert await client(http, remembered).get_md5(instance) is None
        assert archive.requests() == {MD5: 1}
        remembered.write_text(json.dumps({MD5: time.time() - WEEK - 60}))
        assert await client(http, remembered).get_md5(instance) is None
        assert archive.requests() == {MD5: 2}


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        ({"do": "html"}, BadAnswer),
        ({"do": "status", "status": 200, "body": "0123456789abcdef"}, BadAnswer),
        ({"do": "status", "status": 200, "body": "g" * 32}, BadAnswer),
        ({"do": "status", "status": 404}, BadAnswer),
        ({"do": "status", "status": 500}, Failed),
        ({"do": "status", "status": 503, "retry_after": 0}, Unavailable),
    ],
)
async def test_what_is_no_digest_is_an_error_and_not_taken_for_lacking(
    nbia, archive, remembered, rule, error
):
    archive.faults(rules=[{**rule, "endpoint": MD5}])
    with pytest.raises(error):
        await nbia.get_md5(Instance("1.2", "1.2.3", ""))
    assert not remembered.exists()


# Bytes.


async def test_an_image_that_is_not_there_is_an_error(nbia):
    with pytest.raises(Failed):
        async with nbia.open_instance(Instance("1.2", "1.2.3", "")):
            pytest.fail("an image came")


async def test_an_image_is_streamed_whole_since_there_are_no_ranges(nbia):
    instance = await an_instance(nbia)
    assert not nbia.has_ranges
    async with nbia.open_instance(instance, range(10)) as chunks:
        assert sum([len(chunk) async for chunk in chunks]) == instance.size


# Searches.


async def test_collections_and_patients_are_found_by_their_series(nbia, files):
    for keyword, kind in (("Modality", "modalities"), ("BodyPartExamined", "body_parts")):
        values = {text(header, keyword) or "NOT SPECIFIED" for _, header, _ in files}
        for value in values - {None, "NOT SPECIFIED"} | (
            {"NOT SPECIFIED"} if kind == "body_parts" else set()
        ):
            having = [
                (collection, patient_id(header))
                for collection, header, _ in files
                if (text(header, keyword) or "NOT SPECIFIED").upper() == value.upper()
            ]
            chosen: dict[str, Any] = {kind: (value.lower(),)}
            selection = Selection(**chosen)
            found = await nbia.find_collections(selection)
            assert set(found) == {Collection(name) for name, _ in having}, value
            assert set(await nbia.find_patients(selection)) == {Patient(*each) for each in having}, value


async def test_patients_are_found_by_name_where_they_are(nbia, archive, files):
    everyone = {Patient(collection, patient_id(header)) for collection, header, _ in files}
    for patient in everyone:
        found = await nbia.find_patients(Selection(patients=(patient.patient_id, "nobody", "O'Neill *")))
        assert set(found) == {each for each in everyone if each.patient_id == patient.patient_id}
    mine = Selection(collections=("Demo-CT",), patients=("PHANTOM-01",), modalities=("OT",))
    assert await nbia.find_patients(mine) == [Patient("Demo-CT", "PHANTOM-01")]
    assert await nbia.find_patients(Selection(patients=("phantom-01",), modalities=("OT",))) == []
    assert await nbia.find_patients(mine.within("Demo MR")) == []
    assert not any("PatientCriteria" in line for line in archive.log())


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"resultSet": [], "totalPatients": None},
        {"resultSet": [], "totalPatients": 1},
        {
            "resultSet": [{"subjectId": "a", "project": "b"}],
            "totalPatients": 2,
            "collections": [{"count": 1}],
        },
        [],
        {"resultSet": [{"subjectId": ["a"]}], "totalPatients": 1},
    ],
)
async def test_a_search_without_all_that_it_counts_is_not_believed(nbia, archive, answer):
    archive.faults(rules=[{"endpoint": SEARCH, "do": "status", "status": 200, "body": json.dumps(answer)}])
    for find in (nbia.find_collections, nbia.find_patients):
        with pytest.raises(BadAnswer):
            await find(Selection(modalities=("CT",)))


async def test_what_a_search_does_not_name_is_left_out(nbia, archive):
    answer = {
        "resultSet": [{"subjectId": 7, "project": "C", "id": 2}, {"id": 1}, {"subjectId": 7, "project": "C"}],
        "totalPatients": 3,
        "collections": [{"value": "C", "count": 2}, {"count": 1}],
    }
    archive.faults(rules=[{"endpoint": SEARCH, "do": "status", "status": 200, "body": json.dumps(answer)}])
    assert await nbia.find_patients(Selection(modalities=("CT",))) == [Patient("C", "7")]
    assert await nbia.find_collections(Selection(modalities=("CT",))) == [Collection("C")]


async def test_the_values_that_there_are_come_without_blanks(nbia, files):
    assert set(await nbia.get_modalities()) == {text(header, "Modality") for _, header, _ in files}
    parts = {text(header, "BodyPartExamined") for _, header, _ in files}
    assert set(await nbia.get_body_parts()) == parts - {None}


# Licences and citations.

DESCRIPTIONS, OLD_DESCRIPTIONS, LICENSES = (
    "v4/getCollectionDescriptions",
    "getCollectionDescriptions",
    "getLicenses",
)


async def test_terms_are_counted_over_all_series_of_a_collection(nbia, archive):
    patients = await nbia.get_patients("Demo-Mixed")
    series = [found for each in patients for found in await nbia.get_series("Demo-Mixed", each.patient_id)]
    archive.reset()
    terms = await nbia.get_terms("Demo-Mixed")
    assert archive.requests() == {"v4/getSeries": 1}
    assert terms == Counter(each.terms for each in series)
    assert {each.third_party_analysis for each in terms} == {True, False}
    assert await nbia.get_terms("demo-mixed") == {}  # matching ignores case, and that is another collection


async def test_a_list_of_series_that_is_too_long_is_broken_off(nbia, monkeypatch):
    monkeypatch.setattr("tciafs.archives.nbia._LARGEST_TERMS", 1000)
    with pytest.raises(BadAnswer, match="does not end within 1,000 bytes"):
        await nbia.get_terms("Demo-Mixed")


async def test_a_description_comes_with_the_licence_where_the_server_tells_it(nbia, archive, remembered):
    series = (await nbia.get_series("Demo-CT", "PHANTOM-01"))[0]
    archive.reset()
    described = await nbia.get_description("Demo-CT")
    assert described.html.startswith("<p>This is <b>Demo-CT</b>")
    assert described.terms == series.terms
    assert archive.requests() == {OLD_DESCRIPTIONS: 1, LICENSES: 1}
    assert await nbia.get_description("no such") == Description()
    archive.faults(disabled=[LICENSES])
    assert (await nbia.get_description("Demo-CT")).terms == Terms(None, None, series.data_description_uri)
    assert client(None, remembered)._capabilities.lacks(LICENSES)
    archive.faults(disabled=[OLD_DESCRIPTIONS])
    archive.reset()
    archive.faults(disabled=[OLD_DESCRIPTIONS])
    assert (await nbia.get_description("Demo-CT")).html == described.html
    assert archive.requests() == {OLD_DESCRIPTIONS: 1, DESCRIPTIONS: 1}
    await nbia.get_description("Demo-CT")
    assert archive.requests() == {OLD_DESCRIPTIONS: 1, DESCRIPTIONS: 2}


@pytest.mark.parametrize("fault", [{"do": "html"}, {"do": "malformed"}, {"do": "status", "status": 403}])
async def test_a_description_that_is_not_to_be_had_is_done_without(nbia, archive, fault):
    archive.faults(rules=[fault])
    assert await nbia.get_description("Demo-CT") == Description()


async def test_a_description_is_asked_for_again_where_the_archive_is_down(nbia, archive):
    archive.faults(rules=[{"do": "status", "status": 503}])
    with pytest.raises(Unavailable):
        await nbia.get_description("Demo-CT")
