"""The Authorization header of every request with a login, and the faces of a token that is not believed.

NBIA says 401 at some endpoints only; others answer a bad token with an empty list, or fail (nbia-api: 5).
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Protocol

import httpx
import trio

from tciafs.archives.base import ArchiveError, Refused

_BELIEVED_SECONDS = 5.0  # for how long an endpoint is not doubted after it was for nothing


class Authorize(Protocol):
    """Give the value of the Authorization header."""

    async def __call__(self, doubted: str | None = None) -> str:
        """Return the header that is in use, and not `doubted`.

        Raise `Refused` where there is no login any more, another `ArchiveError` where that cannot be told.
        """
        ...


class Authorized(httpx.Auth):
    """Ask with a login, and once more with a renewed one where the first may not have been believed."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize
        self._believed_until: dict[str, float] = {}  # by path

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Show the login, and judge the answer's head."""
        header = request.headers["Authorization"] = await self._authorize()
        response = yield request
        if not self._is_doubtful(response):
            return
        another = await self._another(header, response)
        if another is None:
            return
        request.headers["Authorization"] = another
        response = yield request
        if self._is_doubtful(response):  # an archive that fails, or has nothing, does so often
            self._believed_until[request.url.path] = trio.current_time() + _BELIEVED_SECONDS

    def _is_doubtful(self, response: httpx.Response) -> bool:
        """Tell whether the answer may be a bad token's."""
        if response.status_code == 401:
            return True
        may_be = response.status_code == 500 or _says_nothing(response)
        believed_until = self._believed_until.get(response.url.path, -math.inf)
        return may_be and trio.current_time() >= believed_until

    async def _another(self, header: str, response: httpx.Response) -> str | None:
        """Return the header to ask again with; None where a failure has to do as it is."""
        try:
            return await self._authorize(header)
        except Refused:
            raise
        except ArchiveError:
            if response.status_code != 500:  # an empty answer must not be taken for an empty list
                raise
            return None


def _says_nothing(response: httpx.Response) -> bool:
    """Tell whether it is NBIA's empty list, which alone has no type (nbia-api: section 2.0)."""
    return response.status_code == 200 and "content-type" not in response.headers
