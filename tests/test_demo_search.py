"""The embedded archive searches and drills down as NBIA does (nbia-api: sections 4 and 8, point 8)."""

import httpx
import pytest

from tests.archive import start_archive

PAGE = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "100"}
GUEST = {"Authorization": "Bearer undefined"}


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture(autouse=True)
def _faithful(archive):
    yield
    archive.reset()


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


def search(api, *criteria, **page):
    form = {**PAGE, **page}
    for index, (kind, value) in enumerate(criteria):
        form |= {f"criteriaType{index}": kind, f"value{index}": value}
    return api.post("/v4/getSimpleSearch", data=form)


def pks(found):
    studies = [study for patient in found["resultSet"] for study in patient["studyIdentifiers"]]
    return [pk for study in studies for pk in study["seriesIdentifiers"]]


def test_series_are_found_by_uid_and_drilled_down_by_key(api):
    rows = api.get("/v4/getSeries", params={"Collection": "Demo-CT"}).json()
    wanted = {row["SeriesInstanceUID"]: row for row in rows}
    found = search(api, *[("SeriesCriteria", uid) for uid in wanted]).json()
    keys = pks(found)
    assert len(keys) == len(wanted)
    assert not set(keys) & {patient["id"] for patient in found["resultSet"]}
    images = api.post("/v4/getImageDrillDown", data={"list": [str(key) for key in keys]}).json()
    numbers = [image["instanceNumber"] for image in images]
    assert numbers == sorted(numbers)
    for uid, row in wanted.items():
        sizes = [image["size"] for image in images if image["seriesInstanceUid"] == uid]
        assert (len(sizes), sum(sizes)) == (row["ImageCount"], row["FileSize"])


def test_a_drill_down_row_has_the_keys_of_nbia(api):
    key = pks(search(api, ("CollectionCriteria", "Demo MR"), ("PatientCriteria", "4MR1")).json())[0]
    (image,) = api.post("/v4/getImageDrillDown", data={"list": key}).json()
    assert list(image) == [
        "imagePkId",
        "contentDate",
        "contentTime",
        "seriesPkId",
        "instanceNumber",
        "sopInstanceUid",
        "seriesInstanceUid",
        "studyInstanceUid",
        "size",
        "fileURI",
        "project",
        "siteName",
        "frameNum",
        "acquisitionNumber",
    ]
    assert (image["seriesPkId"], image["size"], image["project"]) == (key, 9830, None)


def test_criteria_of_one_type_are_alternatives_and_types_must_all_hold(api):
    either = search(api, ("CollectionCriteria", "Demo MR"), ("CollectionCriteria", "demo-ct")).json()
    assert {patient["project"] for patient in either["resultSet"]} == {"Demo MR", "Demo-CT"}
    both = search(api, ("CollectionCriteria", "Demo-CT"), ("ImageModalityCriteria", "OT")).json()
    assert [patient["subjectId"] for patient in both["resultSet"]] == ["PHANTOM-01"]
    chest = search(api, ("AnatomicalSiteCriteria", "CHEST")).json()
    assert chest["bodyParts"] == [{"value": "CHEST", "count": chest["totalPatients"]}]
    assert search(api, ("AnatomicalSiteCriteria", "chest")).json()["totalPatients"] == 0
    none = search(api, ("AnatomicalSiteCriteria", "NOT SPECIFIED")).json()
    assert (none["bodyParts"], none["totalPatients"] > 0) == ([], True)
    study = api.get("/v4/getSeries", params={"Collection": "Demo-CT", "Modality": "OT"}).json()[0]
    assert len(pks(search(api, ("StudyCriteria", study["StudyInstanceUID"])).json())) == 2


def test_a_type_of_criteria_that_nbia_does_not_know_is_ignored(api):
    known, unknown = ("CollectionCriteria", "Demo-CT"), ("BodyPartCriteria", "CHEST")
    assert search(api, unknown, known).json()["totalPatients"] == search(api, known).json()["totalPatients"]


def test_pages_count_patients(api):
    everyone = search(api).json()
    total = everyone["totalPatients"]
    names = [patient["subjectId"] for patient in everyone["resultSet"]]
    paged = []
    for start in range(0, total, 5):
        paged += [each["subjectId"] for each in search(api, start=str(start), size="5").json()["resultSet"]]
    assert paged == names == sorted(names)
    backwards = search(api, sortDirection="descending").json()["resultSet"]
    assert [patient["subjectId"] for patient in backwards] == names[::-1]
    assert search(api, start=str(total + 1)).status_code == 500


def test_a_search_without_all_of_its_page_fails(api):
    form = {"criteriaType0": "CollectionCriteria", "value0": "Demo-CT", "start": "0", "size": "10"}
    assert api.post("/v4/getSimpleSearch", data=form).status_code == 500


def test_patient_ids_reach_the_query_unescaped(api):
    assert search(api, ("PatientCriteria", "O'Neill")).status_code == 500
    assert search(api, ("PatientCriteria", "PHANTOM*")).json()["totalPatients"] == 1


def test_the_unversioned_drill_down_wants_a_header_and_tolerates_nulls(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Nulls", "patient_id": "p", "series_of": 3})
    form = {"list": pks(search(api, ("SeriesCriteria", uid)).json())}
    assert api.post("/v4/getImageDrillDown", data=form).status_code == 200
    archive.edit(series=uid, null_instance_numbers=True, null_sizes=True)
    assert api.post("/v4/getImageDrillDown", data=form).status_code == 500
    assert api.post("/getImageDrillDown", data=form).status_code == 500
    images = api.post("/getImageDrillDown", data=form, headers=GUEST).json()
    assert [(image["instanceNumber"], image["size"]) for image in images] == [(None, None)] * 3


def test_drill_down_answers_odd_keys_as_java_would(api):
    assert api.post("/v4/getImageDrillDown", data={"list": "1"}).json() == []
    answer = api.post("/v4/getImageDrillDown", data={"list": "1.2.3"})
    assert (answer.status_code, 'For input string: "1.2.3"' in answer.text) == (500, True)
    assert api.post("/v4/getImageDrillDown").status_code == 500


def test_the_v4_study_drill_downs_are_broken(api):
    for name in ("getStudyDrillDown", "getStudyDrillDownWithSeriesIds"):
        assert api.post(f"/v4/{name}", data={"list": "1"}).status_code == 500


def test_drill_down_can_be_taken_away(api, archive):
    archive.faults(disabled=["v4/getImageDrillDown"])
    answer = api.post("/v4/getImageDrillDown", data={"list": "1"})
    assert answer.text == "Server was not able to process your request\nHTTP 404 Not Found"
    assert api.post("/getImageDrillDown", data={"list": "1"}, headers=GUEST).status_code == 200
    archive.faults(disabled=["getImageDrillDown"])
    assert api.post("/v4/getImageDrillDown", data={"list": "1"}).status_code == 200
    assert api.post("/getImageDrillDown", data={"list": "1"}, headers=GUEST).status_code == 500
