"""Shared carts: series that somebody put together in the web pages, by a name to pass on (nbia-api 6.3)."""

from __future__ import annotations

from collections.abc import Mapping

from tciafs.demo.answers import Answer, Endpoint, Question, Table, Value
from tciafs.demo.rows import cart_columns, series_row


def get_contents_by_name(question: Question) -> Answer:
    """List the series of a cart, always in JSON; nothing at all for a cart that is not there."""
    uids = question.dataset.carts.get(question.get("name") or "", ())
    stored = [question.dataset.series[uid] for uid in uids]
    rows: list[Mapping[str, Value]] = [
        {**series_row(series), "Date Released": series.released} for series in stored if question.sees(series)
    ]
    return Table(cart_columns(), rows).render(question.version, "json")


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API: v4 has none, and clients ask v1."""
    if version not in ("v1", "v2"):
        return {}
    complaint = "A parameter, name, is required for this API call."
    return {"getContentsByName": Endpoint(get_contents_by_name, "GET", ("name",), ("name",), complaint)}
