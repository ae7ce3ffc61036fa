"""Where the control socket of a mount is: in a directory of its user alone, under a short name.

The name is the mount's device number, which no other mount of this machine has while it lives.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tciafs.service.mountinfo import Mount

_LONGEST = 107  # bytes of a path in a sockaddr_un, which ends with NUL (unix(7))
_LONGEST_NAME = len("/1048575.4194304")  # of the largest device number, with that of the largest process
_CREDENTIALS = struct.Struct("iII")


def places(uid: int) -> Iterator[Path]:
    """Yield the directories in which a socket of this user may be, the best one first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    for parent in (Path(runtime), Path(f"/run/user/{uid}")):
        if parent.is_absolute() and _owner(parent) == uid:
            yield parent / "tciafs"
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):
        yield parent / f"tciafs-{uid}"


def private_directory() -> Path | None:
    """Return the first of those directories that can be used, made where it is not there yet."""
    uid = os.getuid()
    for directory in places(uid):
        if len(os.fsencode(directory)) + _LONGEST_NAME > _LONGEST:
            continue
        with suppress(OSError):
            directory.mkdir(mode=0o700)
        if is_private(directory, uid) and os.access(directory, os.W_OK | os.X_OK):
            return directory
    return None


def is_private(directory: Path, uid: int) -> bool:
    """Tell whether a directory is this user's alone."""
    try:
        info = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == uid and not info.st_mode & 0o077


def name_of(mount: Mount) -> str:
    """Return the name of a mount's socket."""
    return str(mount.minor)


def socket_of(mount: Mount) -> Path | None:
    """Return the socket of a mount, None where none is to be found from here."""
    if mount.user_id is None:
        return None
    paths = (place / name_of(mount) for place in places(mount.user_id) if is_private(place, mount.user_id))
    return next((path for path in paths if path.is_socket()), None)


class Connection(Protocol):
    """A connected socket, of whatever library."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return an option (getsockopt(2))."""
        ...


def peer_uid(connection: Connection) -> int:
    """Return the user at the other end, by the kernel's word (SO_PEERCRED, unix(7))."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(told)
    return int(uid)


def _owner(directory: Path) -> int | None:
    try:
        return directory.stat().st_uid
    except OSError:
        return None
