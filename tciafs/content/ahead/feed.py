"""A whole series as one stream: each image is handed to the fetch that waits for it.

The stream does not say whose each file is before its header has come, and it may end early; whoever
waits in vain goes another way.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import trio

from tciafs.archives.base import Archive, ArchiveError, BadAnswer, Entry, Unavailable
from tciafs.content.ahead.header import sop_instance_uid

logger = logging.getLogger(__name__)

_STALL_SECONDS = 5.0  # single images bring the rest
_PIECES = 2  # on their way to the disk


class Delivery:
    """One image out of the stream, for the one who waits for it."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](_PIECES)
        self.is_waited_for = True
        self._decided = trio.Event()
        self._has_begun = False
        self._failure: ArchiveError | None = None

    async def begun(self, patience: float) -> bool:
        """Tell, within `patience` seconds, whether the image comes this way."""
        with trio.move_on_after(patience):
            await self._decided.wait()
        if not self._has_begun:
            self._receive.close()
            self.is_waited_for = False
        return self._has_begun

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes; raise `ArchiveError` where the stream breaks off."""
        async with self._receive:
            async for chunk in self._receive:
                yield chunk
        if self._failure:
            raise self._failure

    def begin(self) -> None:
        """Let the one who waits know that its bytes come now."""
        self._has_begun = True
        self._decided.set()

    async def put(self, chunk: bytes) -> None:
        """Hand over bytes, to nobody where the one who waited is gone."""
        with suppress(trio.BrokenResourceError):
            await self._send.send(chunk)

    def end(self, failure: ArchiveError | None = None) -> None:
        """End the image, or say that it will not come."""
        self._failure = failure
        self._decided.set()
        self._send.close()


class Feed:
    """The stream of one series."""

    def __init__(self, archive: Archive, series_instance_uid: str) -> None:
        self.position = 0  # of the file that comes now
        self.md5s: dict[str, str] = {}  # by SOPInstanceUID, once the stream has told them
        self._archive = archive
        self._uid = series_instance_uid
        self._expected: dict[str, Delivery] = {}
        self._has_ended = False

    @property
    def is_expected(self) -> bool:
        """Tell whether anybody waits for a file that has not come yet."""
        return any(delivery.is_waited_for for delivery in self._expected.values())

    def expect(self, sop_instance_uid: str) -> Delivery:
        """Promise the image to whoever asks, should it come."""
        delivery = self._expected[sop_instance_uid] = Delivery()
        if self._has_ended:
            delivery.end()
        return delivery

    def forget(self, sop_instance_uid: str) -> None:
        """Take back what was expected: somebody else brings it."""
        self._expected.pop(sop_instance_uid).end()

    async def run(self, go_on: Callable[[], bool]) -> None:
        """Read the stream as long as `go_on` says before each file; what fails is told and no error."""
        names: dict[str, str] = {}
        try:
            async with self._archive.open_series(self._uid) as stream:
                async with aclosing(stream.entries()) as entries:
                    async for entry in entries:
                        if not go_on():
                            return
                        names[entry.name] = await self._hand_out(entry)
                        self.position += 1
                self.md5s = {uid: stream.md5s[name] for name, uid in names.items() if name in stream.md5s}
        except ArchiveError as exc:
            logger.info("the ZIP of series %s came as far as its file %d: %s", self._uid, self.position, exc)
        finally:
            self._has_ended = True
            for delivery in self._expected.values():
                delivery.end()

    async def _hand_out(self, entry: Entry) -> str:
        """Pass one file on, and return its SOPInstanceUID."""
        delivery, uid = None, None
        try:
            while (chunk := await self._next(entry)) is not None:
                if uid is None:
                    uid = sop_instance_uid(chunk) or ""
                    delivery = self._expected.pop(uid, None)
                    if delivery:
                        delivery.begin()
                if delivery:
                    await delivery.put(chunk)
        except BaseException as exc:
            if delivery:
                failure = (
                    exc if isinstance(exc, ArchiveError) else BadAnswer(f"{entry.name}: its ZIP broke off")
                )
                delivery.end(failure)
            raise
        if delivery:
            delivery.end()
        return uid or ""

    async def _next(self, entry: Entry) -> bytes | None:
        with trio.move_on_after(_STALL_SECONDS):
            return await anext(entry.chunks, None)
        raise Unavailable(f"series {self._uid}: the archive fell silent in its ZIP's {entry.name}")
