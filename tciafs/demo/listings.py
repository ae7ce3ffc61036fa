"""The list endpoints: which series match, and what of them is listed (nbia-api: section 2.1).

Rows come in another order at every answer, as nothing in NBIA orders them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from functools import partial

from tciafs.demo.answers import Answer, Endpoint, Question, Table, Value, server_error
from tciafs.demo.records import StoredSeries
from tciafs.demo.rows import (
    patient_columns,
    patient_rows,
    series_columns,
    series_row,
    study_columns,
    study_rows,
    updated_series_columns,
)

_FILTERS: Mapping[str, Callable[[StoredSeries], str | None]] = {
    "Collection": lambda series: series.collection,
    "PatientID": lambda series: series.study.patient.patient_id,
    "PatientId": lambda series: series.study.patient.patient_id,
    "StudyInstanceUID": lambda series: series.study.study_instance_uid,
    "SeriesInstanceUID": lambda series: series.series_instance_uid,
    "Modality": lambda series: series.modality,
    "BodyPartExamined": lambda series: series.body_part,
    "Manufacturer": lambda series: series.manufacturer,
    "ManufacturerModelName": lambda series: series.model_name,
}
# nbia-api: visibility / matching. PatientId (of getPatient) is exact in v4, and UIDs are everywhere.
_ANY_CASE = {
    "v4": {
        "Collection",
        "PatientID",
        "Modality",
        "BodyPartExamined",
        "Manufacturer",
        "ManufacturerModelName",
    },
    "v1": {"Collection", "PatientID", "PatientId"},
}


def matching(question: Question) -> Iterator[StoredSeries]:
    """Yield the visible series that all filters of the question let through."""
    any_case = _ANY_CASE["v4" if question.version == "v4" else "v1"]
    tests = [
        (_FILTERS[name], name in any_case, value.upper() if name in any_case else value)
        for name in _FILTERS
        if (value := question.get(name)) is not None
    ]
    candidates = question.dataset.candidates(
        collection=question.get("Collection"),
        patient_id=question.get("PatientID") or question.get("PatientId"),
        study_instance_uid=question.get("StudyInstanceUID"),
        series_instance_uid=question.get("SeriesInstanceUID"),
    )
    for series in candidates:
        if question.sees(series) and all(_same(*test, series) for test in tests):
            yield series


def _same(
    column: Callable[[StoredSeries], str | None], any_case: bool, wanted: str, series: StoredSeries
) -> bool:
    value = column(series)
    return value is not None and (value.upper() if any_case else value) == wanted


def _answer(question: Question, columns: list[str], rows: list[Mapping[str, Value]]) -> Answer:
    random.shuffle(rows)
    columns = [column for column in columns if column not in question.lacking_columns]
    return Table(columns, rows).render(question.version, question.get("format"))


def get_values(column: str, question: Question) -> Answer:
    """List the values of a column; one `{}` row when a series lacks it."""
    values = {_FILTERS[column](series) for series in matching(question)}
    if column == "Modality" and question.version == "v4":
        values = {value.upper() if value else None for value in values}
    return _answer(question, [column], [{column: value} for value in values])


def get_patient(question: Question) -> Answer:
    """List patients."""
    return _answer(question, patient_columns(question.version), patient_rows(matching(question)))


def get_patient_study(question: Question) -> Answer:
    """List studies."""
    return _answer(question, study_columns(question.version), study_rows(matching(question)))


def get_series(question: Question) -> Answer:
    """List series."""
    return _answer(question, series_columns(question.version), [*map(series_row, matching(question))])


def get_series_size(question: Question) -> Answer:
    """Sum up one series."""
    rows: list[Mapping[str, Value]] = [
        {"TotalSizeInBytes": series.file_size, "ObjectCount": len(series.instances)}
        for series in matching(question)
    ]
    return _answer(question, ["TotalSizeInBytes", "ObjectCount"], rows)


def get_sop_instance_uids(question: Question) -> Answer:
    """List the instances of a series, hidden ones too."""
    series = question.dataset.series.get(question.get("SeriesInstanceUID") or "")
    instances = series.instances if series else []
    rows: list[Mapping[str, Value]] = [{"SOPInstanceUID": each.sop_instance_uid} for each in instances]
    return _answer(question, ["SOPInstanceUID"], rows)


def get_updated_series(question: Question) -> Answer:
    """List the series released after a day, across all collections."""
    since = _day(question, "fromDate", "%d/%m/%Y") or date(1900, 1, 1)
    rows = [series_row(series) for series in matching(question) if series.released > since]
    return _answer(question, updated_series_columns(question.version), rows)


def get_new_patients(question: Question) -> Answer:
    """List the patients of a collection with a submission on or after a day."""
    return _answer(question, patient_columns(question.version), patient_rows(_new(question)))


def get_new_studies(question: Question) -> Answer:
    """List the studies of a collection with a submission on or after a day."""
    return _answer(question, study_columns(question.version), study_rows(_new(question)))


def get_patient_by_modality(question: Question) -> Answer:
    """List the patients of a collection with a series of a modality."""
    columns = ["PatientId", "Authorized"] if question.version == "v4" else ["PatientId"]
    return _answer(question, columns, patient_rows(matching(question)))


def _new(question: Question) -> Iterator[StoredSeries]:
    since = _day(question, "fromDate" if question.version == "v4" else "Date", "%Y/%m/%d")
    assert since is not None, "the day is required"
    return (series for series in matching(question) if series.submitted >= since)


def _day(question: Question, name: str, before_v4: str) -> date | None:
    """Read a date, which each version and endpoint spells its own way; the archive fails on any other."""
    value = question.get(name)
    spelling = "%m-%d-%Y" if question.version == "v4" else before_v4
    try:
        return datetime.strptime(value, spelling).date() if value else None
    except ValueError:
        raise server_error(f'Unparseable date: "{value}"') from None


def _listed(
    answer: Callable[[Question], Answer], allowed: str = "", required: str = "", complaint: str = ""
) -> Endpoint:
    names = (*allowed.split(), *required.split(), "format")
    return Endpoint(answer, "GET", names, tuple(required.split()), complaint)


def _values() -> dict[str, Endpoint]:
    return {
        "getCollectionValues": _listed(partial(get_values, "Collection")),
        "getModalityValues": _listed(partial(get_values, "Modality"), "Collection BodyPartExamined"),
        "getBodyPartValues": _listed(partial(get_values, "BodyPartExamined"), "Collection Modality"),
        "getManufacturerValues": _listed(
            partial(get_values, "Manufacturer"), "Collection Modality BodyPartExamined"
        ),
    }


def _news(version: str) -> dict[str, Endpoint]:
    day = "fromDate" if version == "v4" else "Date"
    complaint = "A parameter, Collection and Date are required for this API call."
    updated = (
        _listed(get_updated_series, "fromDate")
        if version == "v4"
        else _listed(
            get_updated_series, "", "fromDate", "A parameter, fromDate is required for this API call."
        )
    )
    return {
        "getUpdatedSeries": updated,
        "NewPatientsInCollection": _listed(get_new_patients, "", f"Collection {day}", complaint),
        "NewStudiesInPatientCollection": _listed(
            get_new_studies, "PatientID", f"Collection {day}", complaint
        ),
    }


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    filters = " ".join(name for name in _FILTERS if name != "PatientId")
    no_series = "A parameter, SeriesInstanceUID is required for this API call."
    no_pair = "A parameter, Collection and Modality, are required for this API call."
    return {
        **_values(),
        **_news(version),
        "getPatient": _listed(get_patient, "Collection PatientId"),
        "getPatientStudy": _listed(get_patient_study, "Collection PatientID StudyInstanceUID"),
        "getSeries": _listed(get_series, filters),
        "getSeriesSize": _listed(get_series_size, "", "SeriesInstanceUID", no_series),
        "getSOPInstanceUIDs": _listed(get_sop_instance_uids, "", "SeriesInstanceUID", no_series),
        "getPatientByCollectionAndModality": _listed(
            get_patient_by_modality, "", "Collection Modality", no_pair
        ),
    }
