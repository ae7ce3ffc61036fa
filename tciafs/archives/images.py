"""The images of an NBIA server: one by one, a series as a ZIP, and the digests to verify them by.

What each endpoint answers, and how it fails, is in the server's source; sections named here are
those of the project's NBIA reference.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

from tciafs.archives.base import SERVER_BYTES_PER_SECOND, BadAnswer, Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.interfaces import Interface, Interfaces
from tciafs.archives.zipped import Zipped
from tciafs.model import Instance

_HEAD_SECONDS = 10.0

R = TypeVar("R")


class Images:
    """What a server delivers through the first of some interfaces that it has."""

    has_ranges = False

    def __init__(self, http: Http, capabilities: Capabilities, choices: Sequence[Interface]) -> None:
        self.http = http
        self._capabilities = capabilities
        self._interfaces = Interfaces(http, capabilities, choices)

    @property
    def api(self) -> str:
        """Return the version of the interface that is asked, as far as the server told what it has."""
        return self._interfaces.current.version

    def open_instance(
        self, instance: Instance, span: range | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the stored file (getSingleImage); always whole, since the server ignores ranges."""
        params = {
            "SeriesInstanceUID": instance.series_instance_uid,
            "SOPInstanceUID": instance.sop_instance_uid,
        }
        head_seconds = _HEAD_SECONDS + instance.estimate / SERVER_BYTES_PER_SECOND
        return self._open(lambda at: self.http.stream(at.path("getSingleImage"), params, head_seconds))

    async def get_md5(self, instance: Instance) -> str | None:
        """Return the digest in the archive's database (getMD5HashForImage); empty means it has none."""
        uid = instance.sop_instance_uid
        return await self._interfaces.ask(
            lambda at: self._digest(
                at, at.md5, lambda endpoint: self.http.get_text(endpoint, {at.md5_parameter: uid})
            )
        )

    def open_series(self, series_instance_uid: str) -> AbstractAsyncContextManager[Zipped]:
        """Stream the series as a ZIP sorted by InstanceNumber, digests at its end (getImage)."""
        return self._open(lambda at: self._open_zip(at, series_instance_uid))

    async def get_series_md5(self, series_instance_uid: str) -> str | None:
        """Return the digest of the series' digests (v4/getMD5Hierarchy)."""
        form = [("SeriesInstanceUID", series_instance_uid)]
        return await self._interfaces.ask(
            lambda at: self._digest(at, at.series_md5, lambda endpoint: self.http.post_text(endpoint, form))
        )

    @asynccontextmanager
    async def _open(self, opening: Callable[[Interface], AbstractAsyncContextManager[R]]) -> AsyncIterator[R]:
        """Hold open what the interface has that the server has."""
        async with AsyncExitStack() as stack:
            yield await self._interfaces.ask(lambda at: stack.enter_async_context(opening(at)))

    @asynccontextmanager
    async def _open_zip(self, at: Interface, series_instance_uid: str) -> AsyncIterator[Zipped]:
        endpoint = at.path("getImage")
        with_md5 = f"{endpoint}?IncludeMD5"  # a parameter that servers older than 2025-11-26 refuse
        if self._capabilities.lacks(endpoint):
            raise Unsupported(f"{endpoint}: the server has none")
        params = {"SeriesInstanceUID": series_instance_uid, "NewFileNames": "Yes"}
        if at.zips_md5s and not self._capabilities.lacks(with_md5):
            params["IncludeMD5"] = "Yes"
        try:
            async with self.http.stream(endpoint, params, _HEAD_SECONDS) as chunks:
                yield Zipped(chunks)
        except Unsupported:
            if not await self._interfaces.lacks(at):
                self._capabilities.note_lacking(endpoint)
            raise
        except BadAnswer as exc:
            if "Invalid query parameter" in str(exc):
                self._capabilities.note_lacking(with_md5)
            raise

    async def _digest(
        self, at: Interface, endpoint: str | None, ask: Callable[[str], Awaitable[str]]
    ) -> str | None:
        if endpoint is None or self._capabilities.lacks(endpoint):
            return None
        try:
            digest = await ask(endpoint)
        except Unsupported:
            if await self._interfaces.lacks(at):
                raise  # and another interface is asked
            self._capabilities.note_lacking(endpoint)
            return None
        if digest and not re.fullmatch(r"[0-9a-fA-F]{32}", digest):
            raise BadAnswer(f"{endpoint}: something else than a digest came")
        return digest.lower() or None
