"""Sends an answer over HTTP as Tomcat frames it, and as slowly or incompletely as is wanted.

Up to 8 KiB the length is told; above, the body is chunked and its length is not (nbia-api: framing).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal

import trio
from starlette.types import Receive, Send

from tciafs.demo.answers import Answer

_TOMCAT_BUFFER = 8192
_BLOCK = 128 * 1024
_TICK = 0.05  # seconds between pieces of a body that is sent slowly
_TRUNK_PIECE = 32 * 1024  # what one answer puts on the shared line before the others have their turn

Pull = Callable[[], Awaitable[bytes | None]]
"""Return the next block of a body, None after the last."""


class Trunk:
    """The line that all answers share: who asks first is served first, a small piece at a time."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._free_at = -inf

    def reserve(self, count: int) -> float:
        """Take the line for `count` bytes; return when the last of them has passed."""
        self._free_at = max(self._free_at, trio.current_time()) + count / self._bytes_per_second
        return self._free_at


@dataclass(frozen=True, slots=True)
class Manner:
    """How to send: seconds to wait first, the connection's speed, the line it shares, and what stops it.

    "stall" sends nothing; "stall_body" and "cut" send half of the body and then hang, or drop the connection.
    """

    delay: float = 0
    bytes_per_second: float = inf
    stop: Literal["stall", "stall_body", "cut"] | None = None
    trunk: Trunk | None = None


async def deliver(
    answer: Answer, manner: Manner, receive: Receive, send: Send, end: Callable[[], None]
) -> None:
    """Send `answer` until it is sent or the client has gone; call `end` before its last bytes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
        await trio.sleep(manner.delay)
        if manner.stop == "stall":
            await trio.sleep_forever()
        await _send(answer, manner, send, end)
        if manner.stop == "stall_body":
            await trio.sleep_forever()
        nursery.cancel_scope.cancel()


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _send(answer: Answer, manner: Manner, send: Send, end: Callable[[], None]) -> None:
    pull = _puller(answer)
    first = await pull() or b""
    head: list[tuple[bytes, bytes]] = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers
    ]
    if answer.content_type:
        head.append((b"Content-Type", answer.content_type.encode("latin-1")))
    is_framed = len(first) <= _TOMCAT_BUFFER  # a block that others follow is longer
    if is_framed:
        head.append((b"Content-Length", str(len(first)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    if manner.stop:  # hypercorn drops the connection of an answer that is left unfinished
        first, pull = await _first_half(first, pull), _nothing
    if is_framed and not manner.stop:
        end()
    await send_body(first, pull, manner, send)
    if not manner.stop:
        end()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_body(first: bytes, pull: Pull, manner: Manner, send: Send) -> None:
    """Send a body, unended; each piece arrives when the line, at its speed, would have brought it."""
    step = max(1, int(min(manner.bytes_per_second * _TICK, _TRUNK_PIECE if manner.trunk else _BLOCK)))
    due = trio.current_time()
    block: bytes | None = first
    while block is not None:
        for offset in range(0, len(block), step):
            piece = block[offset : offset + step]
            due += len(piece) / manner.bytes_per_second
            if manner.trunk:  # what the others delay is not made up for above one's own speed
                due = max(due, manner.trunk.reserve(len(piece)))
            await trio.sleep_until(due)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        block = await pull()


def _puller(answer: Answer) -> Pull:
    """Return what gives the next block of the body; one that is made as it goes is made in a thread."""
    blocks = _joined(answer.chunks()) if callable(answer.body) else _parted(answer.body)

    async def pull() -> bytes | None:
        if callable(answer.body):
            return await trio.to_thread.run_sync(next, blocks, None)
        return next(blocks, None)

    return pull


async def _nothing() -> None:
    return None


async def _first_half(first: bytes, pull: Pull) -> bytes:
    whole = bytearray(first)
    while (block := await pull()) is not None:
        whole += block
    return bytes(whole[: len(whole) // 2])


def _parted(body: bytes) -> Iterator[bytes]:
    """Yield blocks of one size, the last one shorter; always at least one."""
    for start in range(0, max(1, len(body)), _BLOCK):
        yield body[start : start + _BLOCK]


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in such blocks."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        while len(pending) > _BLOCK:
            yield bytes(pending[:_BLOCK])
            del pending[:_BLOCK]
    yield bytes(pending)
