"""Where an archive exchanges passwords for tokens, renews and revokes them (nbia-api: section 5).

What is sent and what comes is secret: no error, and no text of these objects, has any of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import msgspec
import trio

from tciafs.archives.base import BadAnswer, Failed, Refused, Unavailable
from tciafs.archives.bodies import send_at_once
from tciafs.archives.http import USER_AGENT
from tciafs.archives.meanings import CONNECT_SECONDS, decode, error_of, meaning_of, one_line

_TOKEN = "oauth/token"
_LOGOUT = "logout"
_CLIENT = "nbia"  # the archive puts its own in place of it for a password
_SECONDS = 10.0


class _TokenRow(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None
    expires_in: float = 60.0
    refresh_expires_in: float | None = None


class _Denial(msgspec.Struct):
    error: str
    error_description: str = ""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login gives: seconds are counted from now; `refresh_seconds` is None where it has no end."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    seconds: float
    refresh_seconds: float | None


class TokenEndpoint:
    """The tokens of one archive."""

    def __init__(self, base_url: str, client: httpx.AsyncClient) -> None:
        self._root = base_url.rstrip("/").removesuffix("/services")
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, base_url: str, proxy: str | None = None) -> AsyncIterator[TokenEndpoint]:
        """Hold the connection to the archive whose services are at `base_url`; nothing is sent yet."""
        timeout = httpx.Timeout(_SECONDS, connect=CONNECT_SECONDS)
        headers = {"User-Agent": USER_AGENT, "Accept": "application/json"}
        hooks = {"request": [send_at_once]}
        async with httpx.AsyncClient(
            proxy=proxy, headers=headers, timeout=timeout, event_hooks=hooks
        ) as client:
            yield cls(base_url, client)

    async def exchange(self, account: str, password: str) -> Tokens:
        """Return tokens for a password; raise `Refused` where it is wrong."""
        form = {"grant_type": "password", "username": account, "password": password, "scope": "openid"}
        return await self._tokens(form)

    async def renew(self, refresh: str) -> Tokens:
        """Return new tokens for a refresh token; raise `Refused` where it is worth nothing any more."""
        return await self._tokens({"grant_type": "refresh_token", "refresh_token": refresh}, refresh)

    async def revoke(self, refresh: str) -> None:
        """Let no token of the login be worth anything; raise `ArchiveError` where that may have failed."""
        await self._post(_LOGOUT, {"refresh_token": refresh})

    async def _tokens(self, form: dict[str, str], refresh: str = "") -> Tokens:
        row = decode(_TOKEN, await self._post(_TOKEN, form), _TokenRow)
        refresh = row.refresh_token or refresh
        if not refresh or not _is_token(row.access_token):
            raise BadAnswer(f"{_TOKEN}: the answer holds no tokens")
        return Tokens(row.access_token, refresh, row.expires_in, row.refresh_expires_in or None)

    async def _post(self, endpoint: str, form: dict[str, str]) -> bytes:
        try:
            with trio.fail_after(_SECONDS):
                url = f"{self._root}/{endpoint}"
                response = await self._client.post(url, data={"client_id": _CLIENT, **form})
        except trio.TooSlowError as exc:
            raise Unavailable(f"{endpoint}: no answer within {_SECONDS:.0f} s") from exc
        except httpx.HTTPError as exc:
            raise Unavailable(f"{endpoint}: {meaning_of(exc)}") from exc
        if response.is_success:
            return response.content
        if response.status_code in (400, 401, 403) and (why := _denial(response.content)):
            raise Refused(why)
        error = error_of(endpoint, response, "")
        # Without a reason it is a proxy's: no login is given up for that.
        raise Failed(str(error)) if isinstance(error, Refused) else error


def _denial(body: bytes) -> str | None:
    """Return why a login is refused, in the archive's words (RFC 6749 section 5.2)."""
    try:
        row = msgspec.json.decode(body, type=_Denial)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return one_line(row.error_description or row.error)


def _is_token(text: str) -> bool:
    """Tell whether it can stand in a header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text
