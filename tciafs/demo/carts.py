"""Shared carts: lists of series under a name (nbia-api: sections 2.1 and 6.3)."""

from __future__ import annotations

import random

from tciafs.demo.answers import JSON, Answer, Endpoint, Question, Table
from tciafs.demo.rows import series_row, updated_series_columns


def get_contents_by_name(question: Question) -> Answer:
    """List the series of a cart that are visible, always in JSON; of none there is where nobody shared it."""
    dataset = question.dataset
    uids = dataset.carts.get((question.get("name") or "").casefold(), [])
    found = [dataset.series[uid] for uid in uids if uid in dataset.series]
    rows = [{**series_row(series), "Date Released": series.released} for series in found if not series.hidden]
    random.shuffle(rows)
    columns = [name for name in updated_series_columns("v1") if name != "DateReleased"]
    return Table([*columns, "Date Released"], rows).render(question.version, "json")


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API: v4 has none."""
    if version not in ("v1", "v2"):
        return {}
    complaint = "A parameter, name, is required for this API call."
    return {
        "getContentsByName": Endpoint(
            get_contents_by_name, required=("name",), complaint=complaint, produces=(JSON,)
        )
    }
