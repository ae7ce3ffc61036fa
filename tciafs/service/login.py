"""The login of a mount: one access token in use, renewed once for all who ask, before it expires.

The refresh token is read anew for each renewal: another mount may have renewed it, and the user may have
logged out, or in again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from tciafs.archives.base import Refused, Unavailable
from tciafs.archives.http import Http
from tciafs.archives.oauth import TokenEndpoint, Tokens
from tciafs.config import Config, without_password
from tciafs.flights import Flight, Flights
from tciafs.service.logins import CannotKeep, Logins

logger = logging.getLogger(__name__)

_PATIENCE = 15.0
_STORE_SECONDS = 10.0  # a keyring may ask its user to unlock it
_EARLY_SECONDS, _EARLY_SHARE = 30.0, 0.25  # before its end, or of its life, a token is renewed
_PAUSE_SECONDS = 60.0  # after a renewal that failed, where none is needed yet
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.5, 24 * 3600.0  # between those that keep a login alive


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Http]:
    """Hold the connection to the archive, as a guest or with the login of the configured account."""
    if config.login_account is None or config.api == "v1":  # which looks at no token
        async with Http.connect(config.url, config.proxy) as http:
            yield http
    else:
        async with (
            Login.begin(config) as login,
            Http.connect(config.url, config.proxy, authorize=login) as http,
        ):
            yield http


class Login:
    """The tokens of one account, as long as a mount lives."""

    def __init__(
        self, config: Config, logins: Logins, endpoint: TokenEndpoint, nursery: trio.Nursery
    ) -> None:
        assert config.account
        self._account = config.account
        self._command = f"tciafs login {without_password(config.archive)} --username {config.account}"
        self._logins = logins
        self._endpoint = endpoint
        self._flights: Flights[None] = Flights(nursery)
        self._store = trio.CapacityLimiter(1)
        self._header = ""
        self._renew_at = self._expires_at = -math.inf
        self._refresh_expires_at = math.inf
        self._refused: tuple[str, str] | None = None  # a refresh token, and why

    @classmethod
    @asynccontextmanager
    async def begin(cls, config: Config) -> AsyncIterator[Login]:
        """Hold the login of the configured account; its first renewal is under way, and not waited for."""
        async with (
            TokenEndpoint.connect(config.url, config.proxy) as endpoint,
            trio.open_nursery() as nursery,
        ):
            login = cls(config, Logins(config), endpoint, nursery)
            nursery.start_soon(login._keep_alive)
            yield login
            nursery.cancel_scope.cancel()

    async def __call__(self, doubted: str | None = None) -> str:
        """Return the Authorization header (see `archives.authorized.Authorize`)."""
        now = trio.current_time()
        if doubted == self._header or now >= self._expires_at:
            await self._renewal().result(_PATIENCE)
        elif now >= self._renew_at:
            self._renewal()
        return self._header

    def _renewal(self) -> Flight[None]:
        """Return the renewal under way, begun where there is none: all who need one share it."""
        return self._flights.join("token", f"the login of {self._account}", self._renew)

    async def _renew(self, flight: Flight[None]) -> None:
        self._renew_at = trio.current_time() + _PAUSE_SECONDS  # should this one fail
        refresh = await self._kept()
        try:
            tokens = await self._new_tokens(refresh)
        except Refused as exc:
            tokens, refresh = await self._renew_anothers(refresh, exc)
        self._take(tokens)
        if tokens.refresh != refresh:
            await self._keep(refresh, tokens.refresh)

    async def _new_tokens(self, refresh: str) -> Tokens:
        if self._refused and self._refused[0] == refresh:
            raise Refused(self._refused[1])
        return await self._endpoint.renew(refresh)

    async def _renew_anothers(self, refused: str, why: Refused) -> tuple[Tokens, str]:
        """Try what another mount has kept since: some archives take a refresh token once only."""
        refresh = await self._kept()
        if refresh != refused:
            with suppress(Refused):
                return await self._endpoint.renew(refresh), refresh
        self._end()
        if self._refused is None or self._refused[0] != refresh:
            logger.warning(
                "the login of %s is refused (%s): '%s' mends it", self._account, why, self._command
            )
        self._refused = refresh, str(why)
        raise Refused(f"the login of {self._account} is refused ({why}); log in again: {self._command}")

    def _end(self) -> None:
        """Believe in no token any more."""
        self._renew_at = self._expires_at = -math.inf

    def _take(self, tokens: Tokens) -> None:
        now = trio.current_time()
        self._header = f"Bearer {tokens.access}"
        self._expires_at = now + tokens.seconds
        self._renew_at = self._expires_at - min(_EARLY_SECONDS, tokens.seconds * _EARLY_SHARE)
        self._refresh_expires_at = now + (tokens.refresh_seconds or math.inf)

    async def _kept(self) -> str:
        """Return the refresh token that is kept; raise `Refused` where the user has logged out."""
        refresh: str | None = None
        try:
            with trio.fail_after(_STORE_SECONDS):
                refresh = await trio.to_thread.run_sync(
                    self._logins.token_of, self._account, abandon_on_cancel=True, limiter=self._store
                )
        except trio.TooSlowError as exc:
            raise Unavailable(f"the keyring with the login of {self._account} does not answer") from exc
        except CannotKeep as exc:
            raise Unavailable(f"the login of {self._account}: {exc}") from exc
        if refresh is None:
            self._end()
            raise Refused(f"{self._account} is not logged in any more; log in again: {self._command}")
        return refresh

    async def _keep(self, old: str, new: str) -> None:
        try:
            with trio.fail_after(_STORE_SECONDS):
                await trio.to_thread.run_sync(
                    self._logins.replace, self._account, old, new, abandon_on_cancel=True, limiter=self._store
                )
        except (trio.TooSlowError, CannotKeep) as exc:
            logger.info("the renewed login of %s cannot be kept: %s", self._account, exc)

    async def _keep_alive(self) -> None:
        """Renew a login that would else end while nobody looks."""
        while True:
            pause = _PAUSE_SECONDS
            try:
                await self._renewal().result(_PATIENCE)
                pause = min((self._refresh_expires_at - trio.current_time()) / 2, _LONGEST_PAUSE)
            except Exception as exc:  # whatever it is, the mount lives on; what nobody foresaw is in the log
                logger.info("the login of %s was not renewed: %s", self._account, exc)
            await trio.sleep(max(pause, _SHORTEST_PAUSE))
