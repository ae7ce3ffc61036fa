"""Drives of accounts: what each may see, tokens that expire under readers, revoked rights, secrets."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio

from tciafs.archives.oauth import TokenEndpoint
from tciafs.config import Config
from tciafs.demo.tokens import PASSWORDS
from tciafs.service.logins import FILE, Logins
from tests.archive import EmbeddedArchive, start_archive
from tests.drive import Drive, mounted
from tests.test_cli import tciafs
from tests.test_mount import raised

OPEN = ["DATA-USAGE-POLICY.txt", "Demo MR", "Demo-CT", "Demo-Mixed"]
CLOSED = "Demo-Restricted"
FILES = f"{CLOSED}/P-*/*/*/*.dcm"
SLICES = 200
TOKEN = "oauth/token"


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedArchive]:
    with start_archive() as archive:
        archive.edit(synthetic={"collection": CLOSED, "patient_id": "LONG", "series_of": SLICES})
        yield archive


@pytest.fixture
def archive(own: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedArchive:
    """Serve the sample data, and 200 slices that are restricted, to a home without logins."""
    use_home(tmp_path, monkeypatch)
    own.reset()
    return own


def use_home(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(path))


def log_in(archive: EmbeddedArchive, account: str = "alice") -> None:
    """Keep a login in a file, as the command does, which tests/test_logins.py holds to it."""

    async def ask() -> str:
        async with TokenEndpoint.connect(archive.url) as endpoint:
            return (await endpoint.exchange(account, PASSWORDS[account])).refresh

    config = Config(mountpoint=Path("/m"), cache_dir=Path("/c"), archive=archive.url)
    Logins(config).keep(account, trio.run(ask), FILE)
    archive.forget()


def causes(drive: Drive) -> str:
    return (drive.path / ".tciafs" / "errors.log").read_text()


@pytest.mark.says(
    "A drive that is mounted while there is a login shows what its account may see, and with"
    " `--account guest` what guests may.",
    "What a login brought is kept for its account alone: on the same cache directory, another account or a"
    " guest can neither list nor read it.",
)
def test_accounts_and_guests_share_a_cache_directory_and_nothing_of_what_is_restricted(
    tmp_path: Path, archive: EmbeddedArchive
):
    log_in(archive)
    with mounted(tmp_path, archive.url) as drive:
        assert os.listdir(drive.path) == [*OPEN, CLOSED]
        assert [len(file.read_bytes()) for file in drive.files(FILES)]
        assert drive.status()["archive"]["account"] == "alice"
        path = drive.files(FILES)[0].relative_to(drive.path)
        shared = next((drive.path / "Demo-CT").glob("*/*/*/1-001.dcm"))
        content = shared.read_bytes()
        with mounted(tmp_path, archive.url, "--account", "guest", name="guests") as guests:
            assert os.listdir(guests.path) == OPEN
            assert raised((guests.path / path).read_bytes) == errno.ENOENT
            assert raised((guests.path / CLOSED).stat) == errno.ENOENT
            assert (guests.path / shared.relative_to(drive.path)).read_bytes() == content
            assert guests.status()["archive"]["account"] == "guest"
        log_in(archive, "bob")
        with mounted(tmp_path, archive.url, name="bobs") as bobs:
            assert os.listdir(bobs.path) == OPEN
            assert raised((bobs.path / path).read_bytes) == errno.ENOENT
            assert bobs.status()["archive"]["account"] == "bob"
    (kept,) = [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]
    accounts = {each.name.partition("-")[0]: each for each in kept.iterdir()}
    assert sorted(accounts) == ["alice", "bob", "guest"]
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o700 for each in accounts.values())
    for name in ("bob", "guest"):
        for each in accounts[name].rglob("*.sqlite*"):
            assert CLOSED.encode() not in each.read_bytes()


def test_what_an_account_saw_is_shown_to_it_alone_when_the_archive_is_away(
    tmp_path: Path, archive: EmbeddedArchive
):
    log_in(archive)
    with mounted(tmp_path, archive.url) as drive:
        content = {file.relative_to(drive.path): file.read_bytes() for file in drive.files(FILES)}
    assert len(content) == 8
    archive.faults(rules=[{"do": "status", "status": 503}])
    with mounted(tmp_path, archive.url) as drive:
        assert {file.relative_to(drive.path): file.read_bytes() for file in drive.files(FILES)} == content
        assert raised(lambda: os.listdir(drive.path / "Demo-CT")) == errno.EIO
        assert "EIO: oauth/token: HTTP 503" in causes(drive)
        with mounted(tmp_path, archive.url, "--account", "guest", name="guests") as guests:
            assert raised(lambda: os.listdir(guests.path)) == errno.EIO


def long_series(drive: Drive) -> list[Path]:
    files = drive.files(f"{CLOSED}/LONG/*/*/*.dcm")
    assert len(files) == SLICES
    return files


def test_tokens_that_live_for_seconds_are_renewed_while_two_hundred_slices_are_read(
    tmp_path: Path, archive: EmbeddedArchive
):
    archive.realm(access_seconds=5, told_seconds=1)  # a busy machine may take a while to show a token
    log_in(archive)
    with mounted(tmp_path, archive.url, "--ahead", "off") as drive:
        files = long_series(drive)
        archive.forget()
        archive.faults(latency_ms=40)
        with ThreadPoolExecutor(4) as readers:  # 2 s at least
            content = set(readers.map(Path.read_bytes, files))
        assert len(content) == SLICES
        assert causes(drive) == ""
    assert archive.requests()[TOKEN] >= 1
    assert archive.requests()["v4/getSingleImage"] == SLICES  # none was refused
    assert archive.high_water()[TOKEN] == 1


@pytest.mark.says(
    "A token that expires while a series is read costs no reader an error, and is renewed once for all who"
    " need it."
)
def test_a_token_that_expires_in_the_middle_of_two_hundred_slices_is_renewed_once(
    tmp_path: Path, archive: EmbeddedArchive
):
    def read(number: int, file: Path) -> bytes:
        if number == SLICES // 2:
            archive.expire_tokens()
        return file.read_bytes()

    log_in(archive)
    with mounted(tmp_path, archive.url, "--ahead", "off") as drive:
        files = long_series(drive)
        archive.forget()
        with ThreadPoolExecutor(8) as readers:
            content = set(readers.map(read, range(SLICES), files))
        assert len(content) == SLICES
        assert causes(drive) == ""
    asked = archive.requests()
    assert asked[TOKEN] == 1
    assert asked["v4/getSingleImage"] + asked["v4/getMD5HashForImage"] > 2 * SLICES  # some were refused


@pytest.mark.says(
    "What the account may not see any more is EACCES, with the reason in `.tciafs/errors.log`; what it read"
    " before stays readable."
)
def test_a_right_that_is_revoked_is_a_lack_of_permission(tmp_path: Path, archive: EmbeddedArchive):
    log_in(archive)
    with mounted(tmp_path, archive.url, "--ahead", "off") as drive:
        read, unread, *_ = drive.files(f"{CLOSED}/LONG/*/*/*.dcm")
        content = read.read_bytes()
        (drive.path / CLOSED / "P-000001").stat()
        archive.realm(rights={})
        assert raised(unread.read_bytes) == errno.EACCES
        assert raised(lambda: os.listdir(drive.path / CLOSED / "P-000001")) == errno.EACCES
        assert read.read_bytes() == content
        assert len(drive.files("Demo-CT/*/*/*/*")) > 100
        reason = "EACCES: alice may not see Demo-Restricted any more, or the archive has it no longer"
        assert [line.partition("Z ")[2] for line in causes(drive).splitlines()] == [
            f"open /{unread.relative_to(drive.path)}: {reason}",
            f"opendir /{CLOSED}/P-000001: {reason}",
        ]
        archive.realm()
        assert unread.read_bytes() != content


@pytest.mark.says(
    "A login that has ended at the archive is EACCES with the reason, and after `tciafs login` the drive goes"
    " on without a new mount."
)
def test_a_login_that_has_ended_can_be_begun_anew_under_a_drive(tmp_path: Path, archive: EmbeddedArchive):
    log_in(archive)
    with mounted(tmp_path, archive.url, expect="the login of alice is refused") as drive:
        os.listdir(drive.path)
        archive.end_sessions()
        assert raised(lambda: os.listdir(drive.path / CLOSED)) == errno.EACCES
        said = "EACCES: the login of alice is refused (Token is not active); log in again: tciafs login"
        assert said in causes(drive)
        log_in(archive)
        assert len(drive.files(FILES)) == 8


def test_an_account_must_be_the_one_that_is_logged_in(tmp_path: Path, archive: EmbeddedArchive):
    def refused(*flags: str) -> str:
        done = tciafs("mount", tmp_path / "nowhere", "--archive", archive.url, *flags)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "alice is not logged in to 127.0.0.1_" in refused("--account", "alice")
    log_in(archive)
    assert "bob is not logged in to" in (said := refused("--account", "bob"))
    assert said.endswith("; the login there is of alice: use 'tciafs login'\n")


@pytest.mark.says(
    "`--allow-other` is refused with a login, unless `--share-restricted` says that others may."
)
def test_what_is_restricted_is_not_shared_unawares(tmp_path: Path, archive: EmbeddedArchive):
    log_in(archive)
    arguments = ("mount", tmp_path / "nowhere", "--archive", archive.url, "--allow-other")
    done = tciafs(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("tciafs: --allow-other would let others read what only alice may: ")
    for flag in (("--share-restricted",), ("--account", "guest")):
        assert "no such directory" in tciafs(*arguments, *flag).stderr
    assert archive.requests() == {}


@pytest.mark.says(
    "Tokens and passwords stand in no log, status, error message, argument list or file that others may read."
)
def test_secrets_are_told_nowhere(tmp_path: Path, archive: EmbeddedArchive):
    said: list[str] = []

    def run(*arguments: str | Path, **more: object) -> None:
        done = tciafs(*arguments, **more)
        said.extend((done.stdout, done.stderr))

    (tmp_path / "drive").mkdir()
    password = PASSWORDS["alice"]
    flags = ["--username", "alice", "--password-stdin", "--store", "file"]
    run("-vv", "login", archive.url, *flags, input=f"{password}\n")
    drive = tmp_path / "drive"
    log = ["--log-format", "json", "--cache-dir", str(tmp_path / "cache"), "--keep-free", "0"]
    try:
        run("-vv", "mount", drive, "--archive", archive.url, "--daemon", *log)
        pid = json.loads((drive / ".tciafs" / "status.json").read_text())["mount"]["pid"]
        files = list(drive.glob(FILES))
        archive.expire_tokens()
        assert all(file.read_bytes() for file in files)
        archive.faults(rules=[{"do": "status", "status": 401, "endpoint": "getPatient"}])
        assert raised(lambda: os.listdir(drive / "Demo MR")) == errno.EACCES
        said += [Path(f"/proc/{pid}/{name}").read_bytes().decode() for name in ("cmdline", "environ")]
        said += [(drive / ".tciafs" / name).read_text() for name in os.listdir(drive / ".tciafs")]
        run("status", drive, "--json")
    finally:
        run("umount", drive)
    run("-vv", "logout", archive.url)
    archive.faults()
    secrets = [password, *archive.tokens()]
    assert len(secrets) > 4
    for path in tmp_path.rglob("*"):
        if path.is_file():
            said.append(path.read_bytes().decode(errors="replace"))
    assert any("oauth/token" in each for each in said), "the log says what is asked"
    assert not [secret for secret in secrets for each in said if secret in each]
