"""`tciafs login` and `logout`, and which account a mount is of."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
import trio

from tciafs.archives.base import ArchiveError, Refused
from tciafs.archives.oauth import TokenEndpoint, Tokens
from tciafs.cli.failure import Failure
from tciafs.cli.sources import Sources
from tciafs.config import GUEST, Config
from tciafs.service.logins import STORES, CannotKeep, Logins

_LONGEST_PASSWORD = 4096


@click.command()
@click.argument("archive")
@click.option("--username", metavar="NAME", help="Whose login; asked for unless it is given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input: for scripts.")
@click.option(
    "--store",
    type=click.Choice(STORES),
    default=STORES[0],
    show_default=True,
    help="Where the login is kept: in the system's keyring, or in a file that only you can read.",
)
def login(archive: str, username: str | None, password_stdin: bool, store: str) -> None:
    """Log in to ARCHIVE (a name or an address, as for mount), for drives that are mounted from now on.

    The password is asked for, sent to the archive and forgotten: a refresh token is kept in its place.
    """
    config = _config(archive)
    if config.url.startswith("http:") and not config.is_loopback:
        raise Failure(f"{config.archive_name} is asked without encryption: give its https address to log in")
    logins = Logins(config)
    try:
        logins.check(store)
        account = _username(config, username)
        tokens = _exchange(config, account, _password(account, password_stdin))
        logins.keep(account, tokens.refresh, store)
    except CannotKeep as exc:
        raise Failure(str(exc)) from exc
    click.echo(
        f"{account} is logged in to {config.archive_name}; drives that are mounted from now on use it."
    )


@click.command()
@click.argument("archive")
def logout(archive: str) -> None:
    """End the login to ARCHIVE, there and here; drives that use it can ask for nothing more."""
    config = _config(archive)
    logins = Logins(config)
    refresh: str | None = None
    try:
        account = logins.account
        if account is None:
            raise Failure(f"there is no login to {config.archive_name}")
        try:
            refresh = logins.token_of(account)
        finally:
            logins.remove()
    except CannotKeep as exc:
        raise Failure(str(exc)) from exc
    except OSError as exc:
        raise Failure(f"{logins.path} cannot be removed: {exc.strerror}") from exc
    if refresh:
        _revoke(config, refresh)
    click.echo(f"{account} is logged out of {config.archive_name}.")


def with_account(config: Config) -> Config:
    """Return the settings of a mount with the account that it is of: the login's, where there is one.

    Fail where that is not the one that was asked for, or where others could read what only it may.
    """
    try:
        there = Logins(config).account if config.account != GUEST else None
    except CannotKeep as exc:
        raise Failure(f"{exc}; or mount with --account guest") from exc
    account = config.account or there
    if account in (None, GUEST):
        return config
    if account != there:
        known = f"; the login there is of {there}" if there else ""
        raise Failure(f"{account} is not logged in to {config.archive_name}{known}: use 'tciafs login'")
    if config.allow_other and not config.share_restricted:
        raise Failure(
            f"--allow-other would let others read what only {account} may: mount with --account guest, or"
            " add --share-restricted if the archive allows it"
        )
    return replace(config, account=account)


def _config(archive: str) -> Config:
    return Sources().config(Path("/nowhere"), {"archive": archive})


def _username(config: Config, given: str | None) -> str:
    account = (given or _asked(f"Username at {config.archive_name}", "--username NAME")).strip()
    if not account or not account.isprintable():
        raise Failure("--username takes the name of an account at the archive")
    if account == GUEST:
        raise Failure("a guest needs no login")
    return account


def _password(account: str, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline(_LONGEST_PASSWORD).rstrip("\r\n")
    else:
        password = _asked(f"Password of {account}", "--password-stdin", is_secret=True)
    if not password:
        raise Failure("no password was given")
    return password


def _asked(what: str, instead: str, is_secret: bool = False) -> str:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure(f"there is no terminal to ask at: give {instead}")
    try:
        return str(click.prompt(what, hide_input=is_secret, err=True))
    except click.Abort as exc:
        click.echo(err=True)
        raise Failure("nobody was logged in") from exc


def _exchange(config: Config, account: str, password: str) -> Tokens:
    async def ask() -> Tokens:
        async with TokenEndpoint.connect(config.url, config.proxy) as endpoint:
            return await endpoint.exchange(account, password)

    try:
        return trio.run(ask)
    except Refused as exc:
        raise Failure(f"{config.archive_name} does not let {account} in: {exc}") from exc
    except ArchiveError as exc:
        raise Failure(f"{config.archive_name} gives no login: {exc}; see 'tciafs doctor'") from exc


def _revoke(config: Config, refresh: str) -> None:
    async def ask() -> None:
        async with TokenEndpoint.connect(config.url, config.proxy) as endpoint:
            await endpoint.revoke(refresh)

    try:
        trio.run(ask)
    except ArchiveError as exc:
        why = f"the archive could not be told ({exc}), and ends the login by itself when it is past its time"
        click.echo(f"tciafs: {why}", err=True)
