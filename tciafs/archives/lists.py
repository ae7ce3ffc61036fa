"""What an NBIA server's lists tell of a selection: where PatientIDs occur, and what a search would find.

Where an interface has no search, one collection is asked for after the other, by the values as it
spells them, since v1 and v2 tell capitals apart. Nothing that comes of one is believed to be empty: a
failure may look like that.
"""

from __future__ import annotations

from collections.abc import Mapping

from tciafs.archives.base import BadAnswer
from tciafs.archives.bulk import open_records
from tciafs.archives.http import Http
from tciafs.archives.interfaces import Interface
from tciafs.archives.values import text
from tciafs.archives.wire import (
    CollectionRow,
    PatientRow,
    SeriesRow,
    ValueRow,
    distinct,
    patient_of,
    series_of,
)
from tciafs.model import Collection, Patient
from tciafs.selection import NOT_SPECIFIED, Selection, code

Params = Mapping[str, str]


async def find_collections(http: Http, interface: Interface, selection: Selection) -> list[Collection]:
    """Return the collections with a series that is selected."""
    names = await _selected_names(http, interface, selection)
    return [Collection(name) for name in names if await _parameters(http, interface, selection, name)]


async def find_patients(http: Http, interface: Interface, selection: Selection) -> list[Patient]:
    """Return the patients with a series that is selected."""
    look = _by_series if selection.body_parts else _by_modality
    found: dict[Patient, None] = {}
    for name in await _selected_names(http, interface, selection):
        for params in await _parameters(http, interface, selection, name):
            found |= dict.fromkeys(await look(http, interface, selection, params))
    return list(found)


async def find_named_patients(http: Http, interface: Interface, selection: Selection) -> list[Patient]:
    """Return where the selected PatientIDs occur, if need be with a series that is selected."""
    look = _with_series if selection.concerns_series else _with_id
    found: list[Patient | None] = []
    for patient_id in selection.patients:
        found += await look(http, interface, selection, patient_id)
    return [patient for patient in distinct(found) if selection.has_collection(patient.collection)]


async def _with_id(
    http: Http, interface: Interface, selection: Selection, patient_id: str
) -> list[Patient | None]:
    rows = await http.get_json(interface.path("getPatient"), {"PatientId": patient_id}, list[PatientRow])
    found = [patient_of(row, name) for row in rows or [] if (name := text(row.collection))]
    return [patient for patient in found if patient and patient.patient_id == patient_id]


async def _with_series(
    http: Http, interface: Interface, selection: Selection, patient_id: str
) -> list[Patient | None]:
    rows = await http.get_json(interface.path("getSeries"), {"PatientID": patient_id}, list[SeriesRow])
    found = [series_of(row, name, patient_id) for row in rows or [] if (name := text(row.collection))]
    return [Patient(one.collection, patient_id) for one in found if one and selection.has_series(one)]


async def _selected_names(http: Http, interface: Interface, selection: Selection) -> list[str]:
    endpoint = interface.path("getCollectionValues")
    rows = await http.get_json(endpoint, {}, list[CollectionRow])
    if not rows:
        raise BadAnswer(f"{endpoint}: no collections came")
    names = {text(row.collection) for row in rows}
    return sorted(name for name in names if name and selection.has_collection(name))


async def _parameters(http: Http, interface: Interface, selection: Selection, name: str) -> list[Params]:
    """Return the parameters by which lists have all series of a collection that are selected; none at all
    where there are no such series."""
    found: list[Params] = [{"Collection": name}]
    if selection.modalities:
        found = [
            {**params, "Modality": value}
            for params in found
            for value in await _values(http, interface.path("getModalityValues"), params)
            if value and code(value) in selection.modalities
        ]
    if selection.body_parts:
        found = [
            {**params, "BodyPartExamined": value} if value else params
            for params in found
            for value in await _values(http, interface.path("getBodyPartValues"), params)
            if (code(value or "") or NOT_SPECIFIED) in selection.body_parts
        ]
    return found


async def _values(http: Http, endpoint: str, params: Params) -> list[str | None]:
    rows = await http.get_json(endpoint, params, list[ValueRow])
    if not rows:
        raise BadAnswer(f"{endpoint}: nothing came of {', '.join(params.values())}")
    return [text(row.modality) or text(row.body_part) for row in rows]


async def _by_modality(
    http: Http, interface: Interface, selection: Selection, params: Params
) -> list[Patient]:
    endpoint = interface.path("getPatientByCollectionAndModality")
    rows = await http.get_json(endpoint, params, list[PatientRow])
    if not rows:
        raise BadAnswer(f"{endpoint}: nothing came of {', '.join(params.values())}")
    patients = [patient_of(row, params["Collection"]) for row in rows]
    return [patient for patient in patients if patient]


async def _by_series(http: Http, interface: Interface, selection: Selection, params: Params) -> list[Patient]:
    found = []
    async with open_records(http, interface.path("getSeries"), params, SeriesRow, series_of) as parts:
        async for records in parts:
            found += [Patient(one.collection, one.patient_id) for one in records if selection.has_series(one)]
    return found
