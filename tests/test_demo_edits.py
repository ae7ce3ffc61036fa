"""What the embedded archive holds can be changed and added to while it runs."""

import hashlib
import io
import time
import zlib

import httpx
import pydicom
import pytest

from tests.archive import start_archive

HOSTILE = "../..\n\\/*?é\u2028 " + "x" * 45


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


def row_of(api, uid):
    return api.get("/v4/getSeries", params={"SeriesInstanceUID": uid}).json()[0]


def first_file(api, uid):
    sop = api.get("/v4/getSOPInstanceUIDs", params={"SeriesInstanceUID": uid}).json()[0]["SOPInstanceUID"]
    answer = api.get("/v4/getSingleImage", params={"SeriesInstanceUID": uid, "SOPInstanceUID": sop})
    return sop, answer.content


def test_a_series_can_be_submitted_again(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Again", "patient_id": "p"})
    assert archive.edit(series=uid, submitted="2024-05-17", released="2024-05-18") == [uid]
    assert row_of(api, uid)["MaxSubmissionTimestamp"] == "05-17-2024"
    updated = api.get("/v4/getUpdatedSeries", params={"fromDate": "05-17-2024"}).json()
    assert [row["SeriesInstanceUID"] for row in updated] == [uid]
    sop, before = first_file(api, uid)
    archive.edit(series=uid, rewritten=True)
    after = first_file(api, uid)[1]
    assert (len(after), after[:-1]) == (len(before), before[:-1])
    assert after != before
    md5 = api.get("/v4/getMD5HashForImage", params={"SOPInstanceUID": sop}).text
    assert md5 == hashlib.md5(after).hexdigest()


def test_sizes_can_be_promised_wrong_or_not_at_all(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Sizes", "patient_id": "p", "series_of": 3})
    true = row_of(api, uid)["FileSize"]
    archive.edit(series=uid, promised_size_delta=7)
    assert row_of(api, uid)["FileSize"] == true + 3 * 7
    assert len(first_file(api, uid)[1]) == true // 3
    archive.edit(series=uid, null_sizes=True)
    assert "FileSize" not in row_of(api, uid)


def test_a_series_can_get_more_images(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "More", "patient_id": "p", "series_of": 2})
    before = row_of(api, uid)
    archive.edit(series=uid, more_images=3)
    after = row_of(api, uid)
    assert (before["ImageCount"], after["ImageCount"]) == (2, 5)
    assert after["FileSize"] == before["FileSize"] // 2 * 5
    assert len(api.get("/v4/getSOPInstanceUIDs", params={"SeriesInstanceUID": uid}).json()) == 5


def test_updates_are_told_by_their_days(api, archive):
    early, late = archive.edit(synthetic={"collection": "News", "patient_ids": ["a", "b"]})
    archive.edit(series=early, submitted="2025-03-01", released="2025-03-05")
    archive.edit(series=late, submitted="2025-03-02", released="2025-03-06")

    def studies(day):
        params = {"Collection": "News", "fromDate": day}
        answer = api.get("/v4/NewStudiesInPatientCollection", params=params)
        return sorted(row["PatientID"] for row in answer.json()) if answer.content else []

    def series(day):
        rows = api.get("/v4/getUpdatedSeries", params={"fromDate": day}).json()
        return sorted(row["PatientID"] for row in rows if row["Collection"] == "News")

    assert [studies(f"03-0{day}-2025") for day in (1, 2, 3)] == [["a", "b"], ["b"], []]
    assert [series(f"03-0{day}-2025") for day in (4, 5)] == [["a", "b"], ["b"]]
    archive.edit(hide_series=late)
    assert (studies("03-02-2025"), series("03-04-2025")) == ([], ["a"])


def test_a_hidden_series_is_nowhere_but_under_its_uid(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Hidden", "patient_id": "p"})
    archive.edit(hide_series=uid)
    for path in ("getSeries", "getPatient", "getPatientStudy"):
        assert api.get(f"/v4/{path}", params={"Collection": "Hidden"}).content == b""
    assert {"Collection": "Hidden"} not in api.get("/v4/getCollectionValues").json()
    only = {"SeriesInstanceUID": uid}
    assert api.get("/v4/getImage", params=only).status_code == 400
    assert api.get("/v4/getImage", params={**only, "NewFileNames": "Yes"}).status_code == 200
    assert first_file(api, uid)[1]
    archive.edit(show_series=uid)
    assert row_of(api, uid)


def test_26000_patients_are_made_up_and_listed_at_once(api, archive):
    start = time.monotonic()
    made = archive.edit(synthetic={"collection": "Crowd", "patients": 26_000})
    rows = api.get("/v4/getPatient", params={"Collection": "Crowd"}).json()
    assert time.monotonic() - start < 8
    assert len(made) == len(set(made)) == len(rows) == 26_000
    assert {row["PatientId"] for row in rows} >= {"P-000001", "P-026000"}


def test_made_up_series_can_be_of_the_size_of_a_real_ct(api, archive):
    made = archive.edit(
        synthetic={"collection": "Large", "patient_id": "p", "series": 2, "series_of": 2, "side": 512}
    )
    assert len(set(made)) == 2
    assert row_of(api, made[0])["StudyInstanceUID"] == row_of(api, made[1])["StudyInstanceUID"]
    sop, file = first_file(api, made[1])
    assert len(file) == row_of(api, made[1])["FileSize"] / 2 > 512 * 512 * 2
    again = {"SeriesInstanceUID": made[1], "SOPInstanceUID": sop}
    assert file == api.get("/v4/getSingleImage", params=again).content
    header = pydicom.dcmread(io.BytesIO(file))
    assert (header.SOPInstanceUID, header.pixel_array.shape) == (sop, (512, 512))
    assert 1.8 < len(file) / len(zlib.compress(file)) < 2.5  # as real ones
    with pytest.raises(ValueError, match="multiple of 256"):
        archive.edit(synthetic={"collection": "Large", "patient_id": "p", "side": 100})


def test_a_made_up_file_says_what_the_lists_say(api, archive):
    (uid,) = archive.edit(
        synthetic={
            "collection": "Hostile",
            "patient_ids": ["Jané Doe"],
            "series_description": "50%/fat",
            "study_description": "..",
        }
    )
    sop, file = first_file(api, uid)
    header = pydicom.dcmread(io.BytesIO(file))
    row = row_of(api, uid)
    assert (header.SOPInstanceUID, header.SeriesInstanceUID) == (sop, uid)
    assert header.file_meta.MediaStorageSOPInstanceUID == sop
    assert header.StudyInstanceUID == row["StudyInstanceUID"]
    assert (header.PatientID, row["PatientID"]) == ("Jané Doe", "Jané Doe")
    assert (header.SeriesDescription, header.StudyDescription) == ("50%/fat", "..")
    assert header.pixel_array.shape == (8, 8)
    assert len(file) == row["FileSize"]


def test_names_may_be_as_hostile_as_json_can_tell(api, archive):
    (uid,) = archive.edit(
        synthetic={"collection": HOSTILE, "patient_id": HOSTILE, "series_description": HOSTILE}
    )
    assert row_of(api, uid)["PatientID"] == HOSTILE
    assert row_of(api, uid)["SeriesDescription"] == HOSTILE
    listed = api.get("/v4/getSeries", params={"Collection": HOSTILE, "PatientID": HOSTILE}).json()
    assert [row["SeriesInstanceUID"] for row in listed] == [uid]
    assert len(first_file(api, uid)[1]) == row_of(api, uid)["FileSize"]


def test_a_series_can_be_very_long(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Long", "patient_id": "p", "series_of": 10_000})
    assert row_of(api, uid)["ImageCount"] == 10_000
    rows = api.get("/v4/getSOPInstanceUIDs", params={"SeriesInstanceUID": uid}).json()
    assert len({row["SOPInstanceUID"] for row in rows}) == 10_000


def test_studies_of_real_patients_can_grow(api, archive):
    study = api.get("/v4/getPatientStudy", params={"Collection": "Demo MR", "PatientID": "4MR1"}).json()[0]
    named = {"collection": "Demo MR", "patient_id": "4MR1", "study_instance_uid": study["StudyInstanceUID"]}
    (uid,) = archive.edit(synthetic=named)
    grown = api.get("/v4/getPatientStudy", params={"Collection": "Demo MR", "PatientID": "4MR1"}).json()
    assert [row["SeriesCount"] for row in grown] == [study["SeriesCount"] + 1]
    header = pydicom.dcmread(io.BytesIO(first_file(api, uid)[1]))
    assert header.StudyInstanceUID == study["StudyInstanceUID"]
    archive.edit(synthetic={"collection": "Demo MR", "patient_id": "4MR1"})
    assert len(api.get("/v4/getPatientStudy", params={"PatientID": "4MR1"}).json()) == 2


@pytest.mark.parametrize(
    "change", [{"serie": "1"}, {"series": "1.2.3", "hidden": True}, {"synthetic": {"patient": 1}}]
)
def test_an_edit_that_makes_no_sense_is_refused(archive, change):
    with pytest.raises(ValueError, match="error"):
        archive.edit(**change)
