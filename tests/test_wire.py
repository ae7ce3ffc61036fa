"""Rows become records whatever a server sends: or else the answer is bad, and nothing worse happens."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.archives import keys, values, wire
from tciafs.archives.base import BadAnswer
from tciafs.archives.meanings import decode
from tciafs.model import Patient, Series, Study
from tests.test_http import answer, serving

SERIES = Series("C", "P", "1.2", "1.2.3", image_count=1, file_size=500, submitted=date(2019, 2, 25))


def decoded(row, kind: Any):
    [found] = decode("e", json.dumps([row]).encode(), list[kind])
    return found


def series_of(**columns):
    row = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", **columns}
    return wire.series_of(decoded(row, wire.SeriesRow), "C", "P")


def study_of(**columns):
    return wire.study_of(decoded({"StudyInstanceUID": "1.2", **columns}, wire.StudyRow), "C", "P")


def test_a_row_of_v4_becomes_a_series():
    # nbia-api 2.1: the published example, shortened
    series = series_of(
        PatientID="P",
        Collection="C",
        Modality="MG",
        SeriesDescription="DBT slices",
        BodyPartExamined="BREAST",
        SeriesNumber=5,
        ImageCount=57,
        MaxSubmissionTimestamp="02-25-2019",
        LicenseName="Creative Commons Attribution 3.0 Unported License",
        LicenseURI="http://creativecommons.org/licenses/by/3.0/",
        DataDescriptionURI="https://doi.org/10.7937/TCIA.2019.ho23nxaw",
        FileSize=165975906,
        DateReleased="03-08-2019",
        ThirdPartyAnalysis="YES",
        Authorized=1,
    )
    assert series == Series(
        "C",
        "P",
        "1.2",
        "1.2.3",
        "MG",
        "5",
        "DBT slices",
        "BREAST",
        57,
        165975906,
        date(2019, 2, 25),
        date(2019, 3, 8),
        "Creative Commons Attribution 3.0 Unported License",
        "http://creativecommons.org/licenses/by/3.0/",
        "https://doi.org/10.7937/TCIA.2019.ho23nxaw",
        True,
    )


def test_a_row_of_v1_becomes_a_series():
    series = series_of(
        TimeStamp="2011-11-08 08:08:01.0", CollectionURI="https://doi.org/1", SeriesNumber="8.0"
    )
    assert series.submitted == date(2011, 11, 8)
    assert series.data_description_uri == "https://doi.org/1"
    assert series.series_number == "8.0"


def test_a_row_with_nothing_but_its_uids_becomes_a_record():
    assert series_of() == Series("C", "P", "1.2", "1.2.3")
    assert study_of() == Study("C", "P", "1.2")


def test_a_row_becomes_a_study():
    row = {"StudyDate": "07-21-2016", "StudyDescription": "", "StudyID": "DDSM", "SeriesCount": 3}
    assert study_of(**row) == Study("C", "P", "1.2", date(2016, 7, 21), None, "DDSM", 3)


DAYS = {
    "07-21-2016": date(2016, 7, 21),
    "2016-07-21": date(2016, 7, 21),
    "2016-07-21 00:00:00.0": date(2016, 7, 21),
    "02-29-2016": date(2016, 2, 29),
    "02-29-2015": None,
    "21-07-2016": None,
    "0000-00-00": None,
    "0000-00-00 00:00:00.0": None,
    "07-21-16": None,
    "07-21-20166": None,
    "20160721": None,
    "null": None,
    "": None,
    None: None,
    20160721: None,
    2016.5: None,
}


def test_a_date_has_two_spellings_and_nonsense_is_none():
    assert {spelled: values.day(spelled) for spelled in DAYS} == DAYS
    assert {spelled: study_of(StudyDate=spelled).study_date for spelled in DAYS} == DAYS


@given(st.dates())
def test_every_date_is_read_in_both_spellings(day):
    assert values.day(f"{day:%m-%d-}{day.year:04d}") == day
    assert values.day(f"{day.isoformat()} 00:00:00.0") == day


@pytest.mark.parametrize("column", ["PatientId", "PatientID"])
def test_a_patient_id_has_two_spellings(column):
    row = decoded({column: "x 1", "Collection": "C"}, wire.PatientRow)
    assert wire.patient_of(row, "C") == Patient("C", "x 1")


def test_a_patient_is_as_the_archive_spells_it_or_none():
    expected: dict[str, str | None] = {
        '{"PatientId": 17}': "17",
        '{"PatientId": 17.0}': "17",
        '{"PatientId": "017"}': "017",
        '{"PatientId": " 1/2\\\\é "}': " 1/2\\é ",
        '{"PatientId": "", "PatientID": "b"}': "b",
        '{"PatientId": ""}': None,
        '{"PatientId": null}': None,
        "{}": None,
        '{"PatientId": "a", "Collection": "c"}': None,
        '{"PatientId": "a", "Collection": "C2"}': None,
    }
    found = {row: wire.patient_of(decoded(json.loads(row), wire.PatientRow), "C") for row in expected}
    assert found == {row: Patient("C", spelled) if spelled else None for row, spelled in expected.items()}


@pytest.mark.parametrize("foreign", [{"PatientID": "p"}, {"Collection": "c"}, {"PatientID": "P "}])
def test_rows_of_a_patient_or_collection_that_differs_in_case_are_dropped(foreign):
    assert study_of(**{"PatientID": "P", "Collection": "C"}) is not None
    assert study_of(**foreign) is None
    assert series_of(**{"PatientID": "P", "Collection": "C"}) is not None
    assert series_of(**foreign) is None


NUMBERS: list[tuple[object, str | None, int | None]] = [
    ("12", "12", 12),
    (12, "12", 12),
    (12.0, "12", 12),
    ("12.000000", "12.000000", 12),
    (12.5, "12.5", 12),
    (-3, "-3", -3),
    (0, "0", 0),
    (2**63 - 1, str(2**63 - 1), 2**63 - 1),
    (2**63, str(2**63), None),
    (1e300, str(int(1e300)), None),
    ("NaN", "NaN", None),
    ("Infinity", "Infinity", None),
    ("-inf", "-inf", None),
    (None, None, None),
]


def test_a_number_may_be_text_and_text_may_be_a_number():
    found = [
        (sent, series_of(SeriesNumber=sent).series_number, series_of(FileSize=sent).file_size)
        for sent, _, _ in NUMBERS
    ]
    assert found == NUMBERS
    counts = [study_of(SeriesCount=sent).series_count for sent, _, _ in NUMBERS]
    assert counts == [number for _, _, number in NUMBERS]


def test_text_holds_nothing_that_a_file_cannot():
    assert values.text("a\ud800b") == "a?b"
    assert values.text("é\U0001f600") == "é\U0001f600"


SIZES = [  # sent, images and bytes of the series; promised, estimate
    (700, 2, 1000, 700, 700),
    (None, 2, 1000, None, 500),
    (None, 1, 1000, 1000, 1000),
    (700, 1, 1000, 700, 700),
    (0, 2, 1000, None, 500),
    (-5, 2, 1000, None, 500),
    (None, 1, 0, None, 1),
    (None, 0, None, None, 1),
    (None, 1, None, None, 1),
    (None, 5, 3, None, 1),
    (None, 1, -7, None, 1),
    (1e300, 2, 1000, None, 500),
]


def test_a_size_is_what_is_promised_and_an_estimate_is_never_nothing():
    found = []
    for sent, count, total, _, _ in SIZES:
        series = Series("C", "P", "1.2", "1.2.3", image_count=count, file_size=total)
        instance = wire.instance_of(series, "1.2.3.4", 7, sent)
        assert instance.instance_number == 7
        found.append((sent, count, total, instance.size, instance.estimate))
    assert found == SIZES


def test_an_instance_is_of_the_version_of_its_series():
    assert wire.instance_of(SERIES, "1.2.3.4").version == "2019-02-25"


@given(st.randoms(use_true_random=False))
def test_of_rows_with_one_key_the_same_is_kept_whatever_their_order(chance: random.Random):
    records = [
        Study("C", "P", uid, date(2019, 1, 1) if description else None, description, count)
        for uid in ("1.2", "1.3")
        for description in (None, "a", "b")
        for count in (None, "1", "2")
    ]
    shuffled = [*records, None, *records]
    chance.shuffle(shuffled)
    found = wire.distinct(shuffled)
    assert {study.study_instance_uid: study for study in found} == {
        uid: min((r for r in records if r.study_instance_uid == uid), key=repr) for uid in ("1.2", "1.3")
    }
    assert len(found) == 2


COLUMNS = sorted(
    {
        field.encode_name
        for row in (
            wire.CollectionRow,
            wire.PatientRow,
            wire.StudyRow,
            wire.SeriesRow,
            wire.SopRow,
            wire.SizeRow,
            keys.ImageRow,
            keys.SeriesKey,
            keys.StudyKey,
            wire.PatientKeys,
            wire.StudyKeys,
            wire.SearchAnswer,
        )
        for field in msgspec.structs.fields(row)
    }
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["NaN", "Infinity", "1e999", "\ud800", "2019-02-30", "02-30-2019", 2**64, 1e308, ""])
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(COLUMNS), inner, max_size=9),
    max_leaves=25,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"SeriesInstanceUID": st.text(), "StudyInstanceUID": st.text(), "SOPInstanceUID": st.text()}
        | {"sopInstanceUid": st.text(), "seriesInstanceUid": st.text()},
        optional={column: SCALARS for column in COLUMNS if "InstanceU" not in column},
    ),
    max_size=4,
)


def rows_of(body: bytes, kind: Any):
    return decode("e", body, list[kind]) or []


READERS: list[Callable[[bytes], object]] = [
    lambda body: [values.text(row.collection) for row in rows_of(body, wire.CollectionRow)],
    lambda body: wire.distinct(wire.patient_of(row, "C") for row in rows_of(body, wire.PatientRow)),
    lambda body: wire.distinct(wire.study_of(row, "C", "P") for row in rows_of(body, wire.StudyRow)),
    lambda body: wire.distinct(wire.series_of(row, "C", "P") for row in rows_of(body, wire.SeriesRow)),
    lambda body: wire.distinct(
        wire.instance_of(SERIES, row.sop_instance_uid) for row in rows_of(body, wire.SopRow)
    ),
    lambda body: wire.distinct(
        wire.instance_of(SERIES, row.sop_instance_uid, row.instance_number, row.size)
        for row in rows_of(body, keys.ImageRow)
    ),
    lambda body: [values.whole(row.size) for row in rows_of(body, wire.SizeRow)],
    lambda body: [each.key for row in rows_of(body, keys.StudyKey) for each in row.series_list],
    lambda body: decode("e", body, wire.SearchAnswer).result_set,
]


def read_in_every_way(body: bytes) -> int:
    """Read `body` as every kind of answer; return how many of them it could be."""
    read = 0
    for reader in READERS:
        with suppress(BadAnswer):
            reader(body)
            read += 1
    return read


@given(JSON | ROWS)
def test_whatever_json_a_server_sends_is_read_or_is_a_bad_answer(sent):
    read_in_every_way(json.dumps(sent).encode())


@given(st.binary() | st.text(alphabet='[]{}",:\\ud8019e+-.N ').map(str.encode))
def test_whatever_bytes_a_server_sends_are_read_or_are_a_bad_answer(sent):
    read_in_every_way(sent)


def test_the_readers_above_do_read():
    assert read_in_every_way(b"[]") == 8
    assert read_in_every_way(b"{}") == 5  # a row without columns is one; so is a search that found nothing


async def test_a_lone_surrogate_from_a_real_server_is_a_bad_answer():
    body = '[{"SeriesInstanceUID": "\\ud800", "StudyInstanceUID": "1.2"}]'
    async with serving(answer(200, body)) as (_, http):
        with pytest.raises(BadAnswer):
            await http.get_json("e", {}, list[wire.SeriesRow])
