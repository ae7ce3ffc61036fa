"""The embedded archive's interfaces each have what NBIA's have, and can be switched off one by one."""

import httpx
import pytest

from tests.archive import start_archive

GUEST = {"Authorization": "Bearer undefined"}
PHANTOM = {"Collection": "Demo-CT", "PatientID": "PHANTOM-01", "Modality": "CT"}
GONE = (500, "Server was not able to process your request\nHTTP 404 Not Found")


@pytest.fixture(scope="module")
def whole():
    with start_archive() as archive:
        yield archive


@pytest.fixture
def archive(whole):
    whole.reset()
    return whole


@pytest.fixture
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10, headers=GUEST) as client:
        yield client


@pytest.fixture
def phantom(api):
    return api.get("/v1/getSeries", params=PHANTOM).json()[0]


def test_interfaces_are_there_as_they_are_switched(archive, api):
    def answering():
        asked = {name: api.get(f"/{name}/getCollectionValues") for name in ("v1", "v2", "v4")}
        asked["unversioned"] = api.get("/getLicenses")
        gone = [name for name, answer in asked.items() if (answer.status_code, answer.text) == GONE]
        assert all(answer.status_code == 200 for name, answer in asked.items() if name not in gone)
        return set(asked) - set(gone)

    assert answering() == {"v1", "v2", "v4", "unversioned"}
    for interfaces in (["v1"], ["v2"], ["v4"], ["unversioned"], ["v2", "unversioned"], []):
        archive.faults(interfaces=interfaces)
        assert answering() == set(interfaces)
    with pytest.raises(ValueError, match="no such interface: v3"):
        archive.faults(interfaces=["v3"])


def test_v2_lists_what_v1_lists(api, phantom):
    for name in ("getCollectionValues", "getPatient", "getPatientStudy", "getSeries", "getBodyPartValues"):
        first, second = (sorted(api.get(f"/{version}/{name}").json(), key=repr) for version in ("v1", "v2"))
        assert first == second
    uid = {"SeriesInstanceUID": phantom["SeriesInstanceUID"]}
    for name in ("getSeriesSize", "getSOPInstanceUIDs", "getSeriesMetaData"):
        first, second = (
            sorted(api.get(f"/{version}/{name}", params=uid).json(), key=repr) for version in ("v1", "v2")
        )
        assert first == second


def test_v4_lacks_what_was_not_taken_over(api, phantom):
    uid = {"SeriesInstanceUID": phantom["SeriesInstanceUID"]}
    for name, params in (("getSeriesMetaData", uid), ("getContentsByName", {"name": "x"})):
        answer = api.get(f"/v4/{name}", params=params)
        assert (answer.status_code, answer.text) == GONE


def test_metadata_of_v1_are_strings_with_names_of_their_own(api, phantom):
    uid = {"SeriesInstanceUID": phantom["SeriesInstanceUID"]}
    [row] = api.get("/v1/getSeriesMetaData", params=uid).json()
    assert all(isinstance(value, str) for value in row.values())
    assert (row["Series UID"], row["Subject ID"]) == (phantom["SeriesInstanceUID"], "PHANTOM-01")
    assert (row["Number of Images"], row["File Size"]) == ("120", str(120 * 132398))
    assert (row["Series Number"], row["Study Date"]) == ("2.000000", "01-14-2019")
    answer = api.get("/v1/getSeriesMetaData", params={"SeriesInstanceUID": "1.2"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert api.get("/v1/getSeriesMetaData").status_code == 400


def test_a_digest_goes_by_other_names_before_v4(api, phantom):
    uid = {"SeriesInstanceUID": phantom["SeriesInstanceUID"]}
    sop = api.get("/v1/getSOPInstanceUIDs", params=uid).json()[0]["SOPInstanceUID"]
    digest = api.get("/v4/getMD5HashForImage", params={"SOPInstanceUID": sop}).text
    for version in ("v1", "v2"):
        assert api.get(f"/{version}/getM5HashForImage", params={"SOPInstanceUid": sop}).text == digest
        assert api.get(f"/{version}/getM5HashForImage", params={"SOPInstanceUID": sop}).status_code == 400
        answer = api.get(f"/{version}/getMD5HashForImage", params={"SOPInstanceUID": sop})
        assert (answer.status_code, answer.text) == GONE


def test_columns_that_a_server_is_too_old_for_are_lacking(archive, api):
    archive.faults(lacking_columns=["FileSize", "LicenseName"])
    row = api.get("/v1/getSeries", params=PHANTOM).json()[0]
    assert not {"FileSize", "LicenseName"} & set(row)
    assert row["ImageCount"] == 120


def test_the_unversioned_study_drill_down_tells_keys(api, phantom):
    uid = phantom["SeriesInstanceUID"]
    form = {"list": [uid, "1.2"]}
    [study] = api.post("/getStudyDrillDownWithSeriesIds", data=form).json()
    assert (study["studyId"], study["date"]) == (phantom["StudyInstanceUID"], "01-14-2019")
    [series] = study["seriesList"]
    assert (series["seriesUID"], series["numberImages"]) == (uid, 120)
    images = api.post("/getImageDrillDown", data={"list": series["seriesPkId"]}).json()
    assert {image["seriesInstanceUid"] for image in images} == {uid}
    assert api.post("/getStudyDrillDownWithSeriesIds", data={"list": "1.2"}).json() == []
    assert api.post("/v4/getStudyDrillDownWithSeriesIds", data=form).status_code == 500


def test_a_cart_lists_the_series_that_were_put_into_it(archive, api, phantom):
    assert api.get("/v1/getContentsByName", params={"name": "nbia-1"}).content == b""
    archive.edit(cart="nbia-1", series=[phantom["SeriesInstanceUID"]])
    [row] = api.get("/v1/getContentsByName", params={"name": "nbia-1", "format": "csv"}).json()
    assert row["SeriesInstanceUID"] == phantom["SeriesInstanceUID"]
    assert list(row)[-2:] == ["ImageCount", "Date Released"]
    assert api.get("/v1/getContentsByName").status_code == 400
    with pytest.raises(ValueError, match="KeyError"):
        archive.edit(cart="nbia-2", series=["1.2"])


def test_a_token_is_had_without_one(archive):
    form = {"username": "nbia_guest", "password": "", "client_id": "NBIA", "grant_type": "password"}
    archive.faults(interfaces=["v2"])
    for root in (archive.url, archive.url.removesuffix("/services")):
        with httpx.Client(base_url=root, trust_env=False) as client:
            token = client.post("/oauth/token", data=form).json()
            assert {"access_token", "expires_in", "refresh_token", "refresh_expires_in"} <= set(token)
            assert client.post("/oauth/token", data={"grant_type": "x"}).status_code == 500
