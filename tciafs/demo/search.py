"""The endpoints that know primary keys: search and drill-down (nbia-api: sections 2.3 and 4)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from fnmatch import fnmatchcase
from functools import partial

from tciafs.demo.answers import (
    JSON,
    Answer,
    Endpoint,
    Question,
    Value,
    json_answer,
    server_error,
    spell_date,
)
from tciafs.demo.records import SPECIES, StoredInstance, StoredPatient, StoredSeries

_CRITERIA: Mapping[str, Callable[[StoredSeries, str], bool]] = {
    "CollectionCriteria": lambda series, value: series.collection.upper() == value.upper(),
    "PatientCriteria": lambda series, value: fnmatchcase(series.study.patient.patient_id, value),
    "StudyCriteria": lambda series, value: series.study.study_instance_uid == value,
    "SeriesCriteria": lambda series, value: series.series_instance_uid == value,
    "ImageModalityCriteria": lambda series, value: (series.modality or "").upper() == value.upper(),
    "AnatomicalSiteCriteria": lambda series, value: _body_part(series) == value,
    "BodyPartExaminedCriteria": lambda series, value: _body_part(series) == value,
    "ManufacturerCriteria": lambda series, value: series.manufacturer == value,
    "DescriptionCriteria": lambda series, value: value.upper() in (series.description or "").upper(),
    "SpeciesCriteria": lambda series, value: SPECIES[series.study.patient.species] == value,
    "MinNumberOfStudiesCriteria": lambda series, value: series.study.patient.studies >= whole(value),
    "DateRangeCriteria": lambda series, value: _submitted_within(series, *value.split("/")),
}
_PAGING = ("sortField", "sortDirection", "start", "size")


def _body_part(series: StoredSeries) -> str:
    """Return what a value is compared with, which is not brought to upper case itself."""
    return (series.body_part or "NOT SPECIFIED").upper().rstrip()


def _submitted_within(series: StoredSeries, first: str, last: str) -> bool:
    """Tell whether the series was submitted in these days, both of which count."""
    return _day(first) <= series.submitted <= _day(last)


def _day(spelled: str) -> date:
    try:
        return datetime.strptime(spelled, "%m-%d-%Y").date()
    except ValueError:
        raise server_error(f'Unparseable date: "{spelled}"') from None


def get_simple_search(question: Question) -> Answer:
    """Find series and return them by primary key, a page of patients at a time."""
    if any(question.get(name) is None for name in _PAGING):
        raise server_error("null")
    found = _found(question)
    patients = sorted(found, key=lambda patient: (patient.patient_id, patient.collection))
    if question.get("sortDirection") == "descending":
        patients.reverse()
    start, size = (whole(question.get(name) or "") for name in ("start", "size"))
    if start > len(patients):
        raise server_error(f"fromIndex({start}) > toIndex({len(patients)})")
    shown = [_patient(patient, found[patient]) for patient in patients[start : start + size]]
    return json_answer({"resultSet": shown, "totalPatients": len(patients), **_summary(found)})


def _found(question: Question) -> dict[StoredPatient, list[StoredSeries]]:
    criteria = _criteria(question)
    found: dict[StoredPatient, list[StoredSeries]] = {}
    for series in _candidates(question, criteria):
        tests = ((_CRITERIA[kind], values) for kind, values in criteria.items())
        if question.sees(series) and all(
            any(test(series, value) for value in values) for test, values in tests
        ):
            found.setdefault(series.study.patient, []).append(series)
    return found


def _criteria(question: Question) -> dict[str, list[str]]:
    """Collect `criteriaTypeN` and `valueN`, N from 0 on: a type that nobody knows is ignored.

    Values of one type are alternatives, types must all hold.
    """
    given = dict(question.parameters)
    criteria: dict[str, list[str]] = {}
    number = -1
    while kind := given.get(f"criteriaType{(number := number + 1)}"):
        if kind not in _CRITERIA:
            continue
        value = _value_of(kind, number, given)
        if kind == "PatientCriteria" and "'" in value:  # nbia-api: it reaches the query text unescaped
            raise server_error("could not extract ResultSet")
        criteria.setdefault(kind, []).append(value)
    return criteria


def _value_of(kind: str, number: int, given: Mapping[str, str]) -> str:
    """Return a criterion's value; that of a range is both its ends."""
    names = ("fromDate", "toDate") if kind == "DateRangeCriteria" else ("value",)
    values = [given.get(f"{name}{number}") for name in names]
    if None in values:
        raise server_error("null")
    return "/".join(value for value in values if value is not None)


def _candidates(question: Question, criteria: Mapping[str, list[str]]) -> Iterable[StoredSeries]:
    dataset = question.dataset
    if "SeriesCriteria" in criteria:
        uids = dict.fromkeys(criteria["SeriesCriteria"])
        return [dataset.series[uid] for uid in uids if uid in dataset.series]
    if "CollectionCriteria" in criteria:
        names = dict.fromkeys(name.upper() for name in criteria["CollectionCriteria"])
        return [series for name in names for series in dataset.candidates(collection=name)]
    return dataset.candidates()


def _patient(patient: StoredPatient, series_list: list[StoredSeries]) -> dict[str, object]:
    by_study: dict[int, list[StoredSeries]] = {}
    for series in random.sample(series_list, len(series_list)):
        by_study.setdefault(series.study.pk, []).append(series)
    return {
        "subjectId": patient.patient_id,
        "project": patient.collection,
        "id": patient.pk,
        "studyIdentifiers": [_study(pk, members) for pk, members in by_study.items()],
        "totalNumberOfStudies": len(by_study),
        "totalNumberOfSeries": len(series_list),
        "modalities": sorted({series.modality for series in series_list if series.modality}),
        "bodyParts": sorted({series.body_part for series in series_list if series.body_part}),
        "species": [patient.species],
        "timepoints": {},
        "authorized": 1,
    }


def _study(pk: int, series_list: Iterable[StoredSeries]) -> dict[str, object]:
    pairs = [(series.pk, series.modality) for series in series_list]
    return {
        "studyIdentifier": pk,
        "seriesIdentifiers": [series_pk for series_pk, _ in pairs],
        "seriesAndModality": [{"seriesId": series_pk, "modality": modality} for series_pk, modality in pairs],
    }


def _summary(found: Mapping[StoredPatient, Iterable[StoredSeries]]) -> dict[str, object]:
    """Count patients by body part, modality and collection."""
    body_parts, modalities, collections = Counter[str](), Counter[str](), Counter[str]()
    for patient, series_list in found.items():
        body_parts.update({series.body_part for series in series_list if series.body_part})
        modalities.update({series.modality for series in series_list if series.modality})
        collections[patient.collection] += 1
    return {
        "bodyParts": _counts(body_parts),
        "modalities": _counts(modalities),
        "collections": _counts(collections),
        "species": _counts(Counter(patient.species for patient in found)),
        "minTimepoints": {},
        "maxTimepoints": {},
        "sort": "subject",
    }


def _counts(counter: Counter[str]) -> list[dict[str, object]]:
    return [{"value": value, "count": count} for value, count in counter.items()]


def get_image_drill_down(question: Question) -> Answer:
    """List the files of series by primary key, with their sizes.

    v4 fails on a batch with any null InstanceNumber or size; the unversioned one tolerates both.
    """
    pks = dict.fromkeys(whole(value) for value in question.get_all("list"))
    if not pks:
        raise server_error("null")
    by_pk = question.dataset.series_by_pk
    instances = [each for pk in pks if pk in by_pk for each in by_pk[pk].instances]
    gaps = any(each.promised_number is None or each.promised_size is None for each in instances)
    if gaps and question.version == "v4":
        raise server_error("null")
    random.shuffle(instances)
    instances.sort(key=lambda each: each.promised_number or 0)
    return json_answer([_image(instance) for instance in instances])


def _image(instance: StoredInstance) -> dict[str, Value]:
    series, content_date = instance.series, instance.content_date
    return {
        "imagePkId": instance.pk,
        "contentDate": spell_date(content_date, "v4") if content_date else None,
        "contentTime": instance.content_time,
        "seriesPkId": series.pk,
        "instanceNumber": instance.promised_number,
        "sopInstanceUid": instance.sop_instance_uid,
        "seriesInstanceUid": series.series_instance_uid,
        "studyInstanceUid": series.study.study_instance_uid,
        "size": instance.promised_size,
        "fileURI": f"/demo/{instance.sop_instance_uid}.dcm",
        "project": None,
        "siteName": None,
        "frameNum": 0,
        "acquisitionNumber": instance.promised_number,  # nbia-api: so it is (a bug of NBIA's)
    }


def whole(value: str) -> int:
    """Return the number, or fail as Java does."""
    try:
        return int(value)
    except ValueError:
        raise server_error(f'For input string: "{value}"') from None


def broken(question: Question) -> Answer:
    """Fail as the v4 study drill-downs do: their SQL lacks a blank."""
    raise server_error("could not extract ResultSet")


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    post = partial(Endpoint, method="POST", produces=(JSON,))
    match version:
        case "v4":
            return {
                "getSimpleSearch": post(get_simple_search),
                "getImageDrillDown": post(get_image_drill_down, allowed=("list",)),
                "getStudyDrillDown": post(broken),
                "getStudyDrillDownWithSeriesIds": post(broken),
            }
        case "":
            return {"getImageDrillDown": post(get_image_drill_down)}
    return {}
