"""The accounts of the archive, and the tokens by which it knows them: Keycloak's, behind NBIA (nbia-api: 5).

Guests, to whom whoever shows no token belongs, see what is not restricted. So do all in v1, which looks at
no token.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from tciafs.demo.answers import JSON, Answer, Endpoint, Question, Refusal, server_error

RESTRICTED = frozenset({"Demo-Restricted"})
GUEST = "nbia_guest"
PASSWORDS = {"alice": "looking-glass", "bob": "swordfish", GUEST: ""}
TOKEN, LOGOUT = PATHS = ("oauth/token", "logout")  # which want no token, and whose forms hold secrets
_AS_GUEST = (None, "Bearer undefined")

_UNCHECKED = ("v4/getImageDrillDown", "getSOPInstanceUIDs", "getSeriesSize", "getContentsByName", *PATHS)
_FAILING = ("getSeries",)
_SWALLOWING = (
    "getCollectionValues",
    "getModalityValues",
    "getBodyPartValues",
    "getManufacturerValues",
    "getPatient",
    "getPatientStudy",
    "getPatientByCollectionAndModality",
    "getUpdatedSeries",
    "NewPatientsInCollection",
    "NewStudiesInPatientCollection",
)


@dataclass(frozen=True, slots=True)
class Realm:
    """How tokens are given, and what accounts may see.

    `told_seconds` is what a client is told of an access token's life, where that is not the truth. With
    `revokes_refresh`, a refresh token can be used once.
    """

    access_seconds: float = 300
    told_seconds: float | None = None
    refresh_seconds: float = 1800
    revokes_refresh: bool = False
    rights: Mapping[str, Sequence[str]] = field(default_factory=lambda: {"alice": tuple(RESTRICTED)})


@dataclass(slots=True, eq=False)
class _Session:
    """What began with a password; without it, none of its tokens is worth anything."""

    account: str
    has_ended: bool = False


@dataclass(frozen=True, slots=True)
class _Issued:
    session: _Session
    until: float

    @property
    def is_good(self) -> bool:
        return not self.session.has_ended and time.monotonic() < self.until


class Tokens:
    """The tokens that were given out, and who has which."""

    def __init__(self) -> None:
        self.realm = Realm()
        self._access: dict[str, _Issued] = {}
        self._refresh: dict[str, _Issued] = {}

    @property
    def issued(self) -> list[str]:
        """Return every token that was ever given out."""
        return [*self._access, *self._refresh]

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Go by the usual realm with what is `wanted` of it, from the next token and question on."""
        self.realm = replace(Realm(), **wanted)

    def end_sessions(self) -> None:
        """Let no token be worth anything any more, as an administrator does."""
        for issued in (*self._access.values(), *self._refresh.values()):
            issued.session.has_ended = True

    def expire(self) -> None:
        """Let no access token be worth anything any more; they can be renewed."""
        self._access = {token: replace(issued, until=-inf) for token, issued in self._access.items()}

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoints that give tokens and take them back."""
        return {
            TOKEN: Endpoint(self.give, "POST", produces=(JSON,)),
            LOGOUT: Endpoint(self.log_out, "POST", produces=(JSON,)),
        }

    def closed_to(self, version: str, name: str, header: str | None) -> frozenset[str]:
        """Return the collections that whoever shows this header may not see.

        Raise `Refusal` with the face that a bad token has at the endpoint.
        """
        if version == "v1" or header in _AS_GUEST or {name, f"{version}/{name}"} & set(_UNCHECKED):
            return RESTRICTED
        issued = self._access.get(str(header).removeprefix("Bearer "))
        if issued and issued.is_good:
            return RESTRICTED - set(self.realm.rights.get(issued.session.account, ()))
        if version and name in _FAILING:
            raise server_error("null")
        raise Refusal(Answer(200 if version and name in _SWALLOWING else 401))

    def give(self, question: Question) -> Answer:
        """Exchange a password, or a refresh token, for new tokens."""
        match question.get("grant_type"):
            case "password":
                return self._tokens(_Session(_account_of(question)))
            case "refresh_token":
                token = question.get("refresh_token") or ""
                issued = self._refresh.get(token)
                if issued is None or not issued.is_good:
                    raise _denied(400, "Token is not active")
                if self.realm.revokes_refresh:
                    del self._refresh[token]
                return self._tokens(issued.session)
        raise server_error("null")

    def log_out(self, question: Question) -> Answer:
        """End the session of a refresh token."""
        issued = self._refresh.get(question.get("refresh_token") or "")
        if issued is None:
            raise _denied(400, "Invalid refresh token")
        issued.session.has_ended = True
        return Answer(204)

    def _tokens(self, session: _Session) -> Answer:
        realm, now = self.realm, time.monotonic()
        access, refresh = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
        self._access[access] = _Issued(session, now + realm.access_seconds)
        self._refresh[refresh] = _Issued(session, now + realm.refresh_seconds)
        told = int(realm.access_seconds) if realm.told_seconds is None else realm.told_seconds
        given = {
            "access_token": access,
            "expires_in": told,
            "refresh_expires_in": int(realm.refresh_seconds),
            "refresh_token": refresh,
            "token_type": "Bearer",
            "id_token": "",
            "not-before-policy": 0,
            "session_state": f"{id(session):032x}",
            "scope": "openid profile email",
        }
        return Answer(200, json.dumps(given).encode(), JSON)


def _account_of(question: Question) -> str:
    account = question.get("username") or ""
    known = PASSWORDS.get(account)
    if account != GUEST and (not known or question.get("password") != known):
        raise _denied(401, "Invalid user credentials")
    return account


def _denied(status: int, why: str) -> Refusal:
    said = {"error": "invalid_grant", "error_description": why}
    return Refusal(Answer(status, json.dumps(said).encode(), JSON))
