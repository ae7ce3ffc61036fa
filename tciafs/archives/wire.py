"""NBIA's JSON rows as they come, and how each becomes a record.

Columns are those of the server's source (nbia-api 2.1): nulls are absent keys, `PatientId` and
`PatientID` both occur.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from tciafs.archives.values import Number, Text, day, text, whole
from tciafs.model import Description, Instance, Patient, Record, Series, Study, Terms, key_of


class CollectionRow(msgspec.Struct, rename={"collection": "Collection"}):
    """A row of getCollectionValues; `{}` for series without a collection."""

    collection: Text = None


class PatientRow(
    msgspec.Struct,
    rename={"patient_id": "PatientId", "patient_id_too": "PatientID", "collection": "Collection"},
):
    """A row of getPatient."""

    patient_id: Text = None
    patient_id_too: Text = None
    collection: Text = None


class StudyRow(
    msgspec.Struct,
    rename={
        "collection": "Collection",
        "patient_id": "PatientID",
        "study_instance_uid": "StudyInstanceUID",
        "study_date": "StudyDate",
        "study_description": "StudyDescription",
        "study_id": "StudyID",
        "series_count": "SeriesCount",
    },
):
    """A row of getPatientStudy."""

    study_instance_uid: str
    patient_id: Text = None
    collection: Text = None
    study_date: Text = None
    study_description: Text = None
    study_id: Text = None
    series_count: Number = None


class SeriesRow(
    msgspec.Struct,
    rename={
        "series_instance_uid": "SeriesInstanceUID",
        "study_instance_uid": "StudyInstanceUID",
        "modality": "Modality",
        "series_description": "SeriesDescription",
        "body_part": "BodyPartExamined",
        "series_number": "SeriesNumber",
        "collection": "Collection",
        "patient_id": "PatientID",
        "image_count": "ImageCount",
        "max_submission_timestamp": "MaxSubmissionTimestamp",
        "time_stamp": "TimeStamp",
        "license_name": "LicenseName",
        "license_uri": "LicenseURI",
        "data_description_uri": "DataDescriptionURI",
        "collection_uri": "CollectionURI",
        "file_size": "FileSize",
        "date_released": "DateReleased",
        "third_party_analysis": "ThirdPartyAnalysis",
    },
):
    """A row of getSeries, v1 or v4."""

    series_instance_uid: str
    study_instance_uid: str
    modality: Text = None
    series_description: Text = None
    body_part: Text = None
    series_number: Text = None
    collection: Text = None
    patient_id: Text = None
    image_count: Number = None
    max_submission_timestamp: Text = None
    time_stamp: Text = None
    license_name: Text = None
    license_uri: Text = None
    data_description_uri: Text = None
    collection_uri: Text = None
    file_size: Number = None
    date_released: Text = None
    third_party_analysis: Text = None


class TermsRow(
    msgspec.Struct,
    rename={
        "series_instance_uid": "SeriesInstanceUID",
        "collection": "Collection",
        "license_name": "LicenseName",
        "license_uri": "LicenseURI",
        "data_description_uri": "DataDescriptionURI",
        "collection_uri": "CollectionURI",
        "third_party_analysis": "ThirdPartyAnalysis",
    },
):
    """What a row of getSeries says of licence and citation; the rest is not kept."""

    series_instance_uid: str
    collection: Text = None
    license_name: Text = None
    license_uri: Text = None
    data_description_uri: Text = None
    collection_uri: Text = None
    third_party_analysis: Text = None


class DescriptionRow(
    msgspec.Struct,
    rename={
        "collection": "collectionName",
        "html": "description",
        "description_uri": "descriptionURI",
        "license_id": "licenseId",
    },
):
    """A row of getCollectionDescriptions; v4 says nothing of the licence."""

    collection: Text = None
    html: Text = None
    description_uri: Text = None
    license_id: Text = None


class LicenseRow(msgspec.Struct, rename={"name": "longName", "license_url": "licenseURL"}):
    """A row of getLicenses."""

    id: Text = None
    name: Text = None
    license_url: Text = None


class SopRow(msgspec.Struct, rename={"sop_instance_uid": "SOPInstanceUID"}):
    """A row of getSOPInstanceUIDs."""

    sop_instance_uid: str


class ValueRow(msgspec.Struct, rename={"modality": "Modality", "body_part": "BodyPartExamined"}):
    """A row of getModalityValues or getBodyPartValues; `{}` for series that have none."""

    modality: Text = None
    body_part: Text = None


class SizeRow(msgspec.Struct, rename={"size": "TotalSizeInBytes", "count": "ObjectCount"}):
    """A row of getSeriesSize."""

    size: Number = None
    count: Number = None


class StudyKeys(msgspec.Struct, rename="camel"):
    """The database keys of a study's series in getSimpleSearch."""

    series_identifiers: list[int] = []


class PatientKeys(msgspec.Struct, rename="camel"):
    """A patient of getSimpleSearch's resultSet; `project` is the collection, `id` a database key."""

    study_identifiers: list[StudyKeys] = []
    id: int | None = None
    subject_id: Text = None
    project: Text = None


class CountRow(msgspec.Struct):
    """How many patients of a search's answer have a value."""

    value: Text = None


class SearchAnswer(msgspec.Struct, rename="camel"):
    """The answer of getSimpleSearch: a page of patients, and a summary of all that were found."""

    result_set: list[PatientKeys] = []
    total_patients: int | None = None
    collections: list[CountRow] = []


def patient_of(row: PatientRow, collection: str) -> Patient | None:
    """Return the patient, None for a row of another collection (matching ignores case) or without an id."""
    patient_id = text(row.patient_id) or text(row.patient_id_too)
    if not patient_id or text(row.collection) not in (None, collection):
        return None
    return Patient(collection, patient_id)


def study_of(row: StudyRow, collection: str, patient_id: str) -> Study | None:
    """Return the study, None for a row of a patient whose id differs only in case."""
    if text(row.patient_id) not in (None, patient_id) or text(row.collection) not in (None, collection):
        return None
    return Study(
        collection,
        patient_id,
        row.study_instance_uid,
        day(row.study_date),
        text(row.study_description),
        text(row.study_id),
        whole(row.series_count),
    )


def series_of(row: SeriesRow, collection: str, patient_id: str) -> Series | None:
    """Return the series, None for a row of a patient whose id differs only in case."""
    if text(row.patient_id) not in (None, patient_id) or text(row.collection) not in (None, collection):
        return None
    terms = terms_of(row)
    return Series(
        collection,
        patient_id,
        row.study_instance_uid,
        row.series_instance_uid,
        modality=text(row.modality),
        series_number=text(row.series_number),
        series_description=text(row.series_description),
        body_part=text(row.body_part),
        image_count=whole(row.image_count) or 0,
        file_size=whole(row.file_size),
        submitted=day(row.max_submission_timestamp) or day(row.time_stamp),
        released=day(row.date_released),
        license_name=terms.license_name,
        license_uri=terms.license_uri,
        data_description_uri=terms.data_description_uri,
        third_party_analysis=terms.third_party_analysis,
    )


def terms_of(row: TermsRow | SeriesRow) -> Terms:
    """Return the terms of the series."""
    return Terms(
        text(row.license_name),
        text(row.license_uri),
        text(row.data_description_uri) or text(row.collection_uri),
        (text(row.third_party_analysis) or "").upper() == "YES",
    )


def description_of(row: DescriptionRow, licenses: Iterable[LicenseRow]) -> Description:
    """Return what is said of a collection, with its licence out of the catalogue of all."""
    found = [
        each for each in licenses if row.license_id is not None and text(each.id) == text(row.license_id)
    ]
    name, url = (text(found[0].name), text(found[0].license_url)) if found else (None, None)
    return Description(text(row.html), Terms(name, url, text(row.description_uri)))


def instance_of(
    series: Series, sop_instance_uid: str, number: Number = None, size: Number = None
) -> Instance:
    """Return the instance, its size taken from the series where that has one image (nbia-api 4.4)."""
    promised = whole(size)
    if promised is None and series.image_count == 1:
        promised = series.file_size
    if promised is not None and promised <= 0:
        promised = None
    estimate = (series.file_size or 0) // max(series.image_count, 1)
    return Instance(
        series.series_instance_uid,
        sop_instance_uid,
        series.version,
        whole(number),
        promised,
        max(promised or estimate, 1),
    )


R = TypeVar("R", bound=Record)


def distinct(records: Iterable[R | None]) -> list[R]:
    """Drop what is None and all but one record of each key: the same one whatever the rows' order."""
    found: dict[tuple[str, ...], R] = {}
    for record in records:
        if record is not None:
            key = key_of(record)
            found[key] = min(found[key], record, key=repr) if key in found else record
    return list(found.values())
