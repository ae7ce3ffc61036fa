"""The token endpoint, which hands on what Keycloak says (nbia-api 5): to everybody here, a guest's token."""

from __future__ import annotations

from tciafs.demo.answers import JSON, Answer, Endpoint, Question, json_answer, server_error

TOKEN = "oauth/token"  # asked without a version, and without an Authorization header
_SECONDS, _REFRESH_SECONDS = 300, 1800


def get_token(question: Question) -> Answer:
    """Exchange a password or a refresh token for a new pair; any other grant breaks the proxy."""
    if question.get("grant_type") not in ("password", "refresh_token"):
        raise server_error("null")
    return json_answer(
        {
            "access_token": "guest",
            "expires_in": _SECONDS,
            "refresh_expires_in": _REFRESH_SECONDS,
            "refresh_token": "guest-refresh",
            "token_type": "Bearer",
            "id_token": "guest-id",
            "not-before-policy": 0,
            "session_state": "guest",
            "scope": "openid",
        }
    )


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    return {} if version else {TOKEN: Endpoint(get_token, "POST", produces=(JSON,))}
