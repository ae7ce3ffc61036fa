"""A part of a file, as an archive gives it that honours Range (RFC 9110 section 14): NBIA's does not."""

from __future__ import annotations

import re
from dataclasses import replace

from tciafs.demo.answers import Answer

_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


def in_range(answer: Answer, wanted: str | None, shift: int = 0) -> Answer:
    """Return the part of a file that a Range header asks for, or the one `shift` lengths after it."""
    asked = _RANGE.fullmatch(wanted or "")
    if asked is None or answer.status != 200:
        return answer
    whole = answer.content()
    first, last = int(asked[1]), min(int(asked[2]), len(whole) - 1)
    if first > last:
        return replace(answer, status=416, body=b"", headers=(("Content-Range", f"bytes */{len(whole)}"),))
    length = (last - first + 1) * shift
    head = ("Content-Range", f"bytes {first + length}-{last + length}/{len(whole)}")
    body = whole[first + length : last + length + 1]
    return replace(answer, status=206, body=body, headers=(*answer.headers, head))
