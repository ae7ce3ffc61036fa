"""One SQLite file whose whole work is done in one worker thread; knows no table of its own.

A file that is damaged, foreign or of an older layout is set aside and begun anew: everything kept
here can be asked of the archive again. SQLite finds damage in its own structure alone, so that rows
carry a digest (`digest_of`) by which their reader finds it in what they say.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import msgspec
import trio

logger = logging.getLogger(__name__)

T = TypeVar("T")

_APPLICATION_ID = 0x7C1AF5  # marks a file as ours (https://www.sqlite.org/pragma.html#pragma_application_id)
_BUSY_SECONDS = 5.0
_DIGEST_BYTES = 8
_WAL_PAGES = 4_000  # rows go by hash, so that each dirties a page: fewer checkpoints write it fewer times
_OUR_FAULT = (
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    sqlite3.NotSupportedError,
    sqlite3.IntegrityError,
)
# Of these alone an OperationalError tells that the file is damaged: an impossible format or a garbled
# schema, or a page that cannot be read. Others are another process's, a full disk's or a lacking right's.
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ)


class Damaged(Exception):
    """A row is not what was written: raised by whoever reads it, so that the file is begun anew."""


class Lost(Exception):
    """The file was found damaged, set aside and begun anew; whoever asks again is answered."""


class Unwritable(OSError):
    """The file cannot be used now: the disk is full, another process or a lacking right is in the way."""


class Database:
    """A SQLite file that survives a crash at any moment and may be shared between processes."""

    def __init__(
        self, connection: sqlite3.Connection, begin_anew: Callable[[str], sqlite3.Connection] | None = None
    ) -> None:
        self.generation = 0  # how often the file was begun anew since it was opened
        self._connection = connection
        self._begin_anew = begin_anew
        self._one_at_a_time = trio.CapacityLimiter(1)

    @classmethod
    def open(cls, path: Path, schema: str, version: int, note_loss: Callable[[], object] = int) -> Self:
        """Open the file at `path`, made with `schema` where it is not of `version`.

        `note_loss` is called, in the worker thread, where it is begun anew.
        """

        def begin_anew(why: str) -> sqlite3.Connection:
            _set_aside(path, why)
            note_loss()
            return _connect(path, schema, version)

        try:
            return cls(_connect(path, schema, version), begin_anew)
        except _Unusable as exc:
            return cls(begin_anew(str(exc)), begin_anew)

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `work` returns, done in the worker thread; what it writes is one transaction.

        Raise `Unwritable` or `Lost` where the file is why it cannot be done.
        """
        return await self._run(work, "")

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `run`; all that is read is of one moment, whatever other processes write meanwhile."""
        return await self._run(work, "BEGIN")

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `run`; no other process writes between what is read and what is written."""
        return await self._run(work, "BEGIN IMMEDIATE")

    async def _run(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        transaction = partial(self._in_transaction, work, begin)
        return await trio.to_thread.run_sync(transaction, limiter=self._one_at_a_time)

    def close(self) -> None:
        """Close the file; no work may be under way."""
        self._connection.close()

    def _in_transaction(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        try:
            with self._connection:
                if begin:
                    self._connection.execute(begin)
                return work(self._connection)
        except (sqlite3.DatabaseError, UnicodeDecodeError, Damaged) as exc:
            if not _is_damage(exc) and isinstance(exc, sqlite3.OperationalError):
                raise Unwritable(str(exc)) from exc
            if self._begin_anew is None or not _is_damage(exc):
                raise
            self._connection.close()
            self._connection = self._begin_anew(str(exc))
            self.generation += 1
            raise Lost(f"the database was damaged, and is begun anew: {exc}") from exc


def digest_of(*values: object) -> bytes:
    """Return 8 bytes that tell whether `values` are still those that were written."""
    return hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=_DIGEST_BYTES).digest()


class _Unusable(Exception):
    """The file cannot be used as it is."""


def _connect(path: Path, schema: str, version: int) -> sqlite3.Connection:
    # check_same_thread: trio may use another thread each time, but never two at once.
    connection = sqlite3.connect(path, check_same_thread=False, timeout=_BUSY_SECONDS)
    try:
        _prepare(connection, schema, version)
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    except BaseException as exc:
        connection.close()
        if _is_damage(exc):
            raise _Unusable(str(exc)) from exc
        raise
    return connection


def _is_damage(exc: BaseException) -> bool:
    """Tell whether the error is the file's own."""
    if isinstance(exc, sqlite3.OperationalError):
        # Text that is not UTF-8 is such an error without a code (CPython's _sqlite/cursor.c).
        return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) in _DAMAGED
    if isinstance(exc, _OUR_FAULT):
        return False
    return isinstance(exc, sqlite3.DatabaseError | UnicodeDecodeError | Damaged)


def _prepare(connection: sqlite3.Connection, schema: str, version: int) -> None:
    with connection:
        connection.execute("BEGIN IMMEDIATE")  # two mounts may start on one cache at once
        found = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        if found == (_APPLICATION_ID, version):
            return
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise _Unusable(f"it is of layout {found[1]}, not {version}")
        for statement in schema.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL: the one statement that fails at once where another mount is starting, too."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _set_aside(path: Path, why: str) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    logger.warning("%s cannot be used (%s): set aside as %s, begun anew", path, why, aside.name)
