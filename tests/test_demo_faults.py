"""Every switch of the embedded archive does what it says, and requests are counted meanwhile."""

import io
import json
import time
import zipfile
import zlib

import httpx
import pytest
import trio

from tests.archive import start_archive


@pytest.fixture(scope="module")
def archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture(autouse=True)
def _faithful(archive):
    archive.reset()
    yield
    archive.reset()


@pytest.fixture(scope="module")
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def phantom(api):
    params = {"Collection": "Demo-CT", "PatientID": "PHANTOM-01", "Modality": "CT"}
    return api.get("/v4/getSeries", params=params).json()[0]["SeriesInstanceUID"]


@pytest.fixture(scope="module")
def image(api, phantom):
    """Return the parameters of a getSingleImage of 132 kB."""
    rows = api.get("/v4/getSOPInstanceUIDs", params={"SeriesInstanceUID": phantom}).json()
    return {"SeriesInstanceUID": phantom, **min(rows, key=lambda row: row["SOPInstanceUID"])}


def test_ranges_are_honoured_where_that_is_switched_on(api, archive, image):
    whole = api.get("/v4/getSingleImage", params=image)
    span = {"Range": "bytes=1000-1999"}
    assert api.get("/v4/getSingleImage", params=image, headers=span).content == whole.content
    archive.faults(ranges=True, rules=[{"do": "elsewhere", "skip": 1, "times": 1}])
    part = api.get("/v4/getSingleImage", params=image, headers=span)
    size = len(whole.content)
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes 1000-1999/{size}")
    assert part.content == whole.content[1000:2000]
    part = api.get("/v4/getSingleImage", params=image, headers=span)
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes 2000-2999/{size}")
    assert part.content == whole.content[2000:3000]
    part = api.get("/v4/getSingleImage", params=image, headers={"Range": f"bytes={size}-{size + 9}"})
    assert part.status_code == 416
    assert api.get("/v4/getSingleImage", params=image).content == whole.content


def test_a_status_can_carry_a_body_and_retry_after(api, archive):
    archive.faults(rules=[{"do": "status", "status": 429, "retry_after": 2, "times": 1}])
    answer = api.get("/v4/getPatient")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    assert answer.headers["Content-Type"] == "text/html"
    assert api.get("/v4/getPatient").status_code == 200
    rule = {"do": "status", "status": 503, "body": "no", "content_type": "text/plain"}
    archive.faults(rules=[rule])
    answer = api.get("/v4/getPatient")
    assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (503, "no", "text/plain")
    archive.faults(rules=[{"do": "status"}])
    assert api.get("/v4/getPatient").text == "Server was not able to process your request\nnull"
    archive.faults(rules=[{"do": "status", "status": 401}])
    answer = api.get("/v4/getPatient")
    assert (answer.status_code, answer.content, "Content-Type" in answer.headers) == (401, b"", False)


def test_rules_name_endpoints_skip_match_and_run_out(api, archive):
    archive.faults(
        rules=[
            {"do": "status", "endpoint": "getPatient", "match": "Demo+MR", "skip": 1, "times": 1},
            {"do": "empty", "endpoint": "v1/getSeries"},
        ]
    )
    other, wanted = {"Collection": "Demo-CT"}, {"Collection": "Demo MR"}
    assert api.get("/v4/getPatient", params=other).status_code == 200
    statuses = [api.get("/v1/getPatient?Collection=Demo+MR").status_code for _ in range(3)]
    assert statuses == [200, 500, 200]
    assert api.get("/v1/getSeries", params=wanted).content == b""
    assert api.get("/v4/getSeries", params=wanted).json()


def test_a_web_page_can_come_instead(api, archive):
    archive.faults(rules=[{"do": "html"}])
    answer = api.get("/v4/getSeries")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html")


def test_nothing_can_come_instead(api, archive, image):
    archive.faults(rules=[{"do": "empty"}])
    answer = api.get("/v4/getSingleImage", params=image)
    assert (answer.status_code, answer.headers["Content-Length"]) == (200, "0")
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("collection", ["Demo-CT", "no such"])
def test_json_can_be_malformed(api, archive, collection):
    archive.faults(rules=[{"do": "malformed"}])
    answer = api.get("/v4/getSeries", params={"Collection": collection})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_bytes_can_be_flipped(api, archive, image):
    true = api.get("/v4/getSingleImage", params=image).content
    archive.faults(rules=[{"do": "corrupt"}])
    false = api.get("/v4/getSingleImage", params=image).content
    assert len(false) == len(true)
    assert sum(a != b for a, b in zip(true, false, strict=True)) == 16
    archive.faults(rules=[{"do": "corrupt", "endpoint": "getImage"}])
    large = api.get("/v4/getSeries", params={"Collection": "Demo-CT", "Modality": "OT"}).json()[0]
    zipped = api.get("/v4/getImage", params={"SeriesInstanceUID": large["SeriesInstanceUID"]}).content
    received = zipfile.ZipFile(io.BytesIO(zipped))
    with pytest.raises((zipfile.BadZipFile, zlib.error)):
        list(map(received.read, received.namelist()))


def test_answers_can_be_short_and_yet_complete(api, archive, image, phantom):
    true = api.get("/v4/getSingleImage", params=image).content
    rows = api.get("/v4/getSeries").json()
    archive.faults(rules=[{"do": "short"}])
    assert api.get("/v4/getSingleImage", params=image).content == true[: len(true) // 2]
    assert len(api.get("/v4/getSeries").json()) == len(rows) // 2
    zipped = api.get("/v4/getImage", params={"SeriesInstanceUID": phantom, "IncludeMD5": "Yes"}).content
    received = zipfile.ZipFile(io.BytesIO(zipped))
    assert received.testzip() is None
    assert len(received.namelist()) == 1 + 60
    form = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "10"}
    found = api.post("/v4/getSimpleSearch", data=form).json()
    assert len(found["resultSet"]) == 5 < found["totalPatients"]


def test_a_stall_sends_no_head(api, archive):
    archive.faults(rules=[{"do": "stall", "times": 1}])
    with pytest.raises(httpx.ReadTimeout), api.stream("GET", "/v4/getPatient", timeout=0.2):
        pytest.fail("a head came")
    assert api.get("/v4/getPatient").status_code == 200


@pytest.mark.parametrize("path", ["/v4/getPatient", "/v4/getSeries"])
def test_a_body_can_stall_half_way(api, archive, path):
    length = len(api.get(path).content)
    archive.faults(rules=[{"do": "stall_body", "times": 1}])
    received: list[bytes] = []
    with api.stream("GET", path, timeout=0.2) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            received.extend(answer.iter_raw())
    assert sum(map(len, received)) == length // 2


@pytest.mark.parametrize("path", ["/v4/getPatient", "/v4/getSeries"])
def test_the_connection_can_be_cut_half_way(api, archive, path):
    length = len(api.get(path).content)
    archive.faults(rules=[{"do": "cut", "times": 1}])
    received: list[bytes] = []
    with api.stream("GET", path) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
            received.extend(answer.iter_raw())
    assert sum(map(len, received)) == length // 2
    assert api.get(path).status_code == 200


def test_an_image_can_be_cut_half_way(api, archive, image, phantom):
    archive.faults(rules=[{"do": "cut"}])
    for path, params in (("getSingleImage", image), ("getImage", {"SeriesInstanceUID": phantom})):
        with pytest.raises(httpx.RemoteProtocolError):
            api.get(f"/v4/{path}", params=params)


def test_a_body_can_trickle(api, archive):
    length = len(api.get("/v4/getPatient").content)
    archive.faults(rules=[{"do": "trickle", "bytes_per_second": length * 2}])
    start = time.monotonic()
    pieces = []
    with api.stream("GET", "/v4/getPatient") as answer:
        pieces = list(answer.iter_raw())
    assert sum(map(len, pieces)) == length
    assert len(pieces) > 5
    assert 0.4 < time.monotonic() - start < 2


def test_one_answer_can_be_late(api, archive):
    archive.faults(rules=[{"do": "delay", "ms": 200, "times": 1}])
    start = time.monotonic()
    assert api.get("/v4/getPatient").json()
    assert 0.2 <= time.monotonic() - start < 2


def test_latency_and_bandwidth_hold_for_every_connection(api, archive, image):
    archive.faults(latency_ms=100, bandwidth_mbit=8)
    start = time.monotonic()
    length = len(api.get("/v4/getSingleImage", params=image).content)
    assert 0.1 + length / 1e6 <= time.monotonic() - start < 2


async def test_connections_share_a_line_and_none_is_faster_than_its_own(archive, image):
    async def get_one(client, seconds):
        start = trio.current_time()
        content = (await client.get("/v4/getSingleImage", params=image)).content
        seconds.append(trio.current_time() - start)
        assert len(content) > 131_072

    async with httpx.AsyncClient(base_url=archive.url, trust_env=False, timeout=10) as client:
        for count, least in ((1, 0.13), (4, 0.26)):
            archive.faults(bandwidth_mbit=8, total_mbit=16)
            seconds: list[float] = []
            async with trio.open_nursery() as nursery:
                for _ in range(count):
                    nursery.start_soon(get_one, client, seconds)
            # Four get as much of the line as two would alone, and all of them the same.
            assert len(seconds) == count
            assert min(seconds) > 0.8 * least
            assert least <= max(seconds) < 2


async def test_requests_are_counted_and_so_are_those_open_at_once(archive):
    archive.faults(latency_ms=200)
    async with httpx.AsyncClient(base_url=archive.url, trust_env=False) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(client.get, "/v4/getPatient")
        await client.post("/v4/getImageDrillDown", data={"list": ["7", "8"]})
        await client.get("/v1/getPatient?Collection=Demo+MR")
        await client.post("/getImageDrillDown")
    assert archive.requests() == {
        "v4/getPatient": 4,
        "v4/getImageDrillDown": 1,
        "v1/getPatient": 1,
        "getImageDrillDown": 1,
    }
    assert archive.high_water() == {
        "v4/getPatient": 4,
        "v4/getImageDrillDown": 1,
        "v1/getPatient": 1,
        "getImageDrillDown": 1,
        "*": 4,
    }
    assert archive.log()[4:] == [
        "/nbia-api/services/v4/getImageDrillDown list=7&list=8",
        "/nbia-api/services/v1/getPatient?Collection=Demo+MR",
        "/nbia-api/services/getImageDrillDown",
    ]
    archive.reset()
    assert archive.requests() == {}
    assert archive.log() == []


async def test_a_request_is_open_no_longer_when_its_client_has_gone(archive):
    archive.faults(rules=[{"do": "stall", "times": 2}])
    async with httpx.AsyncClient(base_url=archive.url, trust_env=False) as client:
        for _ in range(2):
            with trio.move_on_after(0.1):
                await client.get("/v4/getPatient")
    assert archive.high_water()["v4/getPatient"] == 1


def test_a_switch_that_is_not_there_is_refused(archive):
    for switches in ({"speed": 1}, {"rules": [{"do": "explode"}]}, {"rules": [{"do": "cut", "time": 1}]}):
        with pytest.raises(ValueError, match="error"):
            archive.faults(**switches)
