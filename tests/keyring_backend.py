"""A keyring for tests: a file in the home directory, in place of the desktop's service."""

from __future__ import annotations

import json
from pathlib import Path

from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

NAME = f"{__name__}.FileKeyring"


def path() -> Path:
    """Return where it keeps what it is given; there is no keyring of the kind outside of tests."""
    return Path.home() / "keyring.json"


class FileKeyring(KeyringBackend):
    """Keep secrets in a file; it is locked while the file says nothing that can be read."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        """Return a secret."""
        secret: str | None = self._read().get(f"{service}/{username}")
        return secret

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a secret."""
        path().write_text(json.dumps(self._read() | {f"{service}/{username}": password}))

    def delete_password(self, service: str, username: str) -> None:
        """Forget a secret."""
        kept = self._read()
        if kept.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError("not there")
        path().write_text(json.dumps(kept))

    def _read(self) -> dict[str, str]:
        try:
            kept: dict[str, str] = json.loads(path().read_text())
        except FileNotFoundError:
            return {}
        except ValueError as exc:
            raise KeyringLocked("it is locked") from exc
        return kept
