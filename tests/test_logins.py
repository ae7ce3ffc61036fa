"""`tciafs login` and `logout` as a user runs them, and where a login is kept."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tciafs.config import Config
from tciafs.demo.tokens import PASSWORDS
from tciafs.service.logins import FILE, KEYRING, CannotKeep, Logins
from tests import keyring_backend
from tests.archive import EmbeddedArchive, start_archive
from tests.test_cli import tciafs

ALICE = PASSWORDS["alice"]
NOBODY = "http://127.0.0.1:9/nbia-api/services"
NO_KEYRING = "keyring.backends.fail.Keyring"


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedArchive]:
    with start_archive() as archive:
        yield archive


@pytest.fixture
def archive(own: EmbeddedArchive) -> EmbeddedArchive:
    own.reset()
    return own


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home with a keyring, and without logins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    use_keyring(monkeypatch, keyring_backend.NAME)
    return tmp_path


def use_keyring(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let processes that are started, and this one, use a keyring of this name."""
    import keyring
    import keyring.core

    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", name)
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.core.load_keyring(name))


def logins(archive: str) -> Logins:
    return Logins(Config(mountpoint=Path("/m"), cache_dir=Path("/c"), archive=archive))


def log_in(archive: EmbeddedArchive, *flags: str, password: str = ALICE) -> subprocess.CompletedProcess[str]:
    arguments = ("login", archive.url, "--username", "alice", "--password-stdin", *flags)
    return tciafs(*arguments, input=f"{password}\n")


def is_worth_something(archive: EmbeddedArchive, token: str) -> bool:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    url = archive.url.removesuffix("/services") + "/oauth/token"
    return httpx.post(url, data=form, trust_env=False).is_success


@pytest.mark.parametrize("store", [KEYRING, FILE])
@pytest.mark.says("`tciafs logout` ends a login at the archive, and removes what was kept of it.")
def test_a_login_is_kept_until_a_logout_which_tells_the_archive(
    archive: EmbeddedArchive, home: Path, store: str
):
    done = log_in(archive, "--store", store)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("alice is logged in to 127.0.0.1_")
    kept = logins(archive.url)
    assert kept.account == "alice"
    token = kept.token_of("alice")
    assert token in archive.tokens()
    assert (token in kept.path.read_text()) is (store == FILE)
    assert kept.token_of("bob") is None
    done = tciafs("logout", archive.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert not kept.path.exists()
    assert kept.token_of("alice") is None
    assert not is_worth_something(archive, token)
    left = keyring_backend.path()
    assert not left.exists() or json.loads(left.read_text()) == {}


def test_the_file_is_never_for_others_to_read(archive: EmbeddedArchive, home: Path):
    before = os.umask(0)
    try:
        assert log_in(archive, "--store", "file").returncode == 0
    finally:
        os.umask(before)
    path = logins(archive.url).path
    assert path.is_relative_to(home / ".local" / "state" / "tciafs")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_a_keyring_nothing_is_asked_for(archive: EmbeddedArchive, monkeypatch: pytest.MonkeyPatch):
    use_keyring(monkeypatch, NO_KEYRING)
    done = log_in(archive)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tciafs: there is no keyring to keep a login in (this system offers none)")
    assert "add --store file" in done.stderr
    assert done.stderr.count("\n") == 1
    assert archive.requests() == {}
    assert log_in(archive, "--store", "file").returncode == 0


def test_without_the_package_or_a_keyring_that_keeps_anything_the_same_is_said(
    monkeypatch: pytest.MonkeyPatch,
):
    use_keyring(monkeypatch, "keyring.backends.null.Keyring")
    with pytest.raises(CannotKeep, match=r"this system offers none\): add --store file"):
        logins(NOBODY).check(KEYRING)
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(CannotKeep, match="the package 'keyring' is not installed"):
        logins(NOBODY).check(KEYRING)
    logins(NOBODY).check(FILE)


def test_a_keyring_that_does_not_open_is_told(archive: EmbeddedArchive):
    keyring_backend.path().write_text("locked")
    done = log_in(archive)
    assert done.returncode == 1
    assert done.stderr == "tciafs: the keyring does not answer: it is locked\n"
    assert logins(archive.url).account is None


@pytest.mark.parametrize(
    ("arguments", "password", "said"),
    [
        (("--password-stdin",), "no", "does not let alice in: Invalid user credentials\n"),
        (("--password-stdin",), "", "no password was given\n"),
        ((), "", "there is no terminal to ask at: give --password-stdin\n"),
        (("--username", "guest"), "", "a guest needs no login\n"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    archive: EmbeddedArchive, arguments: tuple[str, ...], password: str, said: str
):
    done = tciafs("login", archive.url, "--username", "alice", *arguments, input=f"{password}\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tciafs: ")
    assert done.stderr.endswith(said)
    assert done.stderr.count("\n") == 1
    assert logins(archive.url).account is None


def test_an_archive_that_is_away_gives_no_login_and_does_not_keep_one():
    done = tciafs("login", NOBODY, "--username", "alice", "--password-stdin", input="x\n")
    assert done.returncode == 1
    assert "gives no login: oauth/token: " in done.stderr
    assert done.stderr.count("\n") == 1
    kept = logins(NOBODY)
    kept.keep("alice", "a token", FILE)
    done = tciafs("logout", NOBODY)
    assert (done.returncode, kept.account) == (0, None)
    assert "the archive could not be told (logout: " in done.stderr
    done = tciafs("logout", NOBODY)
    assert (done.returncode, done.stderr) == (1, "tciafs: there is no login to 127.0.0.1_9-f930ee26\n")


def test_a_password_is_not_sent_without_encryption_to_another_machine():
    url = "http://nbia.invalid/nbia-api/services"
    done = tciafs("login", url, "--username", "alice", "--password-stdin", input="x\n")
    assert done.returncode == 1
    assert "is asked without encryption: give its https address to log in" in done.stderr


def test_at_a_terminal_name_and_password_are_asked_for_and_the_latter_is_not_shown(archive: EmbeddedArchive):
    master, slave = pty.openpty()
    command = ["setsid", "--ctty", sys.executable, "-m", "tciafs", "login", archive.url]
    terminal = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        for question, answer in ((b"Username at ", "alice"), (b"Password of alice: ", ALICE)):
            while question not in shown:
                shown += os.read(master, 1000)
            os.write(master, f"{answer}\n".encode())
        while b"is logged in to" not in shown:
            shown += os.read(master, 1000)
        assert terminal.wait(timeout=40) == 0
    finally:
        terminal.kill()
        terminal.wait()
        os.close(master)
    assert ALICE.encode() not in shown
    assert logins(archive.url).account == "alice"


def test_a_login_takes_the_place_of_the_one_before(home: Path):
    kept = logins(NOBODY)
    kept.keep("alice", "hers", KEYRING)
    kept.keep("bob", "his", KEYRING)
    assert (kept.account, kept.token_of("alice"), kept.token_of("bob")) == ("bob", None, "his")
    kept.keep("bob", "another", FILE)
    assert kept.token_of("bob") == "another"
    assert json.loads(keyring_backend.path().read_text()) == {}
    assert logins("tcia").account is None


@pytest.mark.parametrize("store", [KEYRING, FILE])
def test_what_was_renewed_is_kept_unless_the_login_is_another_by_now(store: str):
    kept = logins(NOBODY)
    kept.replace("alice", "1", "2")  # logged out meanwhile
    assert kept.account is None
    kept.keep("alice", "1", store)
    kept.replace("alice", "1", "2")
    assert kept.token_of("alice") == "2"
    kept.replace("alice", "1", "3")
    kept.replace("bob", "2", "3")
    assert kept.token_of("alice") == "2"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"account": 1, "store": "file"}', "[" * 100_000, "\udcff"])
def test_a_file_that_is_no_login_is_told(home: Path, text: str):
    path = logins(NOBODY).path
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CannotKeep, match="is no login that can be read: remove it and log in again"):
        _ = logins(NOBODY).account
