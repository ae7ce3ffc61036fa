"""What is told of many series at once, and the values of search criteria (nbia-api: sections 2.2 and 2.3)."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from functools import partial

from tciafs.demo.answers import (
    FORMATS,
    JSON,
    Answer,
    Endpoint,
    Question,
    Table,
    Value,
    json_answer,
    server_error,
)
from tciafs.demo.records import SPECIES, StoredSeries, StoredStudy, terms_of
from tciafs.demo.rows import patient_row, series_row, study_row
from tciafs.demo.search import whole

_COLUMNS = (
    "PatientID PatientName PatientSex EthnicGroup Phantom SpeciesCode SpeciesDescription StudyInstanceUID "
    "StudyDate StudyDesc AdmittingDiagnosisDescription StudyID PatientAge LongitudinalTemporalEventType "
    "LongitudinalTemporalOffsetFromEvent SeriesInstanceUID Collection Site Modality ProtocolName SeriesDate "
    "SeriesDescription BodyPartExamined SeriesNumber AnnotationsFlag Manufacturer ManufacturerModelName "
    "PixelSpacing(mm)-Row SliceThickness(mm) SoftwareVersions ImageCount MaxSubmissionTimestamp LicenseName "
    "LicenseURI DataDescriptionURI FileSize ReleasedStatus DateReleased ThirdPartyAnalysis Authorized"
)
_NUMBERS = ("ImageCount", "FileSize")
_FILE = ("Content-Disposition", 'attachment; filename="SeriesMetaData.csv"')


def get_series_metadata(question: Question) -> Answer:
    """List series by UID with their studies and patients; what is not there is left out."""
    uids: list[str] = []
    for value in question.get_all("list"):
        uids += re.sub(r"[^0-9.,]", "", value).split(",")
    series = [question.dataset.series[uid] for uid in uids if uid in question.dataset.series]
    rows = [_row(each) for each in series if question.sees(each)]
    random.shuffle(rows)
    wanted = (question.get("format") or "CSV-DOWNLOAD").upper()
    answer = Table(_COLUMNS.split(), rows).render(question.version, wanted.removesuffix("-DOWNLOAD"))
    return replace(answer, headers=(_FILE,)) if wanted == "CSV-DOWNLOAD" else answer


def _row(series: StoredSeries) -> Mapping[str, Value]:
    """Return a row whose values are texts, but for two of them; a number comes as a decimal does."""
    row = {
        **patient_row(series.study.patient),
        **study_row(series.study, 1),
        **series_row(series),
        "SeriesNumber": None if series.number is None else f"{series.number}.000000",
        "AnnotationsFlag": None,
    }
    return {
        name: value if value is None or isinstance(value, date) or name in _NUMBERS else str(value)
        for name, value in row.items()
    }


def get_cart_data(question: Question) -> Answer:
    """List series by primary key, by study; one whose images all lack a size fails the whole."""
    pks = dict.fromkeys(whole(value) for value in question.get_all("list"))
    by_pk = question.dataset.series_by_pk
    by_study: dict[StoredStudy, list[StoredSeries]] = {}
    for series in (by_pk[pk] for pk in pks if pk in by_pk):
        if question.sees(series):
            by_study.setdefault(series.study, []).append(series)
    return json_answer([_cart_study(study, members) for study, members in by_study.items()])


def _cart_study(study: StoredStudy, members: Iterable[StoredSeries]) -> dict[str, object]:
    return {
        "studyId": study.study_instance_uid,
        "date": study.study_date.strftime("%m-%d-%Y") if study.study_date else None,
        "description": study.description,
        "id": study.pk,
        "study_id": study.study_id,
        "excludeCommercial": None,
        "seriesList": [_cart_series(series) for series in members],
    }


def _cart_series(series: StoredSeries) -> dict[str, object]:
    size = series.file_size
    if size is None:
        raise server_error("null")
    return {
        "seriesPkId": series.pk,
        "seriesUID": series.series_instance_uid,
        "studyPkId": series.study.pk,
        "studyId": series.study.study_instance_uid,
        "patientId": series.study.patient.patient_id,
        "patientPkId": str(series.study.patient.pk),
        "project": series.collection,
        "modality": series.modality,
        "manufacturer": series.manufacturer,
        "seriesNumber": None if series.number is None else str(series.number),
        "description": series.description,
        "bodyPartExamined": series.body_part,
        "thirdPartyAnalysis": "YES" if series.is_analysis else "NO",
        "descriptionURI": terms_of(series.collection, series.is_analysis).data_description_uri,
        "numberImages": len(series.instances),
        "totalImagesInSeries": len(series.instances),
        "totalSizeForAllImagesInSeries": size,
        "exactSize": size,
        "maxFrameCount": "0",
        "sopClassUID": None,
    }


def get_collection_or_series_for_doi(question: Question) -> Answer:
    """List the collections, or series, that have a DOI as their description, spelled as it is stored."""
    doi, of_series = question.get("DOI"), (question.get("CollectionOrSeries") or "").lower() == "series"
    rows: dict[tuple[str, str, str | None], None] = {}
    for series in question.dataset.series.values():
        stored = terms_of(series.collection, series.is_analysis).data_description_uri
        if question.sees(series) and doi in (None, stored):
            analysis = "YES" if series.is_analysis else "NO"
            rows[series.collection, analysis, series.series_instance_uid if of_series else None] = None
    return json_answer(
        [
            {"collection": name, "thirdPartyAnanlysis": analysis, "authorized": 1}
            | ({"seriesInstanceUID": uid} if uid else {})
            for name, analysis, uid in rows
        ]
    )


def get_species_tax(question: Question) -> Answer:
    """List the species of the patients, with their codes."""
    seen = [series for series in question.dataset.series.values() if question.sees(series)]
    found = {series.study.patient.species for series in seen}
    return json_answer([{"speciesCode": SPECIES[name], "speciesDescription": name} for name in found])


def get_collection_values_and_counts(question: Question) -> Answer:
    """Count the patients of each collection."""
    seen = [series for series in question.dataset.series.values() if question.sees(series)]
    patients = {series.study.patient for series in seen}
    counts = Counter(patient.collection for patient in patients)
    rows: list[Mapping[str, Value]] = [
        {"Collection": name, "Count": count, "Authorized": 1} for name, count in counts.items()
    ]
    random.shuffle(rows)
    columns = ["Collection", "Count", "Authorized"]
    return Table(columns, rows).render(question.version, question.get("format"))


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    post = partial(Endpoint, method="POST", produces=(JSON,))
    complaint = "A form parameter, list, containing at least one SeriesInstanceUID is required."
    match version:
        case "v4":
            return {
                "getSeriesMetadata": post(
                    get_series_metadata, required=("list",), complaint=complaint, produces=FORMATS
                ),
                "getCartData": post(get_cart_data, allowed=("list",)),
                "getCollectionOrSeriesForDOI": post(
                    get_collection_or_series_for_doi, allowed=("DOI", "CollectionOrSeries")
                ),
                "getSpeciesTax": Endpoint(get_species_tax, produces=(JSON,)),
                "getCollectionValuesAndCounts": Endpoint(get_collection_values_and_counts),
            }
        case "":
            return {"getCartData": post(get_cart_data)}
    return {}
