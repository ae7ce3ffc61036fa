"""Every way in which a server can fail has one meaning, and no failure costs more than it must.

The embedded archive fails where it can; what it cannot send is sent by a scripted server.
"""

import email.utils
import gc
import gzip
import json
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tciafs import __version__
from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused, Unavailable, Unsupported
from tciafs.archives.http import Http
from tciafs.archives.meanings import one_line

ROWS = list[dict[str, str]]
COLLECTIONS = "v4/getCollectionValues"
NGINX_404 = (
    "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
    "<center><h1>404 Not Found</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


@pytest.fixture
async def http(archive):
    async with Http.connect(archive.url) as http:
        yield http


@pytest.fixture
def clock():
    """Jump over what is only waited for; the scripted server shares this clock, so none of it is missed."""
    return trio.testing.MockClock(autojump_threshold=0.02)


@pytest.fixture
def image(archive):
    """Return the parameters of a getSingleImage of 132 kB."""
    params = {"Collection": "Demo-CT", "PatientID": "PHANTOM-01", "Modality": "CT"}
    series = _ask(archive, "v4/getSeries", params)[0]["SeriesInstanceUID"]
    uids = _ask(archive, "v4/getSOPInstanceUIDs", {"SeriesInstanceUID": series})
    archive.reset()
    return {"SeriesInstanceUID": series, "SOPInstanceUID": min(uid["SOPInstanceUID"] for uid in uids)}


def _ask(archive, endpoint, params):
    return httpx.get(f"{archive.url}/{endpoint}", params=params, trust_env=False).json()


def fail(archive, status, endpoint=COLLECTIONS, **rule):
    archive.faults(rules=[{"do": "status", "status": status, "endpoint": endpoint, **rule}])


class Script:
    """What a scripted server sends to one request after the other, the last for ever; and what it got."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.asked_at: list[float] = []
        self.url = ""

    async def __call__(self, stream: trio.SocketStream) -> None:
        got = b""
        while b"\r\n\r\n" not in got:
            got += await stream.receive_some(65536)
        self.asked.append(got)
        self.asked_at.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        try:
            for piece in answer if isinstance(answer, list) else [answer]:
                if isinstance(piece, bytes):
                    await stream.send_all(piece)
                else:
                    await trio.sleep(piece)
        except trio.BrokenResourceError:
            pass  # the client has heard enough
        await stream.aclose()


@asynccontextmanager
async def serving(*answers: Any):
    """Run a scripted server, and hold a client of it."""
    script = Script(*answers)
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, script, [listener])
        script.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        async with Http.connect(script.url) as http:
            yield script, http
        nursery.cancel_scope.cancel()


def answer(status: int, body: bytes | str = b"", *headers: str, length: int | None = None) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Whatever", *headers, "Connection: close"]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def complaint(said: str) -> str:
    return f"Server was not able to process your request\n{said}"


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (401, None, Refused),
        (403, None, Refused),
        (429, None, Unavailable),
        (502, None, Unavailable),
        (503, None, Unavailable),
        (504, None, Unavailable),
        (500, None, Failed),
        (500, complaint("HTTP 404 Not Found"), Unsupported),
        (500, complaint("HTTP 405 Method Not Allowed"), Unsupported),
        (500, complaint("HTTP 406 Not Acceptable"), Failed),
        (500, complaint("No entity of HTTP 404 Not Found"), Failed),
        (501, complaint("HTTP 404 Not Found"), Failed),
        (404, NGINX_404, BadAnswer),
        (404, complaint("HTTP 404 Not Found"), BadAnswer),
        (400, "Invalid query parameter: 'x'. Allowed parameters are: [format]", BadAnswer),
        (422, None, BadAnswer),
        (204, "", BadAnswer),
    ],
)
async def test_each_status_has_its_meaning(http, archive, status, body, meaning):
    fail(archive, status, body=body)
    with pytest.raises(ArchiveError) as caught:
        await http.post_json(COLLECTIONS, [], ROWS, attempts=1)
    assert type(caught.value) is meaning
    assert str(caught.value).startswith(f"{COLLECTIONS}: HTTP {status}")
    assert http.last_error == (None if meaning is Unsupported else str(caught.value))
    with pytest.raises(ArchiveError) as caught:
        await receive(http, COLLECTIONS)
    assert type(caught.value) is meaning


@pytest.mark.parametrize(
    ("status", "body", "retry_after", "asked"),
    [
        (401, None, None, 1),
        (400, "no", None, 1),
        (404, NGINX_404, None, 1),
        (500, complaint("HTTP 404 Not Found"), None, 1),
        (500, None, None, 3),
        (503, None, None, 3),
        (503, None, 0, 3),
        (429, None, 0, 3),
    ],
)
async def test_only_what_may_pass_is_asked_again(http, archive, status, body, retry_after, asked):
    fail(archive, status, body=body, retry_after=retry_after)
    with pytest.raises(ArchiveError):
        await http.get_json(COLLECTIONS, {}, ROWS)
    assert archive.requests() == {COLLECTIONS: asked}
    assert http.requests == {COLLECTIONS: asked}


@pytest.mark.parametrize("do", ["html", "malformed", "empty"])
async def test_an_answer_that_cannot_be_believed_is_not_asked_for_again(http, archive, do):
    archive.faults(rules=[{"do": do}])
    try:
        assert await http.get_json(COLLECTIONS, {}, ROWS) is None
    except BadAnswer:
        assert do != "empty"
    assert archive.requests() == {COLLECTIONS: 1}


@pytest.mark.parametrize("rule", [{"do": "status", "status": 503}, {"do": "status"}, {"do": "cut"}])
async def test_one_passing_failure_is_never_seen(http, archive, rule):
    archive.faults(rules=[{**rule, "times": 1}])
    assert len(await http.get_json(COLLECTIONS, {}, ROWS)) == 3
    assert archive.requests() == {COLLECTIONS: 2}
    assert http.state == "up"
    assert http.last_error.startswith(COLLECTIONS)


async def test_fewer_attempts_can_be_asked_for(http, archive):
    fail(archive, 500, "v4/getSimpleSearch")
    with pytest.raises(Failed):
        await http.post_json("v4/getSimpleSearch", [("start", "0")], ROWS, attempts=2)
    assert archive.requests() == {"v4/getSimpleSearch": 2}


async def test_a_form_keeps_repeated_fields_and_its_headers(http, archive):
    form = [("list", "1"), ("x", "é &"), ("list", "2")]
    headers = {"Authorization": "Bearer undefined"}
    assert await http.post_json("getImageDrillDown", form, list[dict[str, Any]], headers) == []
    assert archive.log() == ["/nbia-api/services/getImageDrillDown list=1&list=2&x=%C3%A9+%26"]


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("Location: https://elsewhere.example/nbia-api", "https://elsewhere.example/nbia-api"),
        ("X: y", "elsewhere"),
    ],
)
async def test_a_redirect_is_an_error_that_names_the_address(location, said):
    async with serving(answer(301, "", location)) as (script, http):
        with pytest.raises(BadAnswer, match=f"^e: the server redirects to {said}; give that address"):
            await http.get_json("e", {}, ROWS)
        with pytest.raises(BadAnswer, match=f"redirects to {said};"):
            await receive(http)
        assert len(script.asked) == 2


async def test_the_state_tells_whether_the_server_is_up(http, archive):
    began = http.since
    assert (http.state, http.last_error) == ("unknown", None)
    await http.get_json(COLLECTIONS, {}, ROWS)
    assert (http.state, http.last_error) == ("up", None)
    up_since = http.since
    await http.get_json(COLLECTIONS, {}, ROWS)
    assert began < up_since == http.since
    fail(archive, 503, retry_after=0)
    with pytest.raises(Unavailable):
        await http.get_json(COLLECTIONS, {}, ROWS)
    assert http.state == "down"
    assert up_since < http.since < time.time()
    fail(archive, 401)
    with pytest.raises(Refused):
        await http.get_json(COLLECTIONS, {}, ROWS)
    assert http.state == "down"
    archive.faults()
    await http.get_json(COLLECTIONS, {}, ROWS)
    assert http.state == "up"


async def test_whoever_asks_says_who_it_is(http):
    async with serving(answer(200, "[]")) as (script, http):
        await http.get_json("e", {}, ROWS)
        await http.post_json("e", [("a", "b")], ROWS)
        async with http.stream("e", {}, 5) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == b"[]"
        for asked in script.asked:
            assert f"\r\nuser-agent: tciafs/{__version__}\r\n" in asked.decode().lower()
            assert "\r\naccept: */*\r\n" in asked.decode().lower()
        assert b"\r\naccept-encoding: identity\r\n" in script.asked[-1].lower()


# What an answer of JSON can be.


@pytest.mark.parametrize("body", [b"", b" \r\n"])
async def test_an_empty_body_is_no_answer_and_no_error(body):
    async with serving(answer(200, body)) as (_, http):
        assert await http.get_json("e", {}, ROWS) is None


async def test_a_bare_row_is_a_listing_of_one():
    async with serving(answer(200, ' {"a": "1"} ')) as (_, http):
        assert await http.get_json("e", {}, ROWS) == [{"a": "1"}]
        assert await http.get_json("e", {}, dict[str, str]) == {"a": "1"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('[{"a": "1"}', "broken JSON"),
        ("[] []", "broken JSON"),
        ('[{"a": "\\ud800"}]', "broken JSON"),
        (b'[{"a": "\xff"}]', "broken JSON"),
        ("<!DOCTYPE html><html>", "a web page"),
        (" <html>", "a web page"),
        ("null", "another shape"),
        ('[["a"]]', "another shape"),
        ('"\\u0007\\n"', "another shape"),
        ('[{"a": ' + "[" * 100_000, "nested deeper"),
    ],
)
async def test_an_answer_that_is_no_listing_is_a_bad_answer(body, said):
    async with serving(answer(200, body)) as (_, http):
        with pytest.raises(BadAnswer, match=said):
            await http.get_json("e", {}, list[dict[str, Any]] if "nested" in said else ROWS)


async def test_a_large_listing_comes_whole():
    rows = [{"a": str(number)} for number in range(100_000)]
    body = json.dumps(rows).encode()
    assert len(body) > 1_000_000
    async with serving(answer(200, body)) as (_, http):
        assert await http.get_json("e", {}, ROWS) == rows


async def test_a_compressed_answer_is_read():
    packed = gzip.compress(b'[{"a": "1"}]')
    async with serving(answer(200, packed, "Content-Encoding: gzip")) as (_, http):
        assert await http.get_json("e", {}, ROWS) == [{"a": "1"}]


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")  # httpx leaves its own open then
async def test_a_compressed_answer_that_is_damaged_is_a_failure():
    packed = gzip.compress(b'[{"a": "1"}]')
    compressed = "Content-Encoding: gzip"
    async with serving(answer(200, b"\0" + packed, compressed)) as (_, http):
        with pytest.raises(Unavailable):
            await http.get_json("e", {}, ROWS)


async def test_a_short_text_comes_without_what_surrounds_it():
    async with serving(answer(200, b" abc\xff\n")) as (_, http):
        assert await http.get_text("e", {}) == "abc\N{REPLACEMENT CHARACTER}"


# What a connection can do.


async def test_a_refused_connection_is_unavailable(clock):
    async with serving(answer(200)) as (script, _):
        url = script.url
    async with Http.connect(url) as http:
        with pytest.raises(Unavailable, match=r"^e: all attempts to connect to 127\.0\.0\.1:.* failed$"):
            await http.get_json("e", {}, ROWS)
        assert http.requests == {"e": 3}
        with pytest.raises(Unavailable, match=r"^e: all attempts to connect to 127\.0\.0\.1:.* failed$"):
            await receive(http)
        assert http.requests == {"e": 4}
        assert http.state == "down"


@pytest.mark.parametrize(
    "sent",
    [b"", b"HTTP/1.1 2", b"nonsense\r\n\r\n", answer(200, "[", length=10), answer(200, "[", length=-1)],
    ids=["nothing", "half a head", "no HTTP", "half a body", "an impossible length"],
)
async def test_a_connection_that_breaks_off_is_unavailable_and_tried_thrice(clock, sent):
    async with serving(sent) as (script, http):
        with pytest.raises(Unavailable) as caught:
            await http.get_json("e", {}, ROWS)
        assert len(script.asked) == 3
        assert len(str(caught.value)) > len("e: ")


async def test_a_server_that_falls_silent_is_unavailable(clock):
    half = [answer(200, "[", length=10), 1e9]
    async with serving([1e9], half, answer(200, "[]")) as (script, http):
        assert await http.get_json("e", {}, ROWS) == []
        assert len(script.asked) == 3
        assert http.last_error == "e: the archive is silent"
        assert 120 <= trio.current_time() < 125


async def test_an_address_that_swallows_connections_is_given_up_soon(clock):
    with trio.socket.socket() as full:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                async with await trio.open_tcp_stream(*address):
                    await trio.sleep_forever()

            for _ in range(3):  # what fills the queue
                nursery.start_soon(connect)
            await trio.sleep(0.1)
            async with Http.connect(f"http://127.0.0.1:{address[1]}") as http:
                with pytest.raises(Unavailable, match="e: no connection within 5 s"):
                    await http.get_json("e", {}, ROWS)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("spelled", "seconds"),
    [
        ("7", 7),
        ("2.5", 2.5),
        ("3600", 30),
        ("-5", 0),
        ("in 20 s", 20),
        ("in 3600 s", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ],
)
async def test_retry_after_is_honoured_up_to_half_a_minute(clock, spelled, seconds):
    if spelled.startswith("in "):
        spelled = email.utils.formatdate(time.time() + float(spelled.split()[1]), usegmt=True)
    assert await pause_before_the_next_attempt(spelled) == pytest.approx(seconds, abs=1.5)


async def pause_before_the_next_attempt(retry_after: str) -> float:
    busy = answer(429, "", f"Retry-After: {retry_after}")
    async with serving(busy, answer(200, "[]")) as (script, http):
        assert await http.get_json("e", {}, ROWS) == []
        first, second = map(float, script.asked_at)
        return second - first


async def test_a_nonsensical_retry_after_is_as_good_as_none(clock):
    nonsense = [
        "",
        "soon",
        "nan",
        "inf",
        "1, 2",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2030 00:00:00 +99999999999999999999",
        "Mon, 99 Jan 2030 00:00:00 GMT",
    ]
    for spelled in nonsense:
        assert await pause_before_the_next_attempt(spelled) < 1, spelled


async def test_attempts_come_after_a_short_pause_and_then_a_longer_one(clock):
    async with serving(answer(503)) as (script, http):
        with pytest.raises(Unavailable):
            await http.get_json("e", {}, ROWS)
        first, second, third = script.asked_at
        assert 0.1 <= second - first < 0.6
        assert 0.2 <= third - second < 0.7


async def test_questions_that_wait_for_their_next_attempt_take_nobody_s_turn(clock):
    busy = answer(503, "", "Retry-After: 20")
    async with serving(*[busy] * 4, answer(200, "[]")) as (script, http):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(http.get_json, "e", {}, ROWS)
            await trio.sleep(1)
            assert await http.get_json("e", {}, ROWS) == []
            assert trio.current_time() < 5
        assert trio.current_time() == pytest.approx(20, abs=2)
        assert len(script.asked) == 9


# Limits.


async def test_no_more_than_four_questions_and_eight_transfers_are_open_at_once(http, archive, image):
    archive.faults(latency_ms=300)
    finished = []

    async def ask() -> None:
        finished.append(await http.get_json("v4/getPatient", {}, list[dict[str, Any]]))

    async def fetch() -> None:
        async with http.stream("v4/getSingleImage", image, 5) as chunks:
            finished.append([chunk async for chunk in chunks])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
            nursery.start_soon(fetch)
            nursery.start_soon(fetch)
    assert len(finished) == 30
    high_water = archive.high_water()
    assert (high_water["v4/getPatient"], high_water["v4/getSingleImage"]) == (4, 8)


def fine(body: bytes = b"all of it") -> bytes:
    return answer(200, body, "Content-Type: application/dicom")


async def receive(http, endpoint="e", head_seconds=5.0) -> bytes:
    async with http.stream(endpoint, {}, head_seconds) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_an_image_is_streamed_as_it_comes(clock):
    async with serving([answer(200, b"first", length=11), 100, b"second"]) as (_, http):
        received = []
        async with http.stream("e", {"a": "b c"}, 5) as chunks:
            async for chunk in chunks:
                received.append((chunk, round(trio.current_time())))  # noqa: PERF401
        assert received == [(b"first", 0), (b"second", 100)]


@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8"])
async def test_a_web_page_is_no_image(content_type):
    async with serving(answer(200, "<html>", f"Content-Type: {content_type}")) as (script, http):
        with pytest.raises(BadAnswer, match="a web page came instead of an image"):
            await receive(http)
        assert len(script.asked) == 1


async def test_a_head_that_does_not_come_in_time_is_unavailable(clock):
    async with serving([20, fine()]) as (script, http):
        with pytest.raises(Unavailable, match=r"^e: no answer began within 12 s$"):
            await receive(http, head_seconds=12)
        assert trio.current_time() == pytest.approx(12, abs=0.5)
        assert await receive(http, head_seconds=30) == b"all of it"
        assert len(script.asked) == 2


async def test_a_body_may_take_longer_than_the_head(clock):
    async with serving([fine()[:-4], 500, fine()[-4:]]) as (_, http):
        assert await receive(http, head_seconds=5) == b"all of it"
        assert trio.current_time() >= 500


async def test_an_image_that_is_cut_half_way_is_unavailable(http, archive, image):
    archive.faults(rules=[{"do": "cut", "endpoint": "getSingleImage"}])
    received = bytearray()

    async def fetch() -> None:
        async with http.stream("v4/getSingleImage", image, 5) as chunks:
            async for chunk in chunks:
                received.extend(chunk)

    with pytest.raises(Unavailable, match=r"^v4/getSingleImage: peer closed connection"):
        await fetch()
    assert len(received) == 132398 // 2
    assert archive.requests() == {"v4/getSingleImage": 1}
    assert http.state == "down"


@pytest.mark.parametrize("rest", [[], [1e9]], ids=["breaks off", "stalls"])
async def test_an_error_whose_body_does_not_end_still_has_its_meaning(clock, rest):
    refusal = [answer(401, "log in first", length=1000), *rest]
    async with serving(refusal) as (script, http):
        with pytest.raises(Refused, match="e: HTTP 401, log in first"):
            await receive(http)
        with pytest.raises(Refused, match="e: HTTP 401, log in first"):
            await http.get_json("e", {}, ROWS)
        assert len(script.asked) == 2
        assert trio.current_time() < 10


async def test_a_long_error_is_told_shortly():
    async with serving(answer(400, b"no " * 100_000)) as (_, http):
        with pytest.raises(BadAnswer) as caught:
            await http.get_json("e", {}, ROWS)
        assert 100 < len(str(caught.value)) < 250


async def _fail_inside(http) -> None:
    async with http.stream("e", {}, 5) as chunks:
        async for _ in chunks:
            raise LookupError("the disk is full")


async def _cancel_inside(http) -> None:
    with trio.move_on_after(3) as scope:
        async with http.stream("e", {}, 5):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def _cancel_before(http) -> None:
    with trio.move_on_after(3) as scope:
        await receive(http)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("sent", "use", "error"),
    [
        (answer(500), receive, Failed),
        (answer(401), receive, Refused),
        (answer(200, "<", "Content-Type: text/html"), receive, BadAnswer),
        (b"", receive, Unavailable),
        ([100], receive, Unavailable),
        (answer(200, "half", length=10), receive, Unavailable),
        (fine(b"x" * 300_000), _fail_inside, LookupError),
        ([fine()[:-4], 1e9], _cancel_inside, None),
        ([1e9], _cancel_before, None),
        ([fine()[:-4], 1e9], _cancel_before, None),
    ],
)
async def test_a_transfer_makes_room_for_the_next_one_however_it_ended(
    clock, sent: Any, use: Callable[[Http], Any], error
):
    async with serving(*[sent] * 9, fine()) as (script, http):
        for _ in range(9):  # one more than may be open at once
            if error:
                with pytest.raises(error):
                    await use(http)
            else:
                await use(http)
        with trio.fail_after(5):
            assert await receive(http) == b"all of it"
        assert len(script.asked) == 10


async def test_a_cancelled_question_makes_room_for_the_next_one(clock):
    async with serving(*[[1e9]] * 5, answer(503, "", "Retry-After: 20"), answer(200, "[]")) as (script, http):
        for _ in range(5):
            with trio.move_on_after(3) as scope:
                await http.get_json("e", {}, ROWS)
            assert scope.cancelled_caught
        with trio.move_on_after(3) as scope:  # between two attempts
            await http.get_json("e", {}, ROWS)
        assert scope.cancelled_caught
        with trio.fail_after(5):
            assert await http.get_json("e", {}, ROWS) == []
        assert len(script.asked) == 7


# What is said about it.


@given(st.text() | st.text(st.sampled_from("a \n\r\t\x00\x1b\x85\u2028\u202e\ud800\x7f"), max_size=300))
def test_what_others_say_becomes_one_short_line_of_plain_characters(said):
    line = one_line(said)
    assert len(line) <= 200
    assert line.isprintable() or all(c.isprintable() or ord(c) > 0xA0 for c in line)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in line)
    assert len(line.splitlines()) <= 1
    line.encode()


def test_plain_words_stay_as_they_are():
    assert one_line("  Köln, 100 %\r\n works ") == "Köln, 100 % works"


async def test_nothing_that_a_server_says_breaks_the_line_of_a_message(clock, caplog):
    caplog.set_level("INFO", "tciafs")
    evil = b"a\r\nb\x1b[31m\x00\xff\xe2\x80\xae" * 100
    sent = [answer(500, evil), answer(401, evil), answer(302, "", "Location: \x1b[31m" + "x" * 500)]
    sent += [answer(200, b'"\\u001b\\n"'), b"HTTP/1.1 200 \x1b\x07 \r\n", b"\x1b[31m\r\n\r\n"]
    for each in sent:
        async with serving(each) as (_, http):
            with pytest.raises(ArchiveError) as caught:
                await http.get_json("e", {}, list[str])
            for said in (str(caught.value), http.last_error):
                assert said.isprintable()
                assert len(said) < 400
    assert all(record.getMessage().isprintable() for record in caplog.records if "tciafs" in record.name)


async def test_a_question_given_up_at_any_moment_leaves_nothing_to_the_garbage_collector(archive):
    async with Http.connect(archive.url) as http:
        form = [("list", "1")]
        await http.post_json("getImageDrillDown", form, Any)
        for turns in range(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(http.post_json, "getImageDrillDown", form, Any)
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            gc.collect()
