"""What an NBIA server's search is asked for a selection: the fewest, smallest questions that tell.

Never by PatientCriteria, whose values reach the query unescaped (nbia-api 4.2); a PatientID is a
parameter of the lists.
"""

from __future__ import annotations

from collections.abc import Sequence

from tciafs.archives.base import BadAnswer
from tciafs.archives.http import Form, Http
from tciafs.archives.values import text
from tciafs.archives.wire import PatientKeys, SearchAnswer, ValueRow, distinct
from tciafs.model import Collection, Patient
from tciafs.selection import Selection

SEARCH = "v4/getSimpleSearch"

_PAGE = 1_000  # patients, of about 1 kB each
# The server and its web pages say AnatomicalSite, its later documents BodyPartExamined. A kind that a
# server does not know it ignores, so with both it cannot ignore the body part.
_KINDS = {
    "collections": ("CollectionCriteria",),
    "modalities": ("ImageModalityCriteria",),
    "body_parts": ("AnatomicalSiteCriteria", "BodyPartExaminedCriteria"),
}


def form_of(criteria: Sequence[tuple[str, str]], start: int, size: int) -> Form:
    """Return the form of a search: values of one kind are alternatives, kinds must all hold."""
    fields: list[tuple[str, str]] = []
    for number, (kind, value) in enumerate(criteria):
        fields += [(f"criteriaType{number}", kind), (f"value{number}", value)]
    paging = [("sortField", "subject"), ("sortDirection", "ascending")]
    return [*fields, *paging, ("start", str(start)), ("size", str(size))]


async def find_collections(http: Http, selection: Selection) -> list[Collection]:
    """Return the collections with a series that is selected, from the summary of one page."""
    answer = await _page(http, criteria_of(selection), 0, 1)
    names = {text(row.value) for row in answer.collections}
    if answer.total_patients and not names - {None}:
        raise BadAnswer(f"{SEARCH}: patients were found, but in no collection")
    return [Collection(name) for name in names if name]


async def find_patients(http: Http, selection: Selection) -> list[Patient]:
    """Return the patients with a series that is selected, page by page, all or an error."""
    found = await find_all(http, criteria_of(selection))
    patients = distinct(_patient(row) for row in found)
    return [patient for patient in patients if selection.has_collection(patient.collection)]


async def find_all(http: Http, criteria: Sequence[tuple[str, str]], more: Form = ()) -> list[PatientKeys]:
    """Return all that a search finds, page by page, or an error; `more` are fields of the form."""
    found: list[PatientKeys] = []
    while True:
        answer = await _page(http, criteria, len(found), _PAGE, more)
        found += answer.result_set
        if len(found) >= (answer.total_patients or 0) or not answer.result_set:
            break
    count = len({(row.id, row.project, row.subject_id) for row in found})  # pages may overlap
    if count != answer.total_patients:
        raise BadAnswer(f"{SEARCH}: {count} patients came instead of {answer.total_patients}")
    return found


async def get_values(http: Http, endpoint: str) -> list[str]:
    """Return the values of a column: of getModalityValues or getBodyPartValues."""
    rows = await http.get_json(endpoint, {}, list[ValueRow])
    values = {text(row.modality) or text(row.body_part) for row in rows or []}
    return sorted(value for value in values if value)


def criteria_of(selection: Selection) -> list[tuple[str, str]]:
    """Return what the search is asked for a selection's collections and codes."""
    return [
        (kind, value)
        for values, kinds in _KINDS.items()
        for kind in kinds
        for value in getattr(selection, values)
    ]


async def _page(
    http: Http, criteria: Sequence[tuple[str, str]], start: int, size: int, more: Form = ()
) -> SearchAnswer:
    answer = await http.post_json(SEARCH, [*form_of(criteria, start, size), *more], SearchAnswer)
    if answer is None or answer.total_patients is None:
        raise BadAnswer(f"{SEARCH}: no number of patients came")  # what is empty is said in so many words
    return answer


def _patient(row: PatientKeys) -> Patient | None:
    collection, patient_id = text(row.project), text(row.subject_id)
    return Patient(collection, patient_id) if collection and patient_id else None
