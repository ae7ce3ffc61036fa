"""Tokens in use: renewed once for all, doubted where an answer may be a bad one's, given up when refused."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tciafs.archives.base import ArchiveError, BadAnswer, Failed, Refused
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.archives.oauth import TokenEndpoint
from tciafs.config import Config
from tciafs.demo.tokens import PASSWORDS
from tciafs.model import Collection
from tciafs.service.login import connected
from tciafs.service.logins import FILE, Logins
from tests.archive import EmbeddedArchive, start_archive

RESTRICTED = "Demo-Restricted"
TOKEN = "oauth/token"


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedArchive]:
    with start_archive() as archive:
        yield archive


@pytest.fixture
def archive(own: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedArchive:
    """Serve the sample data to a home without logins."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own.reset()
    return own


def config(archive: EmbeddedArchive, account: str = "alice") -> Config:
    return Config(mountpoint=Path("/m"), cache_dir=Path("/c"), archive=archive.url, account=account)


async def log_in(archive: EmbeddedArchive, account: str = "alice") -> Logins:
    """Keep a login in a file, as the command does; forget that it was asked for."""
    async with TokenEndpoint.connect(archive.url) as endpoint:
        tokens = await endpoint.exchange(account, PASSWORDS[account])
    logins = Logins(config(archive, account))
    logins.keep(account, tokens.refresh, FILE)
    archive.forget()
    return logins


@asynccontextmanager
async def asked_with(archive: EmbeddedArchive, room: Path, is_new: bool = False) -> AsyncIterator[NBIA]:
    """Ask the archive with alice's login, for the first time or with a token that is there."""
    async with connected(config(archive)) as http:
        nbia = NBIA("test", http, Capabilities(room / "capabilities.json"), account="alice")
        if not is_new:
            await names(nbia)
            archive.forget()
        yield nbia


async def names(nbia: NBIA) -> set[str]:
    return {collection.name for collection in await nbia.get_collections()}


async def until(holds: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not holds():  # noqa: ASYNC110 -- another process's
            await trio.sleep(0.02)


async def ask_at_once(nbia: NBIA, count: int) -> list[set[str]]:
    found: list[set[str]] = []

    async def ask() -> None:
        found.append(await names(nbia))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
    return found


async def test_many_who_ask_at_once_share_one_renewal(archive: EmbeddedArchive, tmp_path: Path):
    await log_in(archive)
    archive.faults(latency_ms=50)
    async with asked_with(archive, tmp_path, is_new=True) as nbia:
        assert all(RESTRICTED in each for each in await ask_at_once(nbia, 12))
        assert archive.requests() == {TOKEN: 1, "v4/getCollectionValues": 12}
        archive.expire_tokens()
        archive.forget()
        assert all(RESTRICTED in each for each in await ask_at_once(nbia, 4))
        assert archive.requests() == {TOKEN: 1, "v4/getCollectionValues": 8}


async def test_a_token_is_renewed_before_it_expires_and_nobody_waits(
    archive: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tciafs.service.login._EARLY_SECONDS", 1000.0)
    monkeypatch.setattr("tciafs.service.login._EARLY_SHARE", 1.0)
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        assert RESTRICTED in await names(nbia)
        await until(lambda: archive.requests().get(TOKEN, 0) > 0)
        archive.faults(rules=[{"endpoint": "token", "do": "stall"}])
        with trio.fail_after(8):  # the renewal gives up after 10
            for _ in range(3):
                assert RESTRICTED in await names(nbia)


@pytest.mark.says(
    "An empty list, or a failure, that a bad token would get, too, is believed when the archive repeats it to"
    " a new one."
)
@pytest.mark.parametrize("face", ["401", "an empty list", "a failure"])
async def test_a_token_that_is_not_believed_is_renewed_and_the_question_put_again(
    archive: EmbeddedArchive, tmp_path: Path, face: str
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        (series,) = await nbia.get_series(RESTRICTED, "P-000001")
        archive.expire_tokens()
        archive.forget()
        match face:
            case "401":
                assert await nbia.get_series_md5(series.series_instance_uid)
                assert archive.requests() == {TOKEN: 1, "v4/getMD5Hierarchy": 2}
            case "an empty list":
                assert len(await nbia.get_patients(RESTRICTED)) == 2
                assert archive.requests() == {TOKEN: 1, "v4/getPatient": 2}
            case "a failure":
                assert await nbia.get_series(RESTRICTED, "P-000001") == [series]
                assert archive.requests() == {TOKEN: 1, "v4/getSeries": 2}


async def test_a_stream_that_is_refused_begins_again_with_a_new_token(
    archive: EmbeddedArchive, tmp_path: Path
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        (series,) = await nbia.get_series(RESTRICTED, "P-000001")
        found = (await nbia.get_instances(series))[series.series_instance_uid]
        assert isinstance(found, list)
        archive.expire_tokens()
        archive.forget()
        async with nbia.open_instance(found[0]) as chunks:
            assert sum([len(chunk) async for chunk in chunks]) == found[0].size
        assert archive.requests() == {TOKEN: 1, "v4/getSingleImage": 2}


async def test_what_is_really_empty_is_doubted_once(
    archive: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tciafs.archives.authorized._BELIEVED_SECONDS", 60.0)
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        assert [await nbia.get_patients("no such") for _ in range(3)] == [[]] * 3
        assert archive.requests() == {TOKEN: 1, "v4/getPatient": 4}
        archive.expire_tokens()
        assert await nbia.get_series("Demo-CT", "PHANTOM-01")  # another endpoint is doubted all the same
        assert await nbia.get_series_md5("1.2") is None  # that it has none is no empty list


async def test_an_empty_list_is_not_believed_while_the_token_cannot_be_renewed(
    archive: EmbeddedArchive, tmp_path: Path
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        archive.faults(rules=[{"endpoint": "token", "do": "html"}])
        with pytest.raises(BadAnswer, match="oauth/token: a web page"):
            await nbia.get_patients("no such")
        assert RESTRICTED in await names(nbia)  # the token is good all the same


async def test_a_failure_stays_one_while_the_token_cannot_be_renewed(
    archive: EmbeddedArchive, tmp_path: Path
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        rules = [{"endpoint": "token", "do": "html"}, {"endpoint": "getPatient", "do": "status"}]
        archive.faults(rules=rules)
        with pytest.raises(Failed, match="v4/getPatient: HTTP 500"):
            await nbia.get_patients("Demo-CT")


@pytest.mark.alarming
async def test_a_login_that_is_refused_is_told_and_not_tried_again_until_there_is_another(
    archive: EmbeddedArchive, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        archive.end_sessions()
        for _ in range(3):
            with pytest.raises(
                Refused, match=r"login of alice is refused \(Token is not active\); log in again: "
            ):
                await nbia.get_patients("Demo-CT")
        assert archive.requests()[TOKEN] == 1
        assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
            "the login of alice is refused (Token is not active):"
            f" 'tciafs login {archive.url} --username alice' mends it"
        ]
        await log_in(archive)
        assert RESTRICTED in await names(nbia)


@pytest.mark.parametrize("now", ["nobody", "bob"])
async def test_who_has_logged_out_or_in_as_another_is_refused(
    archive: EmbeddedArchive, tmp_path: Path, now: str
):
    logins = await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        logins.remove()
        if now == "bob":
            await log_in(archive, "bob")
        archive.expire_tokens()
        with pytest.raises(Refused, match="alice is not logged in any more"):
            await names(nbia)


async def test_two_mounts_share_a_login_whose_refresh_tokens_are_good_for_once(
    archive: EmbeddedArchive, tmp_path: Path
):
    await log_in(archive)
    archive.realm(revokes_refresh=True)
    async with asked_with(archive, tmp_path) as one, asked_with(archive, tmp_path) as other:
        for nbia in (one, other, one, other):
            archive.expire_tokens()
            assert RESTRICTED in await names(nbia)


async def test_a_login_lives_on_while_nobody_looks(
    archive: EmbeddedArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tciafs.service.login._SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr("tciafs.service.login._LONGEST_PAUSE", 0.05)
    logins = await log_in(archive)
    kept = logins.token_of("alice")
    async with asked_with(archive, tmp_path):
        await until(lambda: archive.requests().get(TOKEN, 0) >= 4)
    assert logins.token_of("alice") != kept


async def test_a_right_that_is_gone_is_told_apart_from_what_is_not_there(
    archive: EmbeddedArchive, tmp_path: Path
):
    await log_in(archive)
    async with asked_with(archive, tmp_path) as nbia:
        await nbia.confirm_right(RESTRICTED)
        with pytest.raises(Refused, match="alice may not see Nothing any more"):
            await nbia.confirm_right("Nothing")
        archive.forget()
        await nbia.confirm_right("Demo-CT")
        assert archive.requests() == {}  # asked every few seconds
    async with Http.connect(archive.url) as http:
        guest = NBIA("test", http, Capabilities(tmp_path / "capabilities.json"))
        await guest.confirm_right(RESTRICTED)  # who never had a right has lost none
        assert Collection(RESTRICTED) not in await guest.get_collections()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"do": "html"}, "oauth/token: a web page came"),
        ({"do": "empty"}, "oauth/token: broken JSON"),
        ({"do": "malformed"}, "oauth/token: broken JSON"),
        ({"do": "status", "status": 500}, "oauth/token: HTTP 500"),
        ({"do": "status", "status": 403}, "oauth/token: HTTP 403"),
        ({"do": "status", "status": 301}, "oauth/token: the server redirects"),
    ],
)
async def test_an_answer_that_holds_no_tokens_is_an_error(
    archive: EmbeddedArchive, rule: dict[str, object], said: str
):
    archive.faults(rules=[{"endpoint": "token", **rule}])
    async with TokenEndpoint.connect(archive.url) as endpoint:
        with pytest.raises(ArchiveError, match=said) as caught:
            await endpoint.exchange("alice", PASSWORDS["alice"])
    assert not isinstance(caught.value, Refused)  # for which a login would be given up
    assert not [secret for secret in [*archive.tokens(), PASSWORDS["alice"]] if secret in str(caught.value)]


async def test_a_token_is_in_no_text_of_what_holds_it(archive: EmbeddedArchive):
    async with TokenEndpoint.connect(archive.url + "/") as endpoint:
        tokens = await endpoint.exchange("alice", PASSWORDS["alice"])
        assert (tokens.seconds, tokens.refresh_seconds) == (300, 1800)
        assert tokens.access not in repr(tokens)
        assert tokens.refresh not in repr(tokens)
        assert (await endpoint.renew(tokens.refresh)).refresh != tokens.refresh
        await endpoint.revoke(tokens.refresh)
        with pytest.raises(Refused, match=r"^Token is not active$"):
            await endpoint.renew(tokens.refresh)
    archive.realm(refresh_seconds=0)
    async with TokenEndpoint.connect(archive.url) as endpoint:
        offline = await endpoint.exchange("alice", PASSWORDS["alice"])
        assert (offline.refresh_seconds or math.inf) == math.inf  # Keycloak says 0 of what has no end
