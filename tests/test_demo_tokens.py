"""The embedded archive knows accounts as NBIA does (nbia-api: section 5, and section 8, point 10)."""

import time

import httpx
import pytest

from tciafs.demo.tokens import PASSWORDS
from tests.archive import start_archive

OPEN = {"Demo-CT", "Demo MR", "Demo-Mixed"}
CLOSED = "Demo-Restricted"
ERROR = "Server was not able to process your request\nnull"


@pytest.fixture(scope="module")
def own():
    with start_archive() as archive:
        yield archive


@pytest.fixture
def archive(own):
    own.reset()
    return own


@pytest.fixture
def api(archive):
    with httpx.Client(base_url=archive.url, trust_env=False, timeout=10) as client:
        yield client


def ask_token(api, **form):
    return api.post(str(api.base_url).removesuffix("services/") + "oauth/token", data=form)


def log_in(api, account="alice"):
    form = {"grant_type": "password", "username": account, "password": PASSWORDS[account]}
    return ask_token(api, **form).json()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def collections(api, header, version="v4"):
    answer = api.get(f"/{version}/getCollectionValues", headers=header)
    return {row["Collection"] for row in answer.json()} if answer.content else set()


def a_file(api, header):
    """Return parameters of the first file of the restricted collection."""
    series = api.get("/v4/getSeries", params={"Collection": CLOSED}, headers=header).json()
    params = {"SeriesInstanceUID": min(row["SeriesInstanceUID"] for row in series)}
    uids = api.get("/v4/getSOPInstanceUIDs", params=params).json()
    return params | {"SOPInstanceUID": min(row["SOPInstanceUID"] for row in uids)}


def test_a_token_has_the_shape_of_keycloaks(api):
    given = log_in(api)
    assert (given["expires_in"], given["refresh_expires_in"], given["token_type"]) == (300, 1800, "Bearer")
    again = ask_token(api, grant_type="refresh_token", refresh_token=given["refresh_token"]).json()
    assert again.keys() == given.keys()
    assert again["access_token"] != given["access_token"]


def test_what_is_not_believed_is_denied_as_keycloak_does(api):
    wrong = ask_token(api, grant_type="password", username="alice", password="no")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_grant")
    stale = ask_token(api, grant_type="refresh_token", refresh_token="no")
    assert (stale.status_code, stale.json()["error_description"]) == (400, "Token is not active")
    assert ask_token(api, grant_type="other").status_code == 500


@pytest.mark.parametrize("version", ["v2", "v4"])
def test_only_the_account_with_the_right_sees_what_is_restricted(api, version):
    assert collections(api, bearer(log_in(api)["access_token"]), version) == OPEN | {CLOSED}
    for header in (
        bearer(log_in(api, "bob")["access_token"]),
        bearer(log_in(api, "nbia_guest")["access_token"]),
        bearer("undefined"),
    ):
        assert collections(api, header, version) == OPEN


def test_v1_looks_at_no_token(api):
    assert collections(api, bearer(log_in(api)["access_token"]), "v1") == OPEN
    assert collections(api, bearer("no"), "v1") == OPEN


def test_what_is_restricted_cannot_be_had_either(api):
    alice = bearer(log_in(api)["access_token"])
    file = a_file(api, alice)
    series = {"SeriesInstanceUID": file["SeriesInstanceUID"]}
    image = {"SOPInstanceUID": file["SOPInstanceUID"]}
    assert api.get("/v4/getSingleImage", params=file, headers=alice).status_code == 200
    assert api.get("/v4/getMD5HashForImage", params=image, headers=alice).text
    assert api.get("/v4/getImage", params=series, headers=alice).status_code == 200
    guest: dict[str, str] = {}
    for header in (guest, bearer(log_in(api, "bob")["access_token"])):
        refused = api.get("/v4/getSingleImage", params=file, headers=header)
        assert (refused.status_code, refused.text) == (500, ERROR)
        assert api.get("/v4/getMD5HashForImage", params=image, headers=header).content == b""
        zipped = api.get("/v4/getImage", params=series, headers=header)
        assert zipped.status_code == 400
        assert "has not been granted the access" in zipped.text
        found = api.post("/v4/getMD5Hierarchy", data=series, headers=header)
        assert (found.status_code, found.content) == (200, b"")


def test_a_bad_token_has_three_faces(api):
    bad = bearer("no")
    form = {"sortField": "subject", "sortDirection": "ascending", "start": "0", "size": "1"}
    pair = {"SeriesInstanceUID": "1.2", "SOPInstanceUID": "1.2"}
    for answer in (
        api.get("/v4/getImage", params={"SeriesInstanceUID": "1.2"}, headers=bad),
        api.get("/v4/getSingleImage", params=pair, headers=bad),
        api.get("/v4/getMD5HashForImage", params={"SOPInstanceUID": "1.2"}, headers=bad),
        api.post("/v4/getSimpleSearch", data=form, headers=bad),
    ):
        assert (answer.status_code, answer.content) == (401, b"")
    for name in ("getPatient", "getPatientStudy", "getCollectionValues"):
        answer = api.get(f"/v4/{name}", headers=bad)
        assert (answer.status_code, answer.content) == (200, b"")
        assert "Content-Type" not in answer.headers
    answer = api.get("/v4/getSeries", headers=bad)
    assert (answer.status_code, answer.text) == (500, ERROR)
    assert api.post("/v4/getImageDrillDown", data={"list": "1"}, headers=bad).json() == []


def test_tokens_live_as_long_as_is_wanted(archive, api):
    archive.realm(access_seconds=0.2, told_seconds=60, refresh_seconds=0.2)
    given = log_in(api)
    assert given["expires_in"] == 60
    header = bearer(given["access_token"])
    late = time.monotonic() + 10
    while collections(api, header):
        assert time.monotonic() < late
    assert ask_token(api, grant_type="refresh_token", refresh_token=given["refresh_token"]).is_error


def test_a_refresh_token_can_be_good_for_once(archive, api):
    archive.realm(revokes_refresh=True)
    form = {"grant_type": "refresh_token", "refresh_token": log_in(api)["refresh_token"]}
    assert ask_token(api, **form).is_success
    assert ask_token(api, **form).is_error


def test_a_logout_or_an_administrator_ends_all_tokens_of_a_session(archive, api):
    one, other = log_in(api), log_in(api)
    root = str(api.base_url).removesuffix("services/")
    assert api.post(root + "logout", data={"refresh_token": one["refresh_token"]}).status_code == 204
    assert collections(api, bearer(one["access_token"])) == set()
    assert CLOSED in collections(api, bearer(other["access_token"]))
    archive.end_sessions()
    assert collections(api, bearer(other["access_token"])) == set()


def test_a_right_that_is_revoked_is_gone_for_tokens_that_are_out(archive, api):
    header = bearer(log_in(api)["access_token"])
    archive.realm(rights={})
    assert collections(api, header) == OPEN
    archive.realm()
    assert CLOSED in collections(api, header)
    with pytest.raises(ValueError, match="unexpected keyword"):
        archive.realm(nonsense=1)


def test_no_secret_is_in_the_journal(archive, api):
    given = log_in(api)
    ask_token(api, grant_type="refresh_token", refresh_token=given["refresh_token"])
    said = "\n".join(archive.log())
    assert archive.requests()["oauth/token"] == 2
    assert not [secret for secret in [*archive.tokens(), PASSWORDS["alice"]] if secret in said]
