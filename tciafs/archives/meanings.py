"""What a server's answers mean: statuses and failures as one of a few errors, JSON as what was asked for."""

from __future__ import annotations

import email.utils
import math
import re
import time
from typing import TypeVar, get_origin

import httpx
import msgspec

from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused, Unavailable, Unsupported

Answer = TypeVar("Answer")

CONNECT_SECONDS = 5.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def error_of(endpoint: str, response: httpx.Response, body: str) -> ArchiveError:
    """Tell what a status other than 200 means (nbia-api 2.0: 500 is the universal error)."""
    status = response.status_code
    if status == 200:
        return BadAnswer(f"{endpoint}: the whole came instead of a range")
    said = f"{endpoint}: HTTP {status}" + (f", {one_line(body)}" if body.strip() else "")
    if status in (401, 403):
        return Refused(said)
    if status in (429, 502, 503, 504):
        return Unavailable(said, _retry_after(response))
    if status == 500 and re.search(r"^HTTP 40[45] ", body, re.MULTILINE):  # no proxy's page says it so
        return Unsupported(said)
    if status >= 500:
        return Failed(said)
    if 300 <= status < 400:
        where = one_line(response.headers.get("location", "elsewhere"))
        return BadAnswer(f"{endpoint}: the server redirects to {where}; give that address as --archive")
    return BadAnswer(said)


def check_range(endpoint: str, response: httpx.Response, span: range, size: int) -> None:
    """Raise where the bytes that come are not those of `span` (RFC 9110 section 14.4)."""
    found = response.headers.get("content-range", "")
    wanted = f"bytes {span.start}-{span.stop - 1}/"
    total = found.removeprefix(wanted)
    if not found.startswith(wanted) or total not in (str(size), "*"):
        raise BadAnswer(f"{endpoint}: '{one_line(found)}' came instead of '{wanted}{size}'")


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that Retry-After asks for, in either form of RFC 9110 section 10.2.3."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def decode(endpoint: str, body: bytes, kind: type[Answer]) -> Answer:
    """Return an answer in JSON as `kind`; raise `BadAnswer` where it is none."""
    if get_origin(kind) is list and body.lstrip().startswith(b"{"):
        body = b"[" + body + b"]"  # seen: one row comes bare (nbia-api 7)
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as exc:
        raise BadAnswer(
            f"{endpoint}: the answer has another shape than NBIA's: {one_line(str(exc))}"
        ) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        what = "a web page" if body.lstrip()[:1] == b"<" else "broken JSON"
        raise BadAnswer(f"{endpoint}: {what} came instead of a listing") from exc
    except RecursionError as exc:
        raise BadAnswer(f"{endpoint}: the answer is nested deeper than any listing") from exc


def meaning_of(exc: httpx.HTTPError) -> str:
    """Return in words how a request failed before there was an answer."""
    if isinstance(exc, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:.0f} s"
    if isinstance(exc, httpx.TimeoutException):
        return "the archive is silent"
    return one_line(str(exc)) or type(exc).__name__


def one_line(text: str) -> str:
    """Return what another party sent as one short line without control characters."""
    return _CONTROL.sub("?", " ".join(text.split()))[:200]
