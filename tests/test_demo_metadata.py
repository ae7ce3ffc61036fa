"""The embedded archive tells of many series at once, and of carts, as NBIA does (nbia-api: 2, 6.3)."""

import csv
import io

import httpx
import pytest

from tests.archive import start_archive
from tests.test_demo_search import GUEST, pks, search

METADATA = "/v4/getSeriesMetadata"


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        archive.edit(
            synthetic={"collection": "Mice", "patients": 2, "species": "Mus musculus", "manufacturer": "Acme"}
        )
        yield archive


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


def listed(api, **filters):
    return {row["SeriesInstanceUID"]: row for row in api.get("/v4/getSeries", params=filters).json()}


def test_metadata_of_many_series_comes_in_texts(api):
    known = listed(api, Collection="Demo-CT")
    rows = api.post(METADATA, data={"list": ",".join([*known, "1.2.3"]), "format": "json"}).json()
    assert {row["SeriesInstanceUID"] for row in rows} == set(known)
    for row in rows:
        series = known[row["SeriesInstanceUID"]]
        assert {type(value) for name, value in row.items() if name not in ("ImageCount", "FileSize")} == {str}
        for name in ("Collection", "PatientID", "StudyInstanceUID", "ImageCount", "FileSize"):
            assert row[name] == series[name]
        assert row["MaxSubmissionTimestamp"] == series["MaxSubmissionTimestamp"]
        assert row.get("SeriesNumber", ".").endswith((".000000", "."))
    repeated = api.post(METADATA, data={"list": list(known), "format": "json"}).json()
    assert {row["SeriesInstanceUID"] for row in repeated} == set(known)


def test_metadata_is_a_table_unless_told_otherwise(api):
    (uid, *_) = listed(api, Collection="Demo MR")
    answer = api.post(
        METADATA, data={"list": f" {uid};", "whatever": "1"}
    )  # no whitelist; blanks are dropped
    assert answer.headers["content-disposition"] == 'attachment; filename="SeriesMetaData.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["SeriesInstanceUID"], row["PixelSpacing(mm)-Row"]) == (uid, "")
    assert api.post(METADATA, data={"list": "1.2.3", "format": "json"}).content == b""
    refused = api.post(METADATA, data={"format": "json"})
    assert (refused.status_code, "at least one SeriesInstanceUID" in refused.text) == (400, True)
    assert "HTTP 404" in api.post("/v4/getSeriesMetaData", data={"list": uid}).text


def test_cart_data_leads_from_keys_to_uids_and_sizes(api, archive):
    known = listed(api, Collection="Demo-CT")
    keys = pks(search(api, ("CollectionCriteria", "Demo-CT")).json())
    for path, headers in (("/v4/getCartData", {}), ("/getCartData", GUEST)):
        studies = api.post(path, data={"list": keys}, headers=headers).json()
        told = {series["seriesUID"]: series for study in studies for series in study["seriesList"]}
        assert {uid: one["totalSizeForAllImagesInSeries"] for uid, one in told.items()} == {
            uid: row["FileSize"] for uid, row in known.items()
        }
        assert {one["seriesPkId"] for one in told.values()} == set(keys)
    assert api.post("/v4/getCartData").json() == []
    (uid,) = archive.edit(synthetic={"collection": "Nulls", "patient_id": "p"})
    archive.edit(series=uid, null_sizes=True)
    nulls = pks(search(api, ("SeriesCriteria", uid)).json())
    assert api.post("/v4/getCartData", data={"list": nulls}).status_code == 500


def test_what_has_a_doi_is_found_by_its_exact_spelling(api):
    (series, *_) = listed(api, Collection="Demo MR").values()
    doi = series["DataDescriptionURI"]
    form = {"DOI": doi, "CollectionOrSeries": "series"}
    rows = api.post("/v4/getCollectionOrSeriesForDOI", data=form).json()
    assert {row["seriesInstanceUID"] for row in rows} == set(listed(api, Collection="Demo MR"))
    form = {"DOI": doi, "CollectionOrSeries": "collection"}
    (row,) = api.post("/v4/getCollectionOrSeriesForDOI", data=form).json()
    assert row == {"collection": "Demo MR", "thirdPartyAnanlysis": "NO", "authorized": 1}
    form["DOI"] = doi.removeprefix("https://doi.org/")
    assert api.post("/v4/getCollectionOrSeriesForDOI", data=form).json() == []
    assert api.post("/v4/getCollectionOrSeriesForDOI", data={"format": "json"}).status_code == 400


def test_species_and_patients_are_told(api):
    species = {row["speciesDescription"]: row["speciesCode"] for row in api.get("/v4/getSpeciesTax").json()}
    assert species == {"Homo sapiens": "337915000", "Mus musculus": "447612001"}
    counts = {row["Collection"]: row["Count"] for row in api.get("/v4/getCollectionValuesAndCounts").json()}
    assert counts["Mice"] == 2
    assert counts["Demo-CT"] == search(api, ("CollectionCriteria", "Demo-CT")).json()["totalPatients"]


@pytest.mark.parametrize(
    ("criterion", "collections"),
    [
        (("SpeciesCriteria", "447612001"), {"Mice"}),
        (("ManufacturerCriteria", "Acme"), {"Mice"}),
        (("ManufacturerCriteria", "acme"), set()),
        (("MinNumberOfStudiesCriteria", "2"), {"Demo MR", "Demo-Mixed"}),
        (("DescriptionCriteria", "no such text"), set()),
    ],
)
def test_other_criteria_are_those_of_nbia(api, criterion, collections):
    found = search(api, criterion).json()
    assert {patient["project"] for patient in found["resultSet"]} == collections


def test_a_range_of_days_has_two_ends(api, archive):
    (uid,) = archive.edit(synthetic={"collection": "Late", "patient_id": "p"})
    archive.edit(series=uid, submitted="2021-05-06")
    form = {"criteriaType0": "DateRangeCriteria", "fromDate0": "05-06-2021", "toDate0": "05-06-2021"}
    page = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "9"}
    found = api.post("/v4/getSimpleSearch", data=form | page).json()
    assert [patient["project"] for patient in found["resultSet"]] == ["Late"]
    del form["toDate0"]
    assert api.post("/v4/getSimpleSearch", data=form | page).status_code == 500
    form["toDate0"] = "2021-05-06"
    assert "Unparseable date" in api.post("/v4/getSimpleSearch", data=form | page).text


def test_a_cart_is_listed_by_its_name_in_v1_and_v2(api, archive):
    known = listed(api, Collection="Demo MR")
    archive.edit(cart="nbia-1", series=list(known))
    for path, headers in (("/v1/getContentsByName", {}), ("/v2/getContentsByName", GUEST)):
        rows = api.get(path, params={"name": "nbia-1"}, headers=headers).json()
        assert {row["SeriesInstanceUID"] for row in rows} == set(known)
        for row in rows:
            assert "FileSize" not in row
            assert row["Date Released"] == "2019-03-08 00:00:00.0"
            assert row["PatientID"] == known[row["SeriesInstanceUID"]]["PatientID"]
    assert api.get("/v1/getContentsByName", params={"name": "nobody's"}).content == b""
    assert api.get("/v1/getContentsByName").status_code == 400
    assert api.get("/v4/getContentsByName", params={"name": "nbia-1"}).status_code == 500
