"""Ask a running drive: over its control socket, or where there is none, by reading its control files.

A drive whose process hangs costs a deadline, and no more: nothing here touches a mount itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tciafs.service.mountinfo import Mount, Untouchable, read_by_child
from tciafs.service.sockets import peer_uid, socket_of

ANSWER_SECONDS = 5.0
_GRACE_SECONDS = 5.0  # beyond what the drive says it will take
_CHUNK = 64 << 10

Answer = dict[str, Any]


class Unanswered(Exception):
    """A drive did not answer, or with an error; the message says why, in one line."""


class _NoSocket(Exception):
    """There is no socket, or nobody listens at it."""


def status(mount: Mount) -> Answer:
    """Return what a drive's status.json says."""
    late = time.monotonic() + ANSWER_SECONDS
    try:
        answer: Answer = _asked(mount, socket_of(mount), {"do": "status"}, late)
    except _NoSocket:
        return _status_file(mount, late)
    return dict(answer["status"])


def ask(mount: Mount, request: Mapping[str, Any]) -> Answer:
    """Return the last answer to a request, which the drive may have said to take long."""
    late = time.monotonic() + ANSWER_SECONDS
    try:
        return _asked(mount, socket_of(mount), request, late)
    except _NoSocket:
        told = _status_file(mount, late)["mount"].get("socket")
    try:
        return _asked(mount, Path(told) if told else None, request, late)
    except _NoSocket as exc:
        raise Unanswered(f"{mount.mountpoint}: its process has no socket that can be reached") from exc


def _status_file(mount: Mount, late: float) -> Answer:
    path = mount.mountpoint / ".tciafs" / "status.json"
    try:
        told: Answer = json.loads(read_by_child(path, max(0.0, late - time.monotonic())))
    except TimeoutError as exc:
        raise _silent(mount) from exc
    except Untouchable as exc:
        remedy = f"; take the dead drive away with 'tciafs umount {mount.mountpoint}'" if exc.is_dead else ""
        raise Unanswered(f"{mount.mountpoint}: its process does not answer ({exc}){remedy}") from exc
    except ValueError as exc:
        raise Unanswered(f"{path}: no status stands there") from exc
    return told


def _asked(mount: Mount, path: Path | None, request: Mapping[str, Any], late: float) -> Answer:
    if path is None:
        raise _NoSocket
    answer: Answer = {}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            _connect(connection, mount, path, late)
            connection.sendall(json.dumps(request).encode() + b"\n")
            for line in _lines(connection, late):
                answer = json.loads(line)
                if "error" in answer:
                    raise Unanswered(str(answer["error"]))
    except TimeoutError as exc:
        raise _silent(mount) from exc
    except (OSError, ValueError) as exc:
        raise Unanswered(f"{mount.mountpoint}: its process broke off ({exc})") from exc
    if not answer:
        raise Unanswered(f"{mount.mountpoint}: its process gave no answer")
    return answer


def _connect(connection: socket.socket, mount: Mount, path: Path, late: float) -> None:
    connection.settimeout(max(0.01, late - time.monotonic()))
    try:
        connection.connect(os.fsencode(path))
    except (FileNotFoundError, ConnectionRefusedError, PermissionError) as exc:
        raise _NoSocket from exc
    if peer_uid(connection) != mount.user_id:  # another's who waits for what we would tell it
        raise _NoSocket


def _lines(connection: socket.socket, late: float) -> Iterator[bytes]:
    """Yield the lines of an answer; one that says "seconds" makes us wait for so much longer."""
    read = b""
    while True:
        if (left := late - time.monotonic()) <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(_CHUNK)
        if not chunk:
            return
        *lines, read = (read + chunk).split(b"\n")
        for line in lines:
            seconds = json.loads(line).get("seconds")
            if seconds is None:
                yield line
            else:
                late = time.monotonic() + float(seconds) + _GRACE_SECONDS


def _silent(mount: Mount) -> Unanswered:
    return Unanswered(
        f"{mount.mountpoint}: its process did not answer within {ANSWER_SECONDS:.0f} s: it may be stopped or"
        " busy; try again"
    )
