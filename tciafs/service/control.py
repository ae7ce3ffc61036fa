"""The control socket: a request is a line of JSON, answered by one or more, the last a result or an error.

Whoever connects is the mount's own user or root. One that hangs, or sends anything else, is left alone.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from tciafs.service.mountinfo import Mount
from tciafs.service.sockets import name_of, peer_uid, private_directory

logger = logging.getLogger(__name__)

Request = Mapping[str, Any]
Tell = Callable[[Mapping[str, Any]], Awaitable[None]]
Command = Callable[[Request, Tell], Awaitable[None]]
"""Do what a request asks, and tell the answers."""

_REQUEST_SECONDS = 5.0
_ANSWER_SECONDS = 5.0  # without a byte of an answer being taken
_LARGEST_REQUEST = 64 << 10
_CONVERSATIONS = 16
_CHUNK = 64 << 10


class WrongRequest(Exception):
    """A request cannot be understood; the message says why."""


@contextmanager
def listening(mount: Mount | None) -> Iterator[tuple[trio.SocketListener, Path] | None]:
    """Hold the socket of a mount, in the place of a dead mount's; None where there can be none."""
    directory = private_directory()
    try:
        if directory is None or mount is None:
            raise FileNotFoundError("there is no directory of yours alone for it")
        path = directory / name_of(mount)
        connection = _bound(path)
    except OSError as exc:
        logger.warning("'tciafs refresh' will not reach this drive, which has no control socket: %s", exc)
        yield None
        return
    inode = path.stat().st_ino
    try:
        yield trio.SocketListener(trio.socket.from_stdlib_socket(connection)), path
    finally:
        connection.close()
        with suppress(FileNotFoundError):
            if path.stat().st_ino == inode:  # and not another's, who took our name for a dead one's
                path.unlink()


def _bound(path: Path) -> socket.socket:
    """Listen at a path, whatever is there: the name becomes another socket's from one moment to the next."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.bind(os.fsencode(beside))
        beside.chmod(0o600)
        connection.listen(_CONVERSATIONS)
        beside.rename(path)
    except BaseException:
        connection.close()
        beside.unlink(missing_ok=True)
        raise
    return connection


class Control:
    """Answers requests with `commands`, by the name that a request gives under "do"."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = commands
        self._conversations = 0

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve until cancelled."""
        await trio.serve_listeners(self._converse, [listener])

    async def _converse(self, stream: trio.SocketStream) -> None:
        """Answer one request; nothing that a client does may end the mount."""
        self._conversations += 1
        try:
            async with stream:
                await self._answer(stream)
        except (trio.BrokenResourceError, trio.TooSlowError) as exc:
            logger.info("a client of the control socket went away: %s", type(exc).__name__)
        except Exception:
            logger.exception("a request at the control socket failed in a way that nobody foresaw")
        finally:
            self._conversations -= 1

    async def _answer(self, stream: trio.SocketStream) -> None:
        async def tell(answer: Mapping[str, Any]) -> None:
            await _send(stream, json.dumps(answer).encode() + b"\n")

        try:
            self._check(peer_uid(stream.socket))
            request = await _received(stream)
            command = self._commands.get(str(request.get("do")))
            if command is None:
                raise WrongRequest(f"no such request; there are {', '.join(self._commands)}")
            await command(request, tell)
        except WrongRequest as exc:
            await tell({"error": str(exc)})

    def _check(self, uid: int) -> None:
        if uid not in (0, os.getuid()):
            logger.info("user %d asked at the control socket", uid)
            raise WrongRequest("only the drive's own user and root may ask")
        if self._conversations > _CONVERSATIONS:
            raise WrongRequest("too many ask at once; try again")


async def _received(stream: trio.SocketStream) -> Request:
    """Return a request, which must come soon and be small."""
    line = bytearray()
    with trio.fail_after(_REQUEST_SECONDS):
        while b"\n" not in line:
            chunk = await stream.receive_some(_CHUNK)
            line += chunk
            if not chunk or len(line) > _LARGEST_REQUEST:
                raise WrongRequest(f"a request is one line of at most {_LARGEST_REQUEST} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise WrongRequest("a request is a line of JSON") from exc
    if not isinstance(request, dict):
        raise WrongRequest("a request is a JSON object")
    return request


async def _send(stream: trio.SocketStream, answer: bytes) -> None:
    """Send an answer, however long it is, to a client that goes on reading."""
    for start in range(0, len(answer), _CHUNK):
        with trio.fail_after(_ANSWER_SECONDS):
            await stream.send_all(answer[start : start + _CHUNK])
