"""The endpoints that describe collections, and the catalogue of licences (nbia-api: sections 2.3 and 6.1)."""

from __future__ import annotations

import html
from functools import partial

from tciafs.demo.answers import JSON, Answer, Endpoint, Question, json_answer
from tciafs.demo.records import Terms, terms_of

_TIMESTAMP = 1_551_052_800_000  # ms since 1970, as Jackson spells a date
_LICENSE_TEXT = "<p>Free to share and adapt, also commercially, with attribution.</p>"


def get_collection_descriptions(question: Question) -> Answer:
    """Describe one collection, or each; only the unversioned endpoint tells of licences."""
    wanted = question.get("collectionName")
    collections = _collections(question)
    ids = {name: number for number, name in enumerate(_licenses(question), 1)}
    rows = [
        _described(number, name, ids, question.version)
        for number, name in enumerate(collections, 101)
        if wanted is None or name == wanted
    ]
    return json_answer(rows)


def _described(number: int, name: str, ids: dict[str, int], version: str) -> dict[str, object]:
    terms = terms_of(name)
    row: dict[str, object] = {
        "description": f"<p>This is <b>{html.escape(name)}</b>, a collection of the demo&nbsp;archive.</p>"
        f'<p>It is cited as <a href="{terms.data_description_uri}">its page</a> says.</p>',
        "id": number,
        "collectionName": name,
        "descriptionURI": terms.data_description_uri,
    }
    if not version:
        more = {"collectionDescTimestamp": _TIMESTAMP, "userName": None}
        row |= more | {"licenseId": ids[terms.license_name]}
    return row


def get_licenses(question: Question) -> Answer:
    """List the licences that collections are under."""
    return json_answer(
        [
            {
                "longName": name,
                "id": number,
                "shortName": terms.license_short_name,
                "licenseURL": terms.license_uri,
                "licenseText": _LICENSE_TEXT,
                "commercialUse": "YES",
            }
            for number, (name, terms) in enumerate(_licenses(question).items(), 1)
        ]
    )


def _collections(question: Question) -> list[str]:
    return sorted({each.collection for each in question.dataset.series.values() if question.sees(each)})


def _licenses(question: Question) -> dict[str, Terms]:
    """Return the licences by name, in an order that is always the same."""
    found = {terms.license_name: terms for terms in map(terms_of, _collections(question))}
    return dict(sorted(found.items()))


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    get = partial(Endpoint, produces=(JSON,))
    match version:
        case "v4":
            return {
                "getCollectionDescriptions": get(get_collection_descriptions, allowed=("collectionName",))
            }
        case "":
            return {
                "getCollectionDescriptions": get(get_collection_descriptions),
                "getLicenses": get(get_licenses),
            }
    return {}
