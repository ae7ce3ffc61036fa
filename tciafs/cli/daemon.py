"""A mount in a process of its own, which outlives the command and the terminal that started it.

The process is a new one, never a fork: libfuse and trio must not be loaded before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, NoReturn

import click
import platformdirs

from tciafs.cli.failure import Failure
from tciafs.config import Config
from tciafs.service.mountinfo import mount_at

_START_SECONDS = 30.0
_END_SECONDS = 5.0
_TOLD = ("tciafs: ", "fusermount3: ", "fuse: ")


def log_path(config: Config) -> Path:
    """Return the log of a daemon: the same for each that is mounted there."""
    where = hashlib.sha256(os.fsencode(config.mountpoint)).hexdigest()[:8]
    return platformdirs.user_log_path("tciafs") / f"tciafs-{config.archive_name}-{where}.log"


def start(config: Config, arguments: list[str]) -> str:
    """Run `tciafs` with `arguments` until the mount answers; return the line that it prints then."""
    log = log_path(config)
    before = mount_at(config.mountpoint)
    with _opened(log) as stderr:
        began = stderr.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tciafs", *arguments],  # -P: nothing is imported from here
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    try:
        line = _awaited(process, config.mountpoint)
    except BaseException:  # Ctrl-C, too
        _end(process)
        if mount_at(config.mountpoint) not in (None, before):
            subprocess.run(["fusermount3", "-uz", "--", str(config.mountpoint)], check=False)
        raise
    if line is None:
        _fail(process, log, began)
    return line


def _opened(log: Path) -> IO[bytes]:
    """Open the log to be written at its end, for nobody else to read: it may name patients."""
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as exc:
        raise Failure(
            f"the log {log} cannot be written ({exc.strerror}): set XDG_STATE_HOME to a directory that can"
        ) from exc
    file.seek(0, os.SEEK_END)
    return file


def _awaited(process: subprocess.Popen[bytes], mountpoint: Path) -> str | None:
    """Return the line that announces the mount, once this answers; None where the process ended."""
    late = time.monotonic() + _START_SECONDS
    assert process.stdout
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(_START_SECONDS):
            raise Failure(
                f"{mountpoint}: nothing was mounted within {_START_SECONDS:g} s; its process was ended"
            )
        line = process.stdout.readline().decode(errors="replace").rstrip("\n")
    if line and _answers(mountpoint, late - time.monotonic()):
        return line
    try:
        process.wait(max(0.0, late - time.monotonic()))
    except subprocess.TimeoutExpired as exc:
        raise Failure(
            f"{mountpoint}: the mount did not answer within {_START_SECONDS:g} s; its process was ended"
        ) from exc
    return None


def _answers(mountpoint: Path, seconds: float) -> bool:
    """Ask the mount for what it tells without the network, in a thread that may wait for ever."""
    answered = threading.Event()

    def ask() -> None:
        with contextlib.suppress(OSError):
            os.statvfs(mountpoint)
            there = mount_at(mountpoint)
            if there and there.is_ours:
                answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(0.0, seconds))
    return answered.is_set()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fail(process: subprocess.Popen[bytes], log: Path, began: int) -> NoReturn:
    """Say what the process said at its end, and exit as it did."""
    with log.open("rb") as file:
        file.seek(began)
        said = file.read().decode(errors="replace").splitlines()
    told = [line for line in said if line.startswith(_TOLD)]
    if not told or not told[-1].startswith("tciafs: "):
        raise Failure(f"the mount ended before it answered; {log} tells why")
    click.echo("\n".join(told), err=True)
    raise click.exceptions.Exit(process.returncode if process.returncode > 0 else 1)
