"""The embedded archive delivers images as NBIA does (nbia-api: sections 3 and 8, points 6 and 7)."""

import hashlib
import io
import struct
import zipfile
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.archive import start_archive

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


def series_of(api, **filters):
    return api.get("/v4/getSeries", params=filters).json()[0]["SeriesInstanceUID"]


def uids_of(api, series):
    rows = api.get("/v4/getSOPInstanceUIDs", params={"SeriesInstanceUID": series}).json()
    return [row["SOPInstanceUID"] for row in rows]


def zip_of(api, path, **params):
    answer = api.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return zipfile.ZipFile(io.BytesIO(answer.content))


def md5(data):
    return hashlib.md5(data).hexdigest()


def test_a_single_image_is_the_file_on_disk(api):
    series = series_of(api, Collection="Demo-Mixed", PatientID="204")
    (uid,) = uids_of(api, series)
    params = {"SeriesInstanceUID": series, "SOPInstanceUID": uid}
    answer = api.get("/v4/getSingleImage", params=params, headers={"Range": "bytes=0-9"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={uid}.dcm"
    assert "Content-Length" not in answer.headers
    assert answer.content == (BUNDLED / "examples_ybr_color.dcm").read_bytes()
    for version, name, key in (("v4", "getMD5", "SOPInstanceUID"), ("v1", "getM5", "SOPInstanceUid")):
        hashed = api.get(f"/{version}/{name}HashForImage", params={key: uid})
        assert (hashed.text, hashed.headers["Content-Type"]) == (md5(answer.content), "text/plain")


def test_a_single_image_that_is_not_there_is_a_null_pointer(api):
    series = series_of(api, Collection="Demo MR", PatientID="4MR1")
    (uid,) = uids_of(api, series)
    for params in (
        {"SeriesInstanceUID": series, "SOPInstanceUID": "1.2.3"},
        {"SeriesInstanceUID": "1.2.3", "SOPInstanceUID": uid},
    ):
        answer = api.get("/v4/getSingleImage", params=params)
        assert answer.status_code == 500
        assert answer.text == "Server was not able to process your request\nnull"
    assert api.get("/v4/getMD5HashForImage", params={"SOPInstanceUID": "1.2.3"}).content == b""


def test_a_zip_has_its_licence_first_and_files_in_no_order(api):
    series = series_of(api, Collection="Demo-CT", PatientID="PHANTOM-01", Modality="CT")
    answer = api.get("/v4/getImage", params={"SeriesInstanceUID": series})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{series}.zip"'
    assert answer.headers["Transfer-Encoding"] == "chunked"
    received = zipfile.ZipFile(io.BytesIO(answer.content))
    names = received.namelist()
    assert names == ["LICENSE", *[f"{index:08d}.dcm" for index in range(1, 121)]]
    assert b"The Demo-CT collection is distributed under the CC BY" in received.read("LICENSE")
    numbers = [pydicom.dcmread(io.BytesIO(received.read(name))).InstanceNumber for name in names[1:]]
    assert sorted(numbers) == list(range(1, 121)) != numbers


def test_a_zip_is_built_as_java_streams_it(api):
    series = series_of(api, Collection="Demo MR", PatientID="4MR1")
    answer = api.get("/v4/getImage", params={"SeriesInstanceUID": series})
    assert answer.headers["Content-Length"] == str(len(answer.content))  # it fits Tomcat's buffer
    data = answer.content
    version, flags, method, _, _, checksum, compressed, size, name, extra = struct.unpack(
        "<5H3L2H", data[4:30]
    )
    assert data[:4] == b"PK\3\4"
    assert (version, flags, method, checksum, compressed, size, extra) == (20, 0x0808, 8, 0, 0, 0, 0)
    assert data[30 : 30 + name] == b"LICENSE"
    received = zipfile.ZipFile(io.BytesIO(data))
    assert received.testzip() is None
    for entry in received.infolist():
        assert (entry.flag_bits, entry.external_attr, entry.create_version) == (0x0808, 0, 20)
        assert struct.pack("<4s3L", b"PK\7\10", entry.CRC, entry.compress_size, entry.file_size) in data


def test_new_file_names_count_acquisitions_and_pad(api, archive):
    series = series_of(api, Collection="Demo-CT", PatientID="PHANTOM-01", Modality="CT")
    received = zip_of(api, "/v4/getImage", SeriesInstanceUID=series, NewFileNames="yes")
    assert received.namelist() == ["LICENSE", *[f"1-{index:03d}.dcm" for index in range(1, 121)]]
    first = pydicom.dcmread(io.BytesIO(received.read("1-001.dcm")))
    assert first.InstanceNumber == 1
    (made_up,) = archive.edit(synthetic={"collection": "No numbers", "patient_id": "p", "series_of": 11})
    archive.edit(series=made_up, null_instance_numbers=True)
    received = zip_of(api, "/v1/getImage", SeriesInstanceUID=made_up, NewFileNames="Yes")
    assert received.namelist()[1:] == [f"1-{index}.dcm" for index in range(1, 12)]


@pytest.mark.parametrize(
    ("path", "options", "first"),
    [("/v4/getImage", {"IncludeMD5": "Yes"}, "LICENSE"), ("/v4/getImageWithMD5Hash", {}, "00000001.dcm")],
)
def test_checksums_come_last_and_are_true(api, path, options, first):
    listed = api.get("/v4/getSeries", params={"Collection": "Demo MR"}).json()
    series = next(row["SeriesInstanceUID"] for row in listed if row["ImageCount"] == 7)
    received = zip_of(api, path, SeriesInstanceUID=series, **options)
    names = received.namelist()
    assert (names[0], names[-1]) == (first, "md5hashes.csv")
    header, *rows = received.read("md5hashes.csv").decode().splitlines()
    assert header == "Filename,MD5Hash"
    hashes = dict(row.split(",") for row in rows)
    assert hashes == {name: md5(received.read(name)) for name in names if name.endswith(".dcm")}
    assert len(hashes) == 7


@pytest.mark.parametrize(
    ("version", "start", "end"),
    [
        ("v1", "Image with given", ", is not in public domain."),
        ("v2", "The user has not been granted the access to image with given", " resolve this issue."),
        ("v4", "The user has not been granted the access to image with given", " resolve this issue."),
    ],
)
def test_an_unknown_series_is_400(api, version, start, end):
    headers = {"Authorization": "Bearer undefined"}
    answer = api.get(f"/{version}/getImage", params={"SeriesInstanceUID": "1.2.3"}, headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/json")
    assert answer.text.startswith(f"{start} SeriesInstanceUID,1.2.3")
    assert answer.text.endswith(end)


def test_every_instance_is_as_long_as_its_row_says(api):
    for row in api.get("/v4/getSeries").json():
        received = zip_of(api, "/v4/getImage", SeriesInstanceUID=row["SeriesInstanceUID"])
        sizes = [entry.file_size for entry in received.infolist()[1:]]
        assert (len(sizes), sum(sizes)) == (row["ImageCount"], row["FileSize"])
