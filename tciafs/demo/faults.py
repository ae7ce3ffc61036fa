"""Switches by which the archive misbehaves on purpose, and what each does to an answer.

`latency_ms`: wait before every answer. `bandwidth_mbit`: the speed of each connection; `total_mbit`: of
all of them together. `disabled`: endpoints that are not there ("v4/getImageDrillDown", or
"getImageDrillDown" for the unversioned one). `interfaces`: those that are there, of INTERFACES.
`lacking_columns`: what lists of v1, v2 and v4 do not have, as servers that are older than a column.
`ranges`: single images are given in ranges, which NBIA's
server does not do but other archives do. `rules`: faults of single answers, see `Rule`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Literal, get_args

from tciafs.demo.answers import COMPLAINT, JSON, Answer

Fault = Literal[
    "status",  # `status`, with `retry_after`, `body` and `content_type` if given
    "html",  # 200 and a web page
    "empty",  # 200 and no body
    "malformed",  # the first half of the JSON, as if complete
    "corrupt",  # the right length, with some bytes flipped in the middle
    "elsewhere",  # of a range, the bytes that follow it, and a head that says so
    "short",  # complete in itself, with half of the rows, files or bytes
    "delay",  # faithful, after `ms`
    "trickle",  # faithful, at `bytes_per_second`
    "stall",  # nothing, not even a head, until the client gives up
    "stall_body",  # the head and half of the body, then nothing until the client gives up
    "cut",  # the head and half of the body, then the connection is dropped
]

INTERFACES = ("v1", "v2", "v4", "unversioned")
_PAGE = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body>Back soon.</body></html>"
_FLIPPED = 16


@dataclass(slots=True, kw_only=True)
class Rule:
    """A fault for the next `times` answers (all, when None) of `endpoint`, after `skip` faithful ones.

    `endpoint` is a name for all its versions, "version/name" for one, or "*"; `match` must occur in the query
    or form.
    """

    do: Fault
    endpoint: str = "*"
    times: int | None = None
    skip: int = 0
    match: str = ""
    status: int = 500
    retry_after: str | int | None = None
    body: str | None = None
    content_type: str | None = None
    ms: float = 0
    bytes_per_second: float = 1024

    def __post_init__(self) -> None:
        if self.do not in get_args(Fault):
            raise ValueError(f"no such fault: {self.do}")

    def takes(self, endpoint: str, query: str) -> bool:
        """Tell whether this answer is to fail, and count it."""
        named = self.endpoint in ("*", endpoint, endpoint.rpartition("/")[2])
        if not named or self.match not in query or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class Switches:
    """What is switched on; rules count down."""

    latency_ms: float = 0
    bandwidth_mbit: float = 0
    total_mbit: float = 0
    disabled: Sequence[str] = ()
    interfaces: Sequence[str] = INTERFACES
    lacking_columns: Sequence[str] = ()
    ranges: bool = False
    rules: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.interfaces) - set(INTERFACES):
            raise ValueError(f"no such interface: {', '.join(sorted(unknown))}")

    def has(self, version: str, name: str) -> bool:
        """Tell whether an endpoint is there, as far as it is switched."""
        key = f"{version}/{name}" if version else name
        return (version or "unversioned") in self.interfaces and key not in self.disabled

    def changed(self, wanted: Mapping[str, Any]) -> Switches:
        """Return these switches with those that are `wanted`, given as JSON."""
        rules = [Rule(**rule) for rule in wanted.get("rules", ())]
        return replace(self, **{**wanted, "rules": rules})

    def rule_for(self, endpoint: str, query: str) -> Rule | None:
        """Return the first rule that takes this request."""
        return next((rule for rule in self.rules if rule.takes(endpoint, query)), None)


def damaged(rule: Rule, answer: Answer) -> Answer:
    """Return `answer` with the fault in it, if the fault is one of content and not of delivery."""
    match rule.do:
        case "status":
            return _refused(rule)
        case "html":
            return Answer(200, _PAGE, "text/html")
        case "empty":
            return Answer(200)
        case "malformed":
            body = answer.content()
            return replace(answer, body=body[: (len(body) + 1) // 2] or b'[{"', content_type=JSON)
        case "corrupt":
            return replace(answer, body=_flipped(answer.content()))
        case "short":
            return _shorter(answer)
        case _:
            return answer


def _refused(rule: Rule) -> Answer:
    """Fail as the archive does (500, 401), or as the proxy before it does (any other)."""
    status = HTTPStatus(rule.status)
    page = f"<html><head><title>{status.value} {status.phrase}</title></head><body>nginx</body></html>"
    usual = {401: ("", None), 500: (f"{COMPLAINT}\nnull", "text/plain")}
    body, content_type = usual.get(status, (page, "text/html"))
    headers = () if rule.retry_after is None else (("Retry-After", str(rule.retry_after)),)
    return Answer(
        status,
        (body if rule.body is None else rule.body).encode(),
        rule.content_type or content_type,
        headers,
    )


def _flipped(body: bytes) -> bytes:
    start = max(0, len(body) // 2 - _FLIPPED // 2)
    middle = bytes(byte ^ 0xFF for byte in body[start : start + _FLIPPED])
    return body[:start] + middle + body[start + _FLIPPED :]


def _shorter(answer: Answer) -> Answer:
    if answer.shorter:
        return answer.shorter()
    body = answer.content()
    if answer.content_type == JSON:
        content = json.loads(body)
        rows = content["resultSet"] if isinstance(content, dict) else content
        del rows[len(rows) // 2 :]
        return replace(answer, body=json.dumps(content, ensure_ascii=False).encode())
    return replace(answer, body=body[: len(body) // 2])
