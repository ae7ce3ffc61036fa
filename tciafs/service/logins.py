"""Where the login of an archive is kept: a file of this user's says whose it is; the refresh token is in the
system's keyring, or in that file where the user said so.

A password is never kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs

from tciafs.archives.meanings import one_line
from tciafs.config import Config

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

T = TypeVar("T")

KEYRING, FILE = STORES = ("keyring", "file")


class CannotKeep(Exception):
    """A login cannot be read or kept; the message says why, and what would do."""


@dataclass(frozen=True, slots=True)
class _Kept:
    account: str
    store: str
    refresh_token: str | None  # in the file alone


class Logins:
    """The login of one archive, if there is one: the last that was begun."""

    def __init__(self, config: Config) -> None:
        self.path = platformdirs.user_state_path("tciafs") / "logins" / f"{config.archive_name}.json"
        self._service = f"tciafs {config.archive_name}"

    @property
    def account(self) -> str | None:
        """Return whose login there is; raise `CannotKeep` where that cannot be told."""
        kept = self._read()
        return kept.account if kept else None

    def token_of(self, account: str) -> str | None:
        """Return the refresh token of an account's login, None where there is none any more."""
        kept = self._read()
        if kept is None or kept.account != account:
            return None
        if kept.store == FILE:
            return kept.refresh_token
        return _asked(lambda ring: ring.get_password(self._service, account))

    def check(self, store: str) -> None:
        """Raise `CannotKeep` where nothing can be kept in a store."""
        if store == KEYRING:
            _keyring()

    def keep(self, account: str, refresh_token: str, store: str) -> None:
        """Keep a login in place of the one that was there."""
        before = self._read()
        if store == KEYRING:
            _asked(lambda ring: ring.set_password(self._service, account, refresh_token))
            if _asked(lambda ring: ring.get_password(self._service, account)) != refresh_token:
                raise CannotKeep(_no_keyring("it keeps nothing"))
        self._write(_Kept(account, store, refresh_token if store == FILE else None))
        if before and before.store == KEYRING and (account, store) != (before.account, KEYRING):
            self._delete_from_keyring(before.account)

    def replace(self, account: str, old: str, new: str) -> None:
        """Keep a refresh token that was renewed, unless the login was ended or begun anew meanwhile."""
        kept = self._read()
        if kept and self.token_of(account) == old:
            self.keep(account, new, kept.store)

    def remove(self) -> None:
        """Forget the login."""
        kept = self._read()
        self.path.unlink(missing_ok=True)
        if kept and kept.store == KEYRING:
            self._delete_from_keyring(kept.account)

    def _read(self) -> _Kept | None:
        try:
            told = json.loads(self.path.read_bytes())
            kept = _Kept(told["account"], told["store"], told.get("refresh_token"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise CannotKeep(f"the login in {self.path} cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise CannotKeep(f"{self.path} is no login that can be read: remove it and log in again") from exc
        if not isinstance(kept.account, str) or kept.store not in STORES:
            raise CannotKeep(f"{self.path} is no login that can be read: remove it and log in again")
        return kept

    def _write(self, kept: _Kept) -> None:
        """Write the file anew, at no moment for anybody else to read."""
        told = {"account": kept.account, "store": kept.store}
        if kept.refresh_token is not None:
            told["refresh_token"] = kept.refresh_token
        beside = self.path.with_name(f".{self.path.name}.part-{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(beside, flags, 0o600), "w") as file:
                json.dump(told, file)
            beside.replace(self.path)
        except OSError as exc:
            raise CannotKeep(f"the login cannot be written to {self.path}: {exc.strerror}") from exc

    def _delete_from_keyring(self, account: str) -> None:
        if _asked(lambda ring: ring.get_password(self._service, account)) is not None:
            _asked(lambda ring: ring.delete_password(self._service, account))


def _keyring() -> KeyringBackend:
    """Return the system's keyring; raise `CannotKeep` where there is none."""
    try:
        import keyring  # of the extra `login`: who mounts as a guest needs none
        from keyring.backends import fail, null
    except ImportError as exc:
        raise CannotKeep(_no_keyring("the package 'keyring' is not installed")) from exc
    found = keyring.get_keyring()
    if isinstance(found, fail.Keyring | null.Keyring):
        raise CannotKeep(_no_keyring("this system offers none"))
    return found


def _asked(question: Callable[[KeyringBackend], T]) -> T:
    ring: Any = _keyring()
    try:
        return question(ring)
    except Exception as exc:  # each backend has errors of its own: D-Bus's, the operating system's
        why = one_line(str(exc)) or type(exc).__name__
        raise CannotKeep(f"the keyring does not answer: {why}") from exc


def _no_keyring(why: str) -> str:
    return (
        f"there is no keyring to keep a login in ({why}): add --store file to keep it in a file that only"
        " you can read"
    )
