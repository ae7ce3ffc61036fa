"""Bodies of requests that leave nothing to end when sending them is given up."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx


async def send_at_once(request: httpx.Request) -> None:
    """Let a request be sent without the generator that httpx makes of its body (an event hook for requests).

    Where a send is cancelled, the garbage collector would end that generator, which trio warns of.
    """
    if isinstance(request.stream, httpx.ByteStream):
        request.stream = _Body(request.content)


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Once(self._content)


class _Once(AsyncIterator[bytes]):
    def __init__(self, content: bytes) -> None:
        self._left = [content] if content else []

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()
