"""The columns of the lists, in NBIA's order, and the values that fill them (nbia-api: section 2.1).

v2 shows what v1 shows. A value that is None is left out of the row on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tciafs.demo.answers import Value
from tciafs.demo.records import SPECIES, StoredPatient, StoredSeries, StoredStudy, terms_of

_PATIENT_V4 = (
    "PatientId PatientName PatientSex EthnicGroup Collection Phantom "
    "SpeciesCode SpeciesDescription Authorized"
)
_PATIENT_V1 = (
    "PatientId PatientName PatientBirthDate PatientSex EthnicGroup Collection Phantom "
    "SpeciesCode SpeciesDescription"
)
_STUDY_START = "StudyInstanceUID StudyDate StudyDescription AdmittingDiagnosesDescription StudyID PatientAge "
_STUDY_END = (
    " PatientSex EthnicGroup Collection SeriesCount "
    "LongitudinalTemporalEventType LongitudinalTemporalOffsetFromEvent"
)
_STUDY_V4 = f"{_STUDY_START}PatientID PatientName{_STUDY_END} Authorized"
_STUDY_V1 = f"{_STUDY_START}PatientID PatientName PatientBirthDate{_STUDY_END}"
_SERIES_START = (
    "SeriesInstanceUID StudyInstanceUID Modality ProtocolName SeriesDate SeriesDescription "
    "BodyPartExamined SeriesNumber AnnotationsFlag Collection "
)
_SERIES_V4 = (
    f"{_SERIES_START}Site PatientID PatientSex PatientAge AdmittingDiagnosisDescription Manufacturer "
    "ManufacturerModelName SoftwareVersions ImageCount MaxSubmissionTimestamp LicenseName LicenseURI "
    "DataDescriptionURI FileSize ReleasedStatus DateReleased StudyDesc StudyDate ThirdPartyAnalysis "
    "Authorized"
)
_CART = f"{_SERIES_START}PatientID Manufacturer ManufacturerModelName SoftwareVersions ImageCount"
_UPDATED_SERIES_V1 = f"{_CART} DateReleased"
_SERIES_V1 = (
    f"{_SERIES_START}PatientID Manufacturer ManufacturerModelName SoftwareVersions ImageCount TimeStamp "
    "LicenseName LicenseURI CollectionURI FileSize DateReleased StudyDesc StudyDate ThirdPartyAnalysis"
)


def patient_columns(version: str) -> list[str]:
    """Return the columns of getPatient."""
    return (_PATIENT_V4 if version == "v4" else _PATIENT_V1).split()


def study_columns(version: str) -> list[str]:
    """Return the columns of getPatientStudy."""
    return (_STUDY_V4 if version == "v4" else _STUDY_V1).split()


def series_columns(version: str) -> list[str]:
    """Return the columns of getSeries."""
    return (_SERIES_V4 if version == "v4" else _SERIES_V1).split()


def updated_series_columns(version: str) -> list[str]:
    """Return the columns of getUpdatedSeries: v1 says neither sizes nor licences there."""
    return (_SERIES_V4 if version == "v4" else _UPDATED_SERIES_V1).split()


def cart_columns() -> list[str]:
    """Return the columns of getContentsByName, one of which has a blank in its name."""
    return [*_CART.split(), "Date Released"]


def patient_row(patient: StoredPatient) -> Mapping[str, Value]:
    """Return all that any version says of a patient."""
    return {
        "PatientId": patient.patient_id,
        "PatientName": patient.name,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "EthnicGroup": patient.ethnic_group,
        "Collection": patient.collection,
        "Phantom": "YES" if patient.phantom else "NO",
        "SpeciesCode": SPECIES[patient.species],
        "SpeciesDescription": patient.species,
        "Authorized": 1,
    }


def study_row(study: StoredStudy, series_count: int) -> Mapping[str, Value]:
    """Return all that any version says of a study."""
    patient = study.patient
    return {
        "StudyInstanceUID": study.study_instance_uid,
        "StudyDate": study.study_date,
        "StudyDescription": study.description,
        "AdmittingDiagnosesDescription": study.admitting_diagnoses,
        "StudyID": study.study_id,
        "PatientAge": study.patient_age,
        "PatientID": patient.patient_id,
        "PatientName": patient.name,
        "PatientBirthDate": patient.birth_date,
        "PatientSex": patient.sex,
        "EthnicGroup": patient.ethnic_group,
        "Collection": patient.collection,
        "SeriesCount": series_count,
        "Authorized": 1,
    }


def series_row(series: StoredSeries) -> Mapping[str, Value]:
    """Return all that any version says of a series."""
    study, terms = series.study, terms_of(series.collection, series.is_analysis)
    return {
        "SeriesInstanceUID": series.series_instance_uid,
        "StudyInstanceUID": study.study_instance_uid,
        "Modality": series.modality,
        "ProtocolName": series.protocol_name,
        "SeriesDate": series.series_date,
        "SeriesDescription": series.description,
        "BodyPartExamined": series.body_part,
        "SeriesNumber": series.number,
        "AnnotationsFlag": False,
        "Collection": series.collection,
        "Site": "Demo",
        "PatientID": study.patient.patient_id,
        "PatientSex": study.patient.sex,
        "PatientAge": study.patient_age,
        "AdmittingDiagnosisDescription": study.admitting_diagnoses,
        "Manufacturer": series.manufacturer,
        "ManufacturerModelName": series.model_name,
        "SoftwareVersions": series.software_versions,
        "ImageCount": len(series.instances),
        "TimeStamp": series.submitted,
        "MaxSubmissionTimestamp": series.submitted,
        "LicenseName": terms.license_name,
        "LicenseURI": terms.license_uri,
        "CollectionURI": terms.data_description_uri,
        "DataDescriptionURI": terms.data_description_uri,
        "FileSize": series.file_size,
        "ReleasedStatus": "Yes",
        "DateReleased": series.released,
        "StudyDesc": study.description,
        "StudyDate": study.study_date,
        "ThirdPartyAnalysis": "YES" if series.is_analysis else "NO",
        "Authorized": 1,
    }


def patient_rows(series_list: Iterable[StoredSeries]) -> list[Mapping[str, Value]]:
    """Return a row for each patient of these series."""
    return [patient_row(patient) for patient in {series.study.patient: None for series in series_list}]


def study_rows(series_list: Iterable[StoredSeries]) -> list[Mapping[str, Value]]:
    """Return a row for each study of these series."""
    counts: dict[StoredStudy, int] = {}
    for series in series_list:
        counts[series.study] = counts.get(series.study, 0) + 1
    return [study_row(study, count) for study, count in counts.items()]
