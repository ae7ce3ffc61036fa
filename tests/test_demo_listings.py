"""The embedded archive lists as NBIA does (nbia-api: sections 2 and 8, points 1 to 5 and 9)."""

import csv
import io
import re

import httpx
import pytest

from tciafs.demo.rows import series_columns
from tests.archive import start_archive

PHANTOM = {"Collection": "Demo-CT", "PatientID": "PHANTOM-01", "Modality": "CT"}


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


@pytest.mark.parametrize("base", ["nbia-api/services", "nbia-api"])
@pytest.mark.parametrize("version", ["v1", "v2", "v4"])
def test_every_version_is_mounted_with_and_without_services(archive, api, base, version):
    root = archive.url.removesuffix("nbia-api/services")
    answer = api.get(
        f"{root}{base}/{version}/getCollectionValues", headers={"Authorization": "Bearer undefined"}
    )
    assert {row["Collection"] for row in answer.json()} == {"Demo-CT", "Demo MR", "Demo-Mixed"}
    assert answer.headers["Content-Type"] == "application/json"


def test_v2_and_unversioned_paths_want_an_authorization_header(api):
    for method, path in (("GET", "/v2/getCollectionValues"), ("POST", "/getImageDrillDown")):
        answer = api.request(method, path)
        assert (answer.status_code, answer.text) == (500, "Server was not able to process your request\nnull")


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_an_empty_list_is_200_without_body_or_type(api, version):
    answer = api.get(f"/{version}/getSeries", params={"Collection": "no such"})
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_columns_come_in_order_and_nulls_are_left_out(api, version):
    for row in api.get(f"/{version}/getSeries").json():
        assert list(row) == [column for column in series_columns(version) if column in row]
        assert None not in row.values()


def test_columns_differ_between_the_versions(api):
    before = api.get("/v1/getSeries", params=PHANTOM).json()[0]
    after = api.get("/v4/getSeries", params=PHANTOM).json()[0]
    assert set(before) - set(after) == {"TimeStamp", "CollectionURI"}
    assert {"MaxSubmissionTimestamp", "DataDescriptionURI", "Authorized", "Site"} <= set(after) - set(before)
    updated = api.get("/v1/getUpdatedSeries", params={"fromDate": "01/01/2019"}).json()[0]
    assert "DateReleased" in updated
    assert "FileSize" not in updated


def test_dates_and_numbers_are_spelled_as_the_version_does(api):
    before = api.get("/v1/getSeries", params=PHANTOM).json()[0]
    after = api.get("/v4/getSeries", params=PHANTOM).json()[0]
    assert before["SeriesDate"] == "2019-01-14 00:00:00.0"
    assert after["SeriesDate"] == "01-14-2019"
    assert (after["SeriesNumber"], after["ImageCount"], after["FileSize"]) == (2, 120, 120 * 132398)


def test_case_matters_to_v1_but_not_to_v4(api):
    assert api.get("/v4/getSeries", params={"Modality": "ct"}).json()
    assert api.get("/v1/getSeries", params={"Modality": "ct"}).content == b""
    assert api.get("/v1/getSeries", params={"Collection": "demo mr"}).json()
    assert api.get("/v4/getPatient", params={"PatientId": "phantom-01"}).content == b""
    assert api.get("/v1/getPatient", params={"PatientId": "phantom-01"}).json()


def test_v4_refuses_unknown_parameters_and_v1_ignores_them(api):
    answer = api.get("/v4/getSeries", params={"Collection": "Demo-CT", "x": "1"})
    assert answer.status_code == 400
    assert answer.text.startswith("Invalid query parameter: 'x'. Allowed parameters are: [")
    assert answer.headers["Content-Type"] == "application/xml"
    answer = api.get("/v4/getSeries", params={"x": "1"}, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
    answer = api.post("/v4/getImageDrillDown", data={"pk": "1"})
    assert (answer.status_code, "Invalid form parameter: 'pk'" in answer.text) == (400, True)
    ignored = api.get("/v1/getPatient", params={"x": "1", "Modality": "none"})
    assert len(ignored.json()) == len(api.get("/v1/getPatient").json())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/v4/getSeriesSize", "A parameter, SeriesInstanceUID is required for this API call."),
        ("/v1/getImage", "A parameter, SeriesInstanceUID, is required for this API call."),
        (
            "/v4/getSingleImage?SeriesInstanceUID=1",
            "A parameter, SeriesInstanceUID and SOPInstanceUID, are required for this API call.",
        ),
        (
            "/v4/NewPatientsInCollection?Collection=Demo-CT",
            "A parameter, Collection and Date are required for this API call.",
        ),
        (
            "/v4/getPatientByCollectionAndModality?Modality=CT",
            "A parameter, Collection and Modality, are required for this API call.",
        ),
    ],
)
def test_a_missing_parameter_is_400_with_text_called_json(api, path, text):
    answer = api.get(path)
    assert (answer.status_code, answer.text) == (400, text)
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "headers", "reason"),
    [
        ("GET", "/v4/noSuchEndpoint", {}, "HTTP 404 Not Found"),
        ("GET", "/v3/getSeries", {}, "HTTP 404 Not Found"),
        ("GET", "/v4/getSimpleSearch", {}, "HTTP 405 Method Not Allowed"),
        ("POST", "/v4/getSeries", {}, "HTTP 405 Method Not Allowed"),
        ("GET", "/v4/getImage", {"Accept": "application/json"}, "HTTP 406 Not Acceptable"),
        ("GET", "/v4/getSingleImage", {"Accept": "application/json"}, "HTTP 406 Not Acceptable"),
        ("GET", "/v4/getSeries", {"Accept": "image/png"}, "HTTP 406 Not Acceptable"),
        (
            "POST",
            "/v4/getSimpleSearch",
            {"Content-Type": "application/json"},
            "HTTP 415 Unsupported Media Type",
        ),
    ],
)
def test_every_other_failure_is_500_and_names_the_reason(api, method, path, headers, reason):
    answer = api.request(method, path, headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (500, "text/plain")
    assert answer.text == f"Server was not able to process your request\n{reason}"


def test_a_format_that_is_not_built_is_500(api):
    assert api.get("/v4/getSeries", params={"format": "parquet"}).status_code == 500


def test_csv_is_quoted_when_it_has_several_columns(api):
    answer = api.get("/v4/getPatient", params={"format": "csv", "Collection": "Demo MR"})
    assert answer.headers["Content-Type"] == "text/csv"
    assert answer.text.startswith('"PatientId","PatientName",')
    assert len(list(csv.DictReader(io.StringIO(answer.text)))) == 3
    single = api.get("/v4/getCollectionValues", params={"format": "CSV"}).text
    assert single.splitlines()[0] == "Collection"
    assert "Demo MR" in single.splitlines()


def test_more_than_8_kib_is_chunked_and_less_is_not(api):
    long, short = api.get("/v4/getSeries"), api.get("/v4/getPatient")
    assert len(long.content) > 8192 > len(short.content)
    assert "Content-Length" not in long.headers
    assert long.headers["Transfer-Encoding"] == "chunked"
    assert short.headers["Content-Length"] == str(len(short.content))


def test_ranges_encodings_and_validators_are_not_for_this_server(api):
    headers = {"Range": "bytes=0-99", "Accept-Encoding": "gzip"}
    answer = api.get("/v4/getSeries", headers=headers)
    assert answer.status_code == 200
    assert len(answer.json()) > 10
    told = {name.lower() for name in answer.headers}
    assert not told & {
        "content-encoding",
        "etag",
        "last-modified",
        "cache-control",
        "accept-ranges",
        "server",
    }


def test_head_runs_the_get_and_tells_no_length(api):
    answer = api.head("/v4/getSeries")
    assert (answer.status_code, answer.content) == (200, b"")
    assert "Content-Length" not in answer.headers


def test_rows_come_in_another_order_every_time(api):
    orders = {api.get("/v4/getSeries").text for _ in range(5)}
    assert len(orders) > 1


def test_the_sample_has_the_oddities_of_the_real_archive(api):
    assert {} in api.get("/v4/getBodyPartValues").json()
    patients = api.get("/v4/getPatient", params={"Collection": "Demo-Mixed"}).json()
    assert "Odd/ID: *é?" in {patient["PatientId"] for patient in patients}
    series = api.get("/v4/getSeries").json()
    assert any("SeriesDate" not in row and "SeriesDescription" not in row for row in series)
    for modality in ("SEG", "RTSTRUCT", "SR"):
        assert next(row["ImageCount"] for row in series if row["Modality"] == modality) == 1
    assert max(row["FileSize"] for row in series if row["ImageCount"] == 1) > 15e6
    both = [{row["Collection"] for row in series if row["PatientID"] == "98890234"}]
    assert both == [{"Demo-CT", "Demo MR"}]


@pytest.mark.parametrize("version", ["v1", "v4"])
def test_series_add_up_to_studies_and_sizes(api, version):
    studies = api.get(f"/{version}/getPatientStudy", params={"PatientID": "98890234"}).json()
    for study in studies:
        params = {"StudyInstanceUID": study["StudyInstanceUID"], "Collection": study["Collection"]}
        assert len(api.get(f"/{version}/getSeries", params=params).json()) == study["SeriesCount"]
    row = api.get(f"/{version}/getSeries", params=PHANTOM).json()[0]
    one = {"SeriesInstanceUID": row["SeriesInstanceUID"]}
    size = api.get(f"/{version}/getSeriesSize", params=one).json()
    assert size == [{"TotalSizeInBytes": row["FileSize"], "ObjectCount": row["ImageCount"]}]
    uids = api.get(f"/{version}/getSOPInstanceUIDs", params=one).json()
    assert len({uid["SOPInstanceUID"] for uid in uids}) == row["ImageCount"]


def test_news_are_asked_for_in_the_spelling_of_the_version(api):
    for version, day, name in (("v1", "2019/02/25", "Date"), ("v4", "02-25-2019", "fromDate")):
        params = {"Collection": "Demo MR", name: day}
        assert len(api.get(f"/{version}/NewPatientsInCollection", params=params).json()) == 3
        assert api.get(f"/{version}/NewStudiesInPatientCollection", params=params).json()
    later = {"Collection": "Demo MR", "fromDate": "02-26-2019"}
    assert api.get("/v4/NewPatientsInCollection", params=later).content == b""
    assert api.get("/v4/getUpdatedSeries", params={"fromDate": "03-08-2019"}).content == b""
    assert api.get("/v4/getUpdatedSeries", params={"fromDate": "03-07-2019"}).json()
    assert api.get("/v4/getUpdatedSeries").json()
    assert api.get("/v4/getUpdatedSeries", params={"fromDate": "2019-03-07"}).status_code == 500


def test_values_and_patients_can_be_narrowed_down(api):
    modalities = api.get("/v4/getModalityValues", params={"Collection": "Demo MR"}).json()
    assert modalities == [{"Modality": "MR"}]
    makers = api.get("/v4/getManufacturerValues", params={"BodyPartExamined": "chest"}).json()
    assert {"Manufacturer": "tciafs"} in makers
    params = {"Collection": "Demo-CT", "Modality": "OT"}
    found = api.get("/v4/getPatientByCollectionAndModality", params=params).json()
    assert found == [{"PatientId": "PHANTOM-01", "Authorized": 1}]


def test_licence_and_doi_are_those_of_the_collection(api):
    row = api.get("/v4/getSeries", params=PHANTOM).json()[0]
    assert re.fullmatch(r"Creative Commons Attribution [34]\.0 \w+ License", row["LicenseName"])
    assert row["DataDescriptionURI"].startswith("https://doi.org/10.")


def test_an_analysis_result_has_a_doi_of_its_own(api):
    rows = api.get("/v4/getSeries", params={"Collection": "Demo-Mixed"}).json()
    dois = {row["ThirdPartyAnalysis"]: row["DataDescriptionURI"] for row in rows}
    assert dois.keys() == {"YES", "NO"}
    assert dois["YES"] != dois["NO"]


def test_collections_are_described_and_the_unversioned_endpoint_alone_tells_the_licence(api):
    guest = {"Authorization": "Bearer undefined"}
    wanted = {"collectionName": "Demo-CT"}
    (described,) = api.get("/v4/getCollectionDescriptions", params=wanted).json()
    assert list(described) == ["description", "id", "collectionName", "descriptionURI"]
    assert described["description"].startswith("<p>This is <b>Demo-CT</b>, ")
    (row,) = api.get("/v4/getSeries", params=PHANTOM).json()[:1]
    assert described["descriptionURI"] == row["DataDescriptionURI"]
    (more,) = api.get("/getCollectionDescriptions", params=wanted, headers=guest).json()
    assert set(more) - set(described) == {"collectionDescTimestamp", "userName", "licenseId"}
    licences = {each["id"]: each for each in api.get("/getLicenses", headers=guest).json()}
    found = licences[more["licenseId"]]
    assert (found["longName"], found["licenseURL"]) == (row["LicenseName"], row["LicenseURI"])
    assert list(found) == ["longName", "id", "shortName", "licenseURL", "licenseText", "commercialUse"]
    assert len(api.get("/v4/getCollectionDescriptions").json()) == 3
    assert api.get("/v4/getCollectionDescriptions", params={"collectionName": "none"}).json() == []
    refused = api.get("/v4/getCollectionDescriptions", params={**wanted, "format": "json"})
    assert (refused.status_code, api.get("/getLicenses").status_code) == (400, 500)
