"""A running drive is talked to: its socket, `tciafs status`, and the control files."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tciafs import __version__
from tciafs.cli.sources import Sources
from tciafs.config import Config
from tciafs.service import client
from tciafs.service.effective import effective
from tciafs.service.mountinfo import mount_at
from tciafs.service.sockets import private_directory
from tests.archive import EmbeddedArchive
from tests.drive import Drive, mounted
from tests.test_cli import tciafs
from tests.test_daemon import eventually
from tests.test_mount import PHANTOM


def said(path: Path, request: bytes) -> list[dict[str, object]]:
    """Send bytes to a socket, and return the answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(request)
        read = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(1 << 16):
                read += chunk
    return [json.loads(line) for line in read.splitlines()]


def socket_of(drive: Drive) -> Path:
    return Path(drive.status()["mount"]["socket"])


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line with which a command failed."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("tciafs: ")
    return done.stderr


@pytest.mark.says(
    "What a drive tells of itself in `.tciafs` costs no request, and looking there is not counted."
)
def test_a_drive_tells_what_it_does_and_how_it_is_set(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--umask", "027", "--ttl-listings", "1234.5") as drive:
        size = len(drive.files(PHANTOM)[0].read_bytes())
        told, asked = drive.status(), archive.requests()
        assert set(told) == {"version", "archive", "mount", "requests", "cache", "transfers", "fuse"}
        assert set(told["archive"]) == {"name", "url", "api", "account", "state", "since", "last_error"}
        assert (told["version"], told["archive"]["api"]) == (__version__, "v4")
        assert set(told["mount"]) == {"mountpoint", "layout", "selection", "pid", "uptime_s", "socket"}
        assert told["requests"] == asked
        cache = told["cache"]
        assert (cache["files"], cache["bytes"], cache["limit_bytes"]) == (1, size, 20 << 30)
        assert (cache["hits"], cache["misses"], cache["evictions"]) == (0, 1, 0)
        check_metrics((drive.path / ".tciafs" / "metrics").read_text(), told)
        check_settings(drive.path / ".tciafs" / "config.toml", tmp_path / "copy.toml", drive.path)
        names = ["status.json", "errors.log", "metrics", "config.toml"]
        assert sorted(os.listdir(drive.path / ".tciafs")) == sorted(names)
        assert drive.status()["fuse"] == told["fuse"]
        assert archive.requests() == asked
        over_socket = json.loads(tciafs("status", drive.path, "--json").stdout)
        assert over_socket.keys() == told.keys()
        assert over_socket["fuse"] == told["fuse"]
        page = tciafs("status", drive.path).stdout
        assert "API v4, layout descriptive" in page
        assert "1 files" in page


def check_metrics(text: str, told: dict[str, Any]) -> None:
    families = list(text_string_to_metric_families(text))
    assert {family.name.partition("_")[0] for family in families} == {"tciafs"}
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name != "tciafs_info"
    }
    assert samples["tciafs_archive_up",] == 1
    assert samples["tciafs_cache_bytes",] == told["cache"]["bytes"]
    assert samples["tciafs_cache_misses_total",] == samples["tciafs_transfers_completed_total",] == 1
    for endpoint, count in told["requests"].items():
        assert samples["tciafs_requests_total", endpoint] == count
    for operation, count in told["fuse"].items():
        assert samples["tciafs_fuse_operations_total", operation] == count


def check_settings(file: Path, copy: Path, mountpoint: Path) -> None:
    copy.write_bytes(file.read_bytes())
    config = Sources(copy).config(mountpoint, {})
    assert (config.umask, config.ttl_listings, config.proxy) == (0o27, 1234.5, None)
    assert effective(config) == file.read_bytes()


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://me:s3cr:et@host:3128", "http://me@host:3128"),
        ("http://me:s3cr/et@host", "http://me"),  # no address at all, hence refused before it comes here
        ("http://host:3128", "http://host:3128"),
    ],
)
def test_settings_are_told_without_passwords(tmp_path: Path, proxy: str, shown: str):
    with contextlib.suppress(ValueError):
        config = Config(mountpoint=tmp_path / "d\n\x1b", cache_dir=tmp_path / "c", proxy=proxy, uid=7)
        text = effective(config)
        (tmp_path / "file").write_bytes(text)
        again = Sources(tmp_path / "file").config(config.mountpoint, {})
        assert (again.proxy, again.uid, again.gid) == (shown, 7, None)
        assert b"s3cr" not in text
        assert b"\x1b" not in text


def test_a_socket_is_its_users_alone_and_nothing_that_is_sent_harms(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        path = socket_of(drive)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        idle = [socket.socket(socket.AF_UNIX) for _ in range(10)]
        for connection in idle:
            connection.connect(str(path))
        for request, expected in [
            (b"\n", "line of JSON"),
            (b"\xff\xfe\0\n", "line of JSON"),
            (b"[" * 60_000 + b"\n", "line of JSON"),
            (b"[1]\n", "JSON object"),
            (b"{}\n", "there are status, refresh"),
            (b'{"do": ["status"]}\n', "there are status, refresh"),
            (b'{"do": "refresh"}\n', "list of names"),
            (b'{"do": "refresh", "path": [1]}\n', "list of names"),
        ]:
            (answer,) = said(path, request)
            assert expected in str(answer["error"])
        said(path, b"x" * (1 << 20))  # it breaks off
        (answer,) = said(path, b'{"do": "status"}\n')
        assert answer["status"]["mount"]["socket"] == str(path)  # type: ignore[index]
        began = time.monotonic()
        for connection in idle:
            connection.settimeout(15)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(1) == b""
            connection.close()
        assert time.monotonic() - began < 15
        check_strangers(path)
    assert not path.exists()


def check_strangers(path: Path) -> None:
    """Let another user ask: the directory keeps them out, and where that is open, the process does."""
    if os.getuid() != 0:
        return
    ask = (
        "import os, socket, sys\nos.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1000).decode())"
    )
    command = ["/usr/bin/env", "python3", "-c", ask, str(path)]
    assert "PermissionError" in subprocess.run(command, capture_output=True, text=True).stderr
    path.parent.chmod(0o711)
    path.chmod(0o666)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        assert "only the drive's own user and root may ask" in done.stdout, done.stderr
    finally:
        path.parent.chmod(0o700)


def test_a_socket_is_found_in_the_runtime_directory_and_replaces_a_dead_one(
    tmp_path_factory: pytest.TempPathFactory, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
):
    room = tmp_path_factory.mktemp("r")
    runtime = room / "run"
    runtime.mkdir()
    if len(str(runtime)) > 80:
        pytest.skip("the directory of the tests has too long a name")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    directory = private_directory()
    assert directory == runtime / "tciafs"
    for minor in range(300):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / str(minor)))
    with mounted(room, archive.url) as drive:
        path = socket_of(drive)
        assert path.parent == directory
        mount = mount_at(drive.path)
        assert mount
        assert client.status(mount)["mount"]["pid"] == drive.process.pid
        monkeypatch.delenv("XDG_RUNTIME_DIR")  # as for root, or in cron
        assert str(drive.path) in tciafs("status", drive.path).stdout


@pytest.mark.parametrize("spoilt", ["open", "link", "long"])
def test_a_directory_that_others_may_write_to_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoilt: str
):
    runtime = tmp_path / ("x" * 100 if spoilt == "long" else "run")
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    if spoilt == "open":
        (runtime / "tciafs").mkdir()
        (runtime / "tciafs").chmod(0o777)
    elif spoilt == "link":
        (tmp_path / "else").mkdir(mode=0o700)
        (runtime / "tciafs").symlink_to(tmp_path / "else")
    directory = private_directory()
    assert directory
    assert not directory.is_relative_to(runtime)
    assert stat.S_IMODE(directory.lstat().st_mode) == 0o700


@pytest.mark.says("A drive whose process hangs costs `tciafs status` 5 seconds, and one line says so.")
def test_status_of_a_drive_that_hangs_or_is_dead_is_one_line(
    tmp_path: Path, archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch
):
    with mounted(tmp_path, archive.url) as drive:
        path, mount = socket_of(drive), mount_at(drive.path)
        assert mount
        drive.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert "did not answer within 5 s" in failed(tciafs("status", drive.path))
            assert 4 < time.monotonic() - began < 5 * 3
            path.unlink()
            monkeypatch.setattr(client, "ANSWER_SECONDS", 1.0)
            with pytest.raises(client.Unanswered, match="did not answer within 1 s"):
                client.status(mount)
        finally:
            drive.process.send_signal(signal.SIGCONT)
        assert str(drive.path) in tciafs("status", drive.path).stdout  # by .tciafs/status.json
        assert "no socket that can be reached" in failed(tciafs("refresh", drive.path))
        drive.end(signal.SIGKILL)
        for command in ("status", "refresh"):
            assert f"take the dead drive away with 'tciafs umount {drive.path}'" in failed(
                tciafs(command, drive.path)
            )
        assert "tciafs umount" in failed(tciafs("status", drive.path, "--watch"))


def watching(drive: Drive, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tciafs", "status", str(drive.path), "--watch", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_drive_is_watched_until_it_ends_or_one_has_seen_enough(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        with watching(drive) as watcher:
            assert watcher.stdout
            heads = [line for line, _ in zip(watcher.stdout, range(20), strict=False) if "API v4" in line]
            assert len(heads) > 1
            watcher.send_signal(signal.SIGINT)
            rest, errors = watcher.communicate(timeout=20)
            assert (watcher.returncode, errors) == (0, "")
            assert "\x1b" not in "".join(heads) + rest
        terminal, process = on_a_terminal("status", drive.path, "--watch")
        shown = read_until(terminal, b"up 0:", times=2)
        assert b"\x1b[" in shown
        os.write(terminal, b"\x03")
        assert process.wait(timeout=20) == 0
        os.close(terminal)
        with watching(drive, "--json") as watcher:
            assert watcher.stdout
            assert json.loads(watcher.stdout.readline())["version"] == __version__
            assert tciafs("umount", drive.path).returncode == 0
            _, errors = watcher.communicate(timeout=20)
            assert (watcher.returncode, errors) == (0, "")


def on_a_terminal(*arguments: str | Path) -> tuple[int, subprocess.Popen[bytes]]:
    ours, theirs = pty.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "tciafs", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    return ours, process


def read_until(terminal: int, wanted: bytes, times: int) -> bytes:
    shown = b""
    late = time.monotonic() + 20
    while shown.count(wanted) < times and time.monotonic() < late:
        shown += os.read(terminal, 4096)
    return shown


def test_a_drive_need_not_be_named_where_there_is_one(tmp_path: Path, archive: EmbeddedArchive):
    if os.getuid() != 0:
        pytest.skip("only root can be alone with its mounts")

    def alone(keep: str, *arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
        """Run the program where no other drives of this machine are to be seen."""
        take_away = "grep ' fuse.tciafs ' /proc/self/mounts | cut -d' ' -f2 | while read m; do"
        script = f'{take_away} [ "$m" = "{keep}" ] || umount -l "$m"; done; {prelude} exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "tciafs", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=50)

    assert alone("none", "status").stdout == "No tciafs drive is mounted.\n"
    assert "no tciafs drive is mounted" in failed(alone("none", "status", "--watch"))
    with mounted(tmp_path, archive.url) as drive:
        assert alone(str(drive.path), "status").stdout.startswith(f"{drive.path}: ")
        assert json.loads(alone(str(drive.path), "status", "--json").stdout)["version"] == __version__
        other = tmp_path / "other"
        other.mkdir()
        twice = f"mount --bind {drive.path} {other};"
        listed = alone(str(drive.path), "status", prelude=twice).stdout
        assert all(f"{path}: " in listed for path in (drive.path, other))
        error = failed(alone(str(drive.path), "status", "--json", prelude=twice))
        assert f"say which drive: {drive.path}, {other}" in error


def test_a_path_leads_into_a_drive_by_whatever_links(tmp_path: Path, archive: EmbeddedArchive):
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with mounted(tmp_path, archive.url) as drive:
        assert drive.files("Demo-CT/PHANTOM-01/*")
        (tmp_path / "near").symlink_to("drive/Demo-CT")
        (tmp_path / "far").symlink_to(tmp_path / "near" / ".." / "Demo-CT")
        for path in ("near/PHANTOM-01", "drive/../far/PHANTOM-01/../PHANTOM-01"):
            done = tciafs("refresh", path, cwd=tmp_path)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"{path}: nothing has changed\n")
        for path, error in {
            "drive/..": "in no tciafs drive",
            "round": "in no tciafs drive",
            "drive/.tciafs/metrics": "no such file or directory",
            "drive/Demo-CT/\udcff\x1b": "no such file or directory",
        }.items():
            assert error in failed(tciafs("refresh", path, cwd=tmp_path))
    assert eventually(lambda: mount_at(drive.path) is None)
