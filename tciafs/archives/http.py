"""One httpx client for one server: limits, retries, and every failure as one of a few meanings.

Of endpoints it knows only which want to hear who asks. Waiting for an answer is bounded by whoever
asks; here an attempt ends when the server has been silent for long.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import httpcore
import httpx
import stamina
import stamina.instrumentation
import trio

from tciafs import __version__
from tciafs.archives.authorized import Authorize, Authorized
from tciafs.archives.base import TRANSFERS, ArchiveError, BadAnswer, Failed, Unavailable, Unsupported
from tciafs.archives.bodies import send_at_once
from tciafs.archives.meanings import CONNECT_SECONDS, check_range, decode, error_of, meaning_of

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Form = Sequence[tuple[str, str]]

METADATA_REQUESTS = 4
LARGEST_JSON = 512_000_000  # bytes; the largest real listing is 315 MB
USER_AGENT = f"tciafs/{__version__}"

_METADATA_SILENCE = 60.0  # a collection's listing is computed for long before its first byte (nbia-api 7)
_ATTEMPTS = 3
_RETRY_AFTER_CAP = 30.0
_ERROR_SECONDS = 2.0  # for the body of an error, whose status says nearly all
_ERROR_BYTES = 2000
_DECODE_IN_THREAD = 1_000_000  # bytes; above, decoding would hold up the kernel's requests
_ERRORS_KEPT = 8  # enough that what many questions at once made up for leaves the one that counts

# A quarter of the turns, for bodies of which megabytes are at hand; httpcore reads 64 KiB.
httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = 256 << 10

stamina.instrumentation.set_on_retry_hooks([])  # retries are counted and logged here


def guest(endpoint: str) -> dict[str, str]:
    """Return what NBIA's web pages send for a guest: v2 and the unversioned endpoints fail without."""
    return {} if endpoint.startswith(("v1/", "v4/")) else {"Authorization": "Bearer undefined"}


class Http:
    """Ask one server: at most 4 metadata requests and 8 transfers at once."""

    def __init__(self, base_url: str, client: httpx.AsyncClient) -> None:
        self.base_url = base_url
        self.requests: Counter[str] = Counter()
        self._errors: deque[str] = deque(maxlen=_ERRORS_KEPT)
        self.state = "unknown"
        self.since = time.time()
        self._client = client
        self._metadata = trio.CapacityLimiter(METADATA_REQUESTS)
        self._transfers = trio.CapacityLimiter(TRANSFERS)

    @property
    def last_error(self) -> str | None:
        """Return the last failure that nothing made up for."""
        return self._errors[-1] if self._errors else None

    def forgive(self, error: ArchiveError) -> None:
        """Let a failure no longer be the last error: another question brought what was asked for."""
        left = [said for said in self._errors if said != str(error)]
        self._errors.clear()
        self._errors.extend(left)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, base_url: str, proxy: str | None = None, authorize: Authorize | None = None
    ) -> AsyncIterator[Http]:
        """Hold a pool of connections to `base_url`; nothing is sent before the first question.

        With `authorize`, all that is asked is asked with a login; its header takes the place of a guest's.
        """
        connections = TRANSFERS + METADATA_REQUESTS
        async with httpx.AsyncClient(
            proxy=proxy,
            auth=Authorized(authorize) if authorize else None,
            headers={"User-Agent": USER_AGENT, "Accept": "*/*"},
            event_hooks={"request": [send_at_once]},
            timeout=httpx.Timeout(_METADATA_SILENCE, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        ) as client:
            yield cls(base_url.rstrip("/") + "/", client)

    async def get_json(
        self, endpoint: str, params: Mapping[str, str], kind: type[Answer], largest: int = LARGEST_JSON
    ) -> Answer | None:
        """Return the decoded answer of a GET; None where the body is empty, NBIA's way to say nothing."""
        body = await self._ask(endpoint, "GET", params=params, largest=largest)
        return await self._decoded(endpoint, body, kind)

    async def post_json(
        self, endpoint: str, form: Form, kind: type[Answer], attempts: int = _ATTEMPTS
    ) -> Answer | None:
        """Return the decoded answer of a form's POST, which must be safe to repeat."""
        body = await self._ask(endpoint, "POST", attempts=attempts, data=_fields(form))
        return await self._decoded(endpoint, body, kind)

    async def post_text(self, endpoint: str, form: Form) -> str:
        """Return the short answer, in plain text, of a form's POST that is safe to repeat."""
        return _text(await self._ask(endpoint, "POST", data=_fields(form)))

    async def get_text(self, endpoint: str, params: Mapping[str, str]) -> str:
        """Return a short answer of plain text."""
        return _text(await self._ask(endpoint, "GET", params=params))

    @asynccontextmanager
    async def stream(
        self,
        endpoint: str,
        params: Mapping[str, str],
        head_seconds: float,
        span: range | None = None,
        size: int = 0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the body of a GET whose head must come within `head_seconds`: one attempt.

        With `span`, those bytes of a whole of `size` bytes, or an error. What goes wrong inside the block
        is translated as well.
        """
        async with (
            self._transfers,
            self._streamed(endpoint, params, head_seconds, None, span, size) as chunks,
        ):
            yield chunks

    @asynccontextmanager
    async def stream_listing(
        self, endpoint: str, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream the body of a GET that lists more than fits into memory: one attempt."""
        silence = _METADATA_SILENCE
        async with self._metadata, self._streamed(endpoint, params, silence, silence) as chunks:
            yield chunks

    @asynccontextmanager
    async def _streamed(
        self,
        endpoint: str,
        params: Mapping[str, str],
        head_seconds: float,
        silence: float | None,
        span: range | None = None,
        size: int = 0,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.requests[endpoint] += 1
        with self._translated(endpoint):
            response = await self._head_of(endpoint, params, head_seconds, silence, span)
            try:
                if response.status_code != (200 if span is None else 206):
                    raise error_of(endpoint, response, await _start_of(response))
                if span is not None:
                    check_range(endpoint, response, span, size)
                if response.headers.get("content-type", "").lower().startswith("text/html"):
                    what = "an image" if silence is None else "a listing"
                    raise BadAnswer(f"{endpoint}: a web page came instead of {what}")
                self._note_up()
                async with _chunks_of(response) as chunks:
                    yield chunks
            finally:
                with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                    await response.aclose()

    async def _head_of(
        self,
        endpoint: str,
        params: Mapping[str, str],
        seconds: float,
        silence: float | None,
        span: range | None,
    ) -> httpx.Response:
        headers = {"Accept-Encoding": "identity", **guest(endpoint)}
        if span is not None:
            headers["Range"] = f"bytes={span.start}-{span.stop - 1}"
        request = self._client.build_request(
            "GET",
            self.base_url + endpoint,
            params=params,
            headers=headers,
            timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS, pool=None),
        )
        with trio.move_on_after(seconds):
            return await self._client.send(request, stream=True)
        raise Unavailable(f"{endpoint}: no answer began within {seconds:.0f} s")

    async def _decoded(self, endpoint: str, body: bytes, kind: type[Answer]) -> Answer | None:
        if not body.strip():
            return None
        with self._translated(endpoint):
            if len(body) > _DECODE_IN_THREAD:
                return await trio.to_thread.run_sync(decode, endpoint, body, kind)
            return decode(endpoint, body, kind)

    async def _ask(self, endpoint: str, method: str, attempts: int = _ATTEMPTS, **request: Any) -> bytes:
        retries = stamina.retry_context(
            on=_worth_another_try, attempts=attempts, wait_initial=0.1, wait_max=5.0, wait_jitter=0.3
        )
        async for attempt in retries:
            with attempt:
                async with self._metadata:
                    self.requests[endpoint] += 1
                    with self._translated(endpoint):
                        return await self._ask_once(endpoint, method, **request)
        raise AssertionError("stamina always returns or raises")

    async def _ask_once(
        self, endpoint: str, method: str, largest: int = LARGEST_JSON, **request: Any
    ) -> bytes:
        url = self.base_url + endpoint
        async with self._client.stream(method, url, headers=guest(endpoint), **request) as response:
            if response.status_code != 200:
                raise error_of(endpoint, response, await _start_of(response))
            body = bytearray()
            async with _chunks_of(response) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > largest:
                        raise BadAnswer(f"{endpoint}: the answer does not end within {largest:,} bytes")
            self._note_up()
            return bytes(body)

    @contextmanager
    def _translated(self, endpoint: str) -> Iterator[None]:
        try:
            yield
        except ArchiveError as exc:
            self._note_error(exc)
            raise
        except httpx.HTTPError as exc:
            error = Unavailable(f"{endpoint}: {meaning_of(exc)}")
            self._note_error(error)
            raise error from exc

    def _note_up(self) -> None:
        if self.state != "up":
            self.state, self.since = "up", time.time()

    def _note_error(self, exc: ArchiveError) -> None:
        if not isinstance(exc, Unsupported):  # which is news, and no failure
            self._errors.append(str(exc))
        logger.info("%s", exc)
        if isinstance(exc, Unavailable) and self.state != "down":
            self.state, self.since = "down", time.time()


def _fields(form: Form) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in form:
        fields.setdefault(name, []).append(value)
    return fields


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()


def _worth_another_try(exc: Exception) -> bool | float:
    if not isinstance(exc, Unavailable | Failed):
        return False
    after = getattr(exc, "retry_after", None)
    return min(after, _RETRY_AFTER_CAP) if after is not None else True


async def _start_of(response: httpx.Response) -> str:
    """Return the start of an error's body; what there is of one that stalls or breaks off."""
    body = bytearray()
    with suppress(httpx.HTTPError), trio.move_on_after(_ERROR_SECONDS):
        async for chunk in response.aiter_bytes():
            body += chunk[: _ERROR_BYTES - len(body)]
    return body.decode("utf-8", "replace")


@asynccontextmanager
async def _chunks_of(response: httpx.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """Hand out the body and end what is left of it.

    The generators that httpx nests would else be ended by the garbage collector, which trio warns of.
    """
    chunks = response.aiter_bytes()
    try:
        yield chunks
    finally:
        with suppress(httpx.HTTPError), trio.CancelScope() as ending:
            ending.cancel()
            async for _ in chunks:
                pass
