"""What answers below /nbia-api: finds the endpoint, applies the rules common to all, and the faults.

The rules are those of nbia-api, section 2.0: whatever fails is a 500 that names the reason.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from tciafs.demo import (
    carts,
    descriptions,
    digests,
    images,
    legacy,
    listings,
    metadata,
    search,
    studies,
)
from tciafs.demo.answers import FORMATS, Answer, Endpoint, Question, Refusal, bad_request, server_error
from tciafs.demo.dataset import Dataset
from tciafs.demo.delivery import Manner, Trunk, deliver
from tciafs.demo.faults import Rule, Switches, damaged
from tciafs.demo.journal import Journal
from tciafs.demo.ranges import in_range
from tciafs.demo.tokens import PATHS, Tokens

_PATH = re.compile(r"/nbia-api/(?:services/)?(?:(v[124])/)?(.*)", re.DOTALL)
_FORM = "application/x-www-form-urlencoded"
_log = logging.getLogger(__name__)


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return what the archive has in `version` of the API, "" for what has none."""
    rooms = (
        carts,
        descriptions,
        legacy,
        metadata,
        search,
        studies,
        *((listings, images, digests) if version else ()),
    )
    return {name: each for room in rooms for name, each in room.endpoints(version).items()}


class Service:
    """The NBIA API over a dataset, with switches for faults and a journal of requests."""

    def __init__(self, dataset: Dataset, usual: Switches) -> None:
        self.dataset = dataset
        self.journal = Journal()
        self.usual = usual
        self.switch(usual)
        self.tokens = Tokens()
        self._endpoints = {version: endpoints(version) for version in ("v1", "v2", "v4", "")}
        self._endpoints[""] |= self.tokens.endpoints()

    def switch(self, switches: Switches) -> None:
        """Answer as `switches` say from now on."""
        self.switches = switches
        self._trunk = Trunk(switches.total_mbit * 1e6 / 8) if switches.total_mbit else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        request = Request(scope, receive)
        match = _PATH.fullmatch(scope["path"])
        version, name = (match[1] or "", match[2]) if match else ("", scope["path"])
        key = f"{version}/{name}" if version else name
        query = scope["query_string"].decode("latin-1")
        try:
            form = (await request.body()).decode("utf-8", "replace")
        except ClientDisconnect:
            return
        asked = "&".join(part for part in (query, form) if part)
        told = "" if name in PATHS else form  # passwords are in no journal
        line = scope["path"] + (f"?{query}" if query else "") + (f" {told}" if told else "")
        with self.journal.request(key, line) as end:
            rule = self.switches.rule_for(key, asked)
            answer = self._answer(request, version, name, form if request.method == "POST" else query)
            if self.switches.ranges and name == "getSingleImage":
                shift = 1 if rule and rule.do == "elsewhere" else 0
                answer = in_range(answer, request.headers.get("range"), shift)
            if rule:
                answer = damaged(rule, answer)
            await deliver(answer, self.manner(rule), receive, send, end)

    def manner(self, rule: Rule | None = None) -> Manner:
        """Return how to send an answer that `rule` took, or none did."""
        delay = self.switches.latency_ms / 1000
        speed = self.switches.bandwidth_mbit * 1e6 / 8 or inf
        usual = Manner(delay, speed, trunk=self._trunk)
        if rule is None:
            return usual
        match rule.do:
            case "delay":
                return replace(usual, delay=delay + rule.ms / 1000)
            case "trickle":
                return replace(usual, bytes_per_second=min(speed, rule.bytes_per_second))
            case "stall" | "stall_body" | "cut":
                return replace(usual, stop=rule.do)
            case _:
                return usual

    def _answer(self, request: Request, version: str, name: str, asked: str) -> Answer:
        try:
            endpoint = self._endpoint(request, version, name)
            closed = self.tokens.closed_to(version, name, request.headers.get("authorization"))
            parameters = parse_qsl(asked, keep_blank_values=True)
            if endpoint.allowed is not None:
                known = [pair for pair in parameters if pair[0] in endpoint.allowed]
                if version == "v4" and known != parameters:
                    raise _unknown_parameter(parameters, endpoint, request.headers.get("accept"))
                parameters = known
            lacking = self.switches.lacking_columns
            question = Question(self.dataset, version, parameters, lacking, closed)
            if not all(map(question.get, endpoint.required)):
                raise bad_request(endpoint.complaint)
            return endpoint.answer(question)
        except Refusal as refusal:
            return refusal.answer
        except Exception as exc:
            _log.exception("The embedded archive failed to answer %s", name)
            return server_error(repr(exc)).answer

    def _endpoint(self, request: Request, version: str, name: str) -> Endpoint:
        """Find the endpoint, with the errors of JAX-RS where there is none for such a request."""
        endpoint = self._endpoints[version].get(name)
        is_there = self.switches.has(version, name) or name in PATHS
        if endpoint is None or not is_there:
            raise server_error("HTTP 404 Not Found")
        method = "GET" if request.method == "HEAD" else request.method
        if method != endpoint.method:
            raise server_error("HTTP 405 Method Not Allowed")
        if _first_accepted(request.headers.get("accept"), endpoint.produces) is None:
            raise server_error("HTTP 406 Not Acceptable")
        if method == "POST" and request.headers.get("content-type", _FORM).partition(";")[0] != _FORM:
            raise server_error("HTTP 415 Unsupported Media Type")
        if version in ("v2", "") and name not in PATHS and "authorization" not in request.headers:
            raise server_error("null")
        return endpoint


def _unknown_parameter(
    parameters: Sequence[tuple[str, str]], endpoint: Endpoint, accept: str | None
) -> Refusal:
    """Refuse what is not on the whitelist: only v4 has one, before it such parameters are ignored."""
    allowed = endpoint.allowed or ()
    name = next(name for name, _ in parameters if name not in allowed)
    kind = "form" if endpoint.method == "POST" else "query"
    text = f"Invalid {kind} parameter: '{name}'. Allowed parameters are: [{', '.join(set(allowed))}]"
    return bad_request(text, _first_accepted(accept, endpoint.produces) or FORMATS[0])


def _first_accepted(accept: str | None, produced: Sequence[str]) -> str | None:
    """Return the first type that is both accepted and produced (weights are not looked at)."""
    for item in (accept or "*/*").split(","):
        wanted = item.partition(";")[0].strip()
        for content_type in produced:
            if wanted in ("*/*", content_type, content_type.partition("/")[0] + "/*"):
                return content_type
    return None
