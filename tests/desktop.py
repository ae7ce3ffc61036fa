"""A desktop in memory: an X server, windows, icons and a bus of its own, for programs that show the drive."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from PIL import Image, ImageGrab

PROGRAMS = ("Xvfb", "openbox", "dbus-daemon", "xdotool", "xclip")
_SECONDS = 15.0
_ANSWER_SECONDS = 5.0
_FILES = "x-special/gnome-copied-files"  # what a file manager puts on the clipboard


class Desktop:
    """A running desktop; `environment` leads programs to it, `prefix` stands before each command."""

    def __init__(self, room: Path, log: IO[str], prefix: tuple[str, ...]) -> None:
        self.home = room / "home"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "XDG_RUNTIME_DIR": str(room / "run"),
            "LANG": "C.UTF-8",
            "GVFS_DISABLE_FUSE": "1",
            "NO_AT_BRIDGE": "1",
        }
        self._log = log
        self._prefix = prefix

    def start(self, *command: str | Path, stdout: int | IO[str] | None = None) -> subprocess.Popen[str]:
        """Begin a program; what it says goes to the log."""
        return subprocess.Popen(
            [*self._prefix, *map(str, command)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout or self._log,
            stderr=self._log,
            text=True,
        )

    @contextmanager
    def running(self, *command: str | Path) -> Iterator[None]:
        """Keep a program running until the end of the block."""
        process = self.start(*command)
        try:
            yield
        finally:
            end(process)

    def focus(self, title: str) -> None:
        """Wait for a window with this in its title, and give it the keyboard."""
        late = time.monotonic() + _SECONDS
        while True:
            try:
                search = ("xdotool", "search", "--onlyvisible", "--name", re.escape(title))
                self._ask("xdotool", "windowactivate", "--sync", self._ask(*search).split()[0])
                return
            except subprocess.SubprocessError:  # not there yet, or gone while it was looked at
                if time.monotonic() > late:
                    raise
                time.sleep(0.1)

    def press(self, *keys: str) -> None:
        """Press keys in the window that has the keyboard."""
        self._ask("xdotool", "key", "--clearmodifiers", *keys)

    def copied_files(self) -> list[str]:
        """Return the addresses of the files that somebody copied; none while there is nothing."""
        with suppress(subprocess.SubprocessError):
            copied = self._ask("xclip", "-selection", "clipboard", "-o", "-t", _FILES)
            return copied.rstrip("\0").splitlines()[1:]  # the first says that they are not to be moved
        return []

    def picture(self) -> Image.Image:
        """Return what is to be seen."""
        return ImageGrab.grab(xdisplay=self.environment["DISPLAY"])

    def settled_picture(self, seconds: float = 0.7) -> Image.Image:
        """Return what is to be seen once it has not changed for so long."""
        late = time.monotonic() + _SECONDS
        before, now = None, self.picture()
        while (before is None or before.tobytes() != now.tobytes()) and time.monotonic() < late:
            time.sleep(seconds)
            before, now = now, self.picture()
        return now

    def _ask(self, *command: str) -> str:
        done = subprocess.run(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            check=True,
            timeout=_ANSWER_SECONDS,
        )
        return done.stdout


@contextmanager
def desktop(room: Path, size: str = "1100x700", prefix: tuple[str, ...] = ()) -> Iterator[Desktop]:
    """Run a desktop until the end of the block; nothing it started outlives it.

    Its home is `room`/home, where settings may stand already.
    """
    (room / "run").mkdir(mode=0o700)
    (room / "home").mkdir(exist_ok=True)
    with ExitStack() as stack, (room / "desktop.log").open("w") as log:
        here = Desktop(room, log, prefix)
        stack.callback(_end_rest, here.home)
        here.environment["DISPLAY"] = ":" + stack.enter_context(_x_server(size, log))
        bus = here.start("dbus-daemon", "--session", "--nofork", "--print-address", stdout=subprocess.PIPE)
        stack.callback(end, bus)
        here.environment["DBUS_SESSION_BUS_ADDRESS"] = _first_line(bus)
        stack.callback(end, here.start("openbox"))
        yield here


@contextmanager
def _x_server(size: str, log: IO[str]) -> Iterator[str]:
    """Run an X server on a display that is free; yield its number."""
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{size}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield _first_line(server)
    finally:
        end(server)


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline().strip() if selector.select(_SECONDS) else ""
    if not line:
        raise RuntimeError(f"{process.args!r} did not start")
    return line


def end(process: subprocess.Popen[str]) -> None:
    """End a program, and wait for its end."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()


def _end_rest(home: Path) -> None:
    """End what the bus and the programs have started: whatever has this home."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        late = time.monotonic() + 5
        while (left := _at_home(home)) and time.monotonic() < late:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(0.05)


def _at_home(home: Path) -> list[int]:
    mark = b"\0HOME=" + os.fsencode(home) + b"\0"
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in b"\0" + path.read_bytes():
                found.append(int(path.parent.name))
    return found
