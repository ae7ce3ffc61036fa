"""Series by any criteria: NBIA's search tells database keys, and these lead to UIDs and sizes (nbia-api 2.3).

What the search cannot be asked, or not safely, narrows it beforehand: the series of patients, of models
and of DOIs are listed by UID, and searched among.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TypeVar

from tciafs.archives.base import ArchiveError, BadAnswer, Unsupported
from tciafs.archives.http import Form, Http
from tciafs.archives.parts import all_of
from tciafs.archives.search import criteria_of, find_all
from tciafs.archives.searched import CartSeries, CartStudy, CountedRow, DoiRow, ManufacturerRow, SpeciesRow
from tciafs.archives.values import text, whole
from tciafs.archives.wire import PatientKeys, SeriesRow
from tciafs.criteria import Criteria, same, spellings_of
from tciafs.model import Patient, Series

DESCRIPTION = "DescriptionCriteria"

_CART = "v4/getCartData"
_CARTS = (_CART, "getCartData")
_DOIS = "v4/getCollectionOrSeriesForDOI"
T = TypeVar("T")

_EARLIEST, _LATEST = date(1900, 1, 1), date(2999, 12, 31)
_AT_ONCE = 2_000  # Tomcat takes no form of more than 10,000 fields; a criterion is two


async def search(http: Http, criteria: Criteria) -> list[Series]:
    """Return the series that match, with their numbers of images and sizes; perhaps none."""
    kinds = await _kinds(http, criteria)
    uids = await _uids(http, criteria)
    if kinds is None or uids == set():
        return []

    async def of_part(part: list[str] | None) -> list[PatientKeys]:
        among = [("SeriesCriteria", uid) for uid in part or []]
        return await find_all(http, [*kinds, *among], _days(criteria, len(kinds) + len(among)))

    patients = await all_of(of_part, [None] if uids is None else _parts(sorted(uids)))
    return [series for series in await _series(http, patients) if criteria.has(series)]


async def count_patients(http: Http) -> dict[str, int]:
    """Return how many patients each collection has (v4/getCollectionValuesAndCounts)."""
    rows = await http.get_json("v4/getCollectionValuesAndCounts", {}, list[CountedRow])
    return {name: whole(row.count) or 0 for row in rows or [] if (name := text(row.collection))}


async def get_manufacturers(http: Http) -> list[str]:
    """Return all manufacturers, as they are spelled (v4/getManufacturerValues)."""
    rows = await http.get_json("v4/getManufacturerValues", {}, list[ManufacturerRow])
    return sorted({value for row in rows or [] if (value := text(row.manufacturer))})


async def get_species(http: Http) -> dict[str, str]:
    """Return the code of each species (v4/getSpeciesTax)."""
    rows = await http.get_json("v4/getSpeciesTax", {}, list[SpeciesRow])
    return {name: code for row in rows or [] if (name := text(row.description)) and (code := text(row.code))}


async def _kinds(http: Http, criteria: Criteria) -> list[tuple[str, str]] | None:
    """Return what the search is asked; None where the archive has none of the values of one kind."""
    kinds = criteria_of(criteria.selection)
    if criteria.manufacturers:
        known = await get_manufacturers(http)
        spelled = [each for value in criteria.manufacturers for each in same(value, known)]
        if not spelled:
            return None
        kinds += [("ManufacturerCriteria", value) for value in spelled]
    if criteria.species:
        species = await get_species(http)
        names = [*species, *species.values()]
        found = [each for value in criteria.species for each in same(value, names)]
        if not found:
            return None
        kinds += [("SpeciesCriteria", species.get(each, each)) for each in found]
    if criteria.description:
        kinds.append((DESCRIPTION, criteria.description))
    if criteria.min_studies > 1:
        kinds.append(("MinNumberOfStudiesCriteria", str(criteria.min_studies)))
    return kinds


def _days(criteria: Criteria, number: int) -> Form:
    """Return the criterion of days, which has two values under names of their own."""
    if criteria.submitted is None:
        return []
    first, last = criteria.submitted
    kind = (f"criteriaType{number}", "DateRangeCriteria")
    ends = {"fromDate": first or _EARLIEST, "toDate": last or _LATEST}  # neither may be missing
    return [kind, *((f"{name}{number}", f"{day:%m-%d-%Y}") for name, day in ends.items())]


async def _uids(http: Http, criteria: Criteria) -> set[str] | None:
    """Return the series of the patients, models and DOIs alone; None where none are named."""
    named: list[set[str]] = []
    for name, values in (
        ("PatientID", criteria.selection.patients),
        ("ManufacturerModelName", criteria.models),
    ):
        if values:
            named.append({uid for value in values for uid in await _with(http, criteria, name, value)})
    if criteria.dois:
        named.append({uid for doi in criteria.dois for uid in await _under(http, doi)})
    return set.intersection(*named) if named else None


async def _with(http: Http, criteria: Criteria, name: str, value: str) -> list[str]:
    """Return the series with a value of a column that getSeries can be asked for (v4/getSeries)."""
    params = {name: value}
    if len(criteria.selection.collections) == 1:
        params["Collection"] = criteria.selection.collections[0]
    rows = await http.get_json("v4/getSeries", params, list[SeriesRow])
    return [row.series_instance_uid for row in rows or []]


async def _under(http: Http, doi: str) -> list[str]:
    for spelled in spellings_of(doi):
        form = [("DOI", spelled), ("CollectionOrSeries", "series")]
        rows = await http.post_json(_DOIS, form, list[DoiRow])
        if found := [uid for row in rows or [] if (uid := text(row.series_instance_uid))]:
            return found
    return []


async def _series(http: Http, patients: Iterable[PatientKeys]) -> list[Series]:
    """Return the series behind the keys of a search."""
    owners: dict[int, Patient] = {}
    for row in patients:
        if (collection := text(row.project)) and (patient_id := text(row.subject_id)):
            patient = Patient(collection, patient_id)
            owners |= {key: patient for study in row.study_identifiers for key in study.series_identifiers}
    studies = await all_of(lambda part: _cart_data(http, part), _parts(sorted(owners)))
    found = {
        row.series_pk_id: _record(owners[row.series_pk_id], study, row)
        for study in studies
        for row in study.series_list
        if row.series_pk_id in owners
    }
    if len(found) < len(owners):
        raise BadAnswer(f"{_CART}: {len(found):,} of the {len(owners):,} series that were found came")
    return list(found.values())


async def _cart_data(http: Http, keys: list[int]) -> list[CartStudy]:
    """Return what keys stand for, by study; raise `Unsupported` where no version of the endpoint exists."""
    form = [("list", str(key)) for key in keys]
    failure: ArchiveError | None = None
    for endpoint in _CARTS:
        try:
            return await http.post_json(endpoint, form, list[CartStudy]) or []
        except Unsupported as exc:
            failure = exc
    assert failure is not None
    raise failure


def _record(patient: Patient, study: CartStudy, row: CartSeries) -> Series:
    return Series(
        patient.collection,
        patient.patient_id,
        study.study_instance_uid,
        row.series_uid,
        modality=text(row.modality),
        series_description=text(row.description),
        body_part=text(row.body_part_examined),
        image_count=whole(row.number_images) or 0,
        file_size=whole(row.total_size),
    )


def _parts(values: list[T]) -> list[list[T]]:
    return [values[first : first + _AT_ONCE] for first in range(0, len(values), _AT_ONCE)]
