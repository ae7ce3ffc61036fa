"""The installed program as a user runs it: good use, bad use, and what it says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tciafs import __version__
from tciafs.config import Config
from tciafs.service.mountinfo import mount_at, mounts, our_mounts
from tests.archive import EmbeddedArchive
from tests.drive import mounted, require_fuse

NOBODY = "http://127.0.0.1:9/nbia-api/services"


def tciafs(*arguments: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [sys.executable, "-m", "tciafs", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, **more)  # type: ignore[call-overload, no-any-return]


def test_the_program_is_installed_and_tells_its_version():
    program = Path(sys.executable).with_name("tciafs")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"tciafs {__version__}\n"


def test_help_names_every_command_and_every_setting_of_a_mount():
    said = tciafs("--help").stdout
    assert all(command in said for command in ("mount", "umount", "status", "demo"))
    settings = set(Config.__dataclass_fields__) - {"mountpoint"}
    said = tciafs("mount", "--help").stdout
    assert {f"--{name.replace('_', '-')}" for name in settings} <= set(re.findall(r"--[a-z-]+", said))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--archive", "nowhere"), "neither one of tcia, nlst nor an address"),
        (("--archive", "ftp://x/y"), "neither one of"),
        (("--umask", "9"), "no octal number"),
        (("--umask", "7777"), "from 000 to 777"),
        (("--deadline-bytes", "0"), "--deadline-bytes must be more than 0 seconds"),
        (("--ttl-listings", "-1"), "--ttl-listings"),
        (("--layout", "flat"), "--layout"),
        (("--verify", "nothing"), "--verify"),
        (("--no-such-option",), "--no-such-option"),
    ],
)
def test_a_wrong_setting_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], said: str):
    done = tciafs("mount", tmp_path, *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert mount_at(tmp_path) is None


@pytest.mark.says(
    "A cache inside the mount point is refused.",
)
def test_a_cache_inside_the_mount_point_is_refused(tmp_path: Path):
    done = tciafs("mount", tmp_path, "--cache-dir", tmp_path / "cache")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tciafs: the cache ")
    assert "give another --cache-dir" in done.stderr


def test_a_mount_point_that_is_not_there_is_told_with_the_remedy(tmp_path: Path):
    done = tciafs("mount", tmp_path / "none", "--archive", NOBODY, "--cache-dir", tmp_path / "cache")
    assert done.returncode == 1
    assert f"make it with 'mkdir -p {tmp_path / 'none'}'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_live_drive_is_not_mounted_over(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        done = tciafs("mount", drive.path, "--archive", archive.url, "--cache-dir", tmp_path / "other")
        assert done.returncode == 1
        assert f"end it with 'tciafs umount {drive.path}'" in done.stderr
        assert os.listdir(drive.path)


def test_what_libfuse_refuses_is_told_and_leaves_nothing(tmp_path: Path):
    require_fuse()
    broken = tmp_path / "file"
    broken.write_text("")
    done = tciafs("mount", broken, "--archive", NOBODY, "--cache-dir", tmp_path / "cache")
    assert done.returncode == 1
    assert "no such directory" in done.stderr


def test_umount_ends_the_drive(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        os.listdir(drive.path)
        done = tciafs("umount", drive.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert drive.process.wait(timeout=10) == 0


def test_a_drive_is_found_by_whatever_path_leads_to_it(tmp_path: Path, archive: EmbeddedArchive):
    (tmp_path / "link").symlink_to(tmp_path)
    with mounted(tmp_path, archive.url) as drive:
        assert "archive    " in tciafs("status", "../drive", cwd=tmp_path / "cache").stdout
        assert tciafs("umount", tmp_path / "link" / "drive").returncode == 0
        assert drive.process.wait(timeout=10) == 0


def test_umount_of_a_busy_drive_says_so_and_leaves_it(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files("Demo-CT/*/*/*/*")[0]
        with file.open("rb"):
            done = tciafs("umount", drive.path)
            assert done.returncode == 1
            comm = Path("/proc/self/comm").read_text().strip()
            assert f"still in use by {comm} ({os.getpid()}); end these" in done.stderr
        assert file.read_bytes()


def test_umount_of_what_is_no_drive_says_so(tmp_path: Path):
    for path in (tmp_path, Path("/proc"), tmp_path / "none"):
        done = tciafs("umount", path)
        assert done.returncode == 1
        assert "no tciafs drive is mounted there" in done.stderr


def test_umount_takes_a_dead_drive_away(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        drive.end(signal.SIGKILL)
        assert "'tciafs umount" in tciafs("status", drive.path).stderr
        assert tciafs("umount", drive.path).returncode == 0
        assert mount_at(drive.path) is None


def test_status_tells_people_and_programs_what_a_drive_does(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url) as drive:
        file = drive.files("Demo-CT/PHANTOM-01/*/*/*")[0]
        file.read_bytes()
        told = drive.status()
        assert told["version"] == __version__
        assert told["archive"]["state"] == "up"
        assert told["requests"]["v4/getSingleImage"] == 1
        assert told["transfers"] == {"active": 0, "completed": 1, "failed": 0, "bytes": file.stat().st_size}
        assert told["fuse"]["open"] == 1
        page = tciafs("status", drive.path).stdout
        assert page.startswith(f"{drive.path}: ")
        assert "1 completed" in page
        assert str(drive.path) in tciafs("status").stdout
        assert tciafs("status", "--json", drive.path).stdout.startswith("{")
        archive.faults(rules=[{"do": "status", "status": 503, "body": "\x1b[31mtoo\nmany"}])
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(drive.path / "Demo-Mixed")
        page = tciafs("status", drive.path).stdout
        assert "last error v4/getPatient: HTTP 503" in page
        assert "\x1b" not in page


def test_status_of_what_is_no_drive_says_so(tmp_path: Path):
    done = tciafs("status", tmp_path)
    assert done.returncode == 1
    assert "no tciafs drive is mounted there" in done.stderr


def test_the_demo_shows_a_tree_a_header_and_a_picture_and_leaves_nothing(tmp_path: Path):
    require_fuse()
    done = tciafs("demo", "--once", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for expected in ("Demo-CT/", "1-001.dcm", "… and 117 more", "PatientID          PHANTOM-01"):
        assert expected in done.stdout
    picture = Path(done.stdout.partition("Its picture: ")[2].strip())
    with Image.open(picture) as image:
        assert image.size == (256, 256)
        assert image.getextrema() == (0, 255)
    assert [mount for mount in our_mounts() if mount.mountpoint.is_relative_to(tmp_path)] == []
    left = [path for path in tmp_path.iterdir() if path.name != f"tciafs-{os.getuid()}"]  # for sockets
    assert left == [picture]


def test_the_demo_serves_a_folder_of_ones_own(tmp_path: Path, real_data: Path):
    require_fuse()
    done = tciafs("demo", "--once", "--data", real_data, "--latency", "1", "--bandwidth", "1000")
    assert done.returncode == 0, done.stderr
    assert "Soft-tissue-Sarcoma/" in done.stdout
    Path(done.stdout.partition("Its picture: ")[2].strip()).unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_stays_until_it_is_interrupted(tmp_path: Path, number: int):
    require_fuse()
    path = tmp_path / "drive"
    path.mkdir()
    command = [sys.executable, "-m", "tciafs", "demo", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        for line in demo.stdout:
            if "Ctrl-C here ends the demo" in line:
                break
            if line.startswith("Its picture: "):
                Path(line.partition(": ")[2].strip()).unlink()
        assert len(os.listdir(path)) == 4  # three collections, and the policy
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=20)
        assert (demo.returncode, errors) == (0, "")
    assert mount_at(path) is None


def test_the_demo_tells_why_it_cannot_mount(tmp_path: Path):
    done = tciafs("demo", tmp_path / "none", "--once")
    assert done.returncode == 1
    assert done.stderr.startswith(f"tciafs: {tmp_path / 'none'}: no such directory")


def test_the_table_of_mounts_is_read_with_odd_names(tmp_path: Path, archive: EmbeddedArchive):
    room = tmp_path / "a b\t\\c"
    room.mkdir()
    with mounted(room, archive.url) as drive:
        assert mount_at(drive.path) in our_mounts()
    assert any(mount.mountpoint == Path("/") for mount in mounts())


def test_an_interrupt_at_any_moment_ends_in_order(tmp_path: Path, archive: EmbeddedArchive):
    require_fuse()
    path = tmp_path / "drive"
    path.mkdir()
    flags = ["--archive", archive.url, "--cache-dir", str(tmp_path / "cache")]
    for delay in (0.3, 0.6, 0.9, 1.2):
        with subprocess.Popen(
            [sys.executable, "-m", "tciafs", "mount", str(path), *flags], stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert process.returncode in (0, 1, -signal.SIGINT), errors
        assert mount_at(path) is None
