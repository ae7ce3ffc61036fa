"""Brings DICOM files into the dataset: a folder of them, or one header at a time.

Parsing is pydicom's; only Part-10 files count, and nothing is written anywhere.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pydicom
import pydicom.config
from pydicom.dataset import Dataset as Header

from tciafs.demo.dataset import Dataset
from tciafs.demo.records import StoredInstance, StoredPatient, StoredSeries, StoredStudy

_LENGTH_OF_DESCRIPTION = 64  # nbia-api: DB limits (varchar of series_desc)
_LENGTH_OF_BODY_PART = 16  # nbia-api: DB limits (truncated on ingest)
_KEYWORDS = [
    "AcquisitionNumber",
    "AdmittingDiagnosesDescription",
    "BodyPartExamined",
    "ContentDate",
    "ContentTime",
    "EthnicGroup",
    "InstanceNumber",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "PatientAge",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ProtocolName",
    "SOPInstanceUID",
    "SeriesDate",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SoftwareVersions",
    "SpecificCharacterSet",
    "StudyDate",
    "StudyDescription",
    "StudyID",
    "StudyInstanceUID",
]


def ingest_folder(dataset: Dataset, folder: Path) -> None:
    """Add every DICOM file below `folder`; its first folder is the collection (or `folder` itself)."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        ingest_file(dataset, parts[0] if len(parts) > 1 else folder.resolve().name, path)


def ingest_file(dataset: Dataset, collection: str, path: Path) -> bool:
    """Add the file at `path`; False when it is no DICOM file or holds nothing new."""
    header = read_header(path)
    return header is not None and ingest(dataset, collection, header, path, path.stat().st_size)


def read_header(path: Path) -> Header | None:
    """Return the header of the Part-10 file at `path`, or None when it is no such file."""
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
    # The archive serves whatever it holds: an odd value is no reason to talk about it.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_KEYWORDS)
    except Exception:  # pydicom raises nearly anything on a damaged file
        return None


def ingest(
    dataset: Dataset, collection: str, header: Header, source: Path | Callable[[], bytes], size: int
) -> bool:
    """Add the instance that `header` tells of; False when it lacks a UID or its UIDs are taken."""
    uids = [text(header, f"{level}InstanceUID") for level in ("Study", "Series", "SOP")]
    study_instance_uid, series_instance_uid, sop_instance_uid = uids
    if not (study_instance_uid and series_instance_uid and sop_instance_uid):
        return False
    if sop_instance_uid in dataset.instances:
        return False
    study = dataset.file_study(_study(dataset, collection, header, study_instance_uid))
    series = dataset.file_series(_series(study, header, series_instance_uid))
    if series.study is not study:  # the UID is another study's: a damaged file, and NBIA refuses it
        return False
    return dataset.file_instance(
        StoredInstance(
            series=series,
            sop_instance_uid=sop_instance_uid,
            size=size,
            source=source,
            number=number(header, "InstanceNumber"),
            acquisition_number=number(header, "AcquisitionNumber"),
            content_date=day(header, "ContentDate"),
            content_time=text(header, "ContentTime"),
        )
    )


def _study(dataset: Dataset, collection: str, header: Header, study_instance_uid: str) -> StoredStudy:
    patient = dataset.file_patient(
        StoredPatient(
            collection=collection,
            patient_id=text(header, "PatientID") or "UNKNOWN",
            name=text(header, "PatientName"),
            sex=text(header, "PatientSex"),
            birth_date=day(header, "PatientBirthDate"),
            ethnic_group=text(header, "EthnicGroup"),
        )
    )
    return StoredStudy(
        patient=patient,
        study_instance_uid=study_instance_uid,
        study_date=day(header, "StudyDate"),
        description=text(header, "StudyDescription", _LENGTH_OF_DESCRIPTION),
        study_id=text(header, "StudyID"),
        patient_age=text(header, "PatientAge"),
        admitting_diagnoses=text(header, "AdmittingDiagnosesDescription"),
    )


def _series(study: StoredStudy, header: Header, series_instance_uid: str) -> StoredSeries:
    return StoredSeries(
        study=study,
        series_instance_uid=series_instance_uid,
        modality=text(header, "Modality"),
        protocol_name=text(header, "ProtocolName"),
        series_date=day(header, "SeriesDate"),
        description=text(header, "SeriesDescription", _LENGTH_OF_DESCRIPTION),
        body_part=text(header, "BodyPartExamined", _LENGTH_OF_BODY_PART),
        number=number(header, "SeriesNumber"),
        manufacturer=text(header, "Manufacturer"),
        model_name=text(header, "ManufacturerModelName"),
        software_versions=text(header, "SoftwareVersions"),
    )


def text(header: Header, keyword: str, length: int | None = None) -> str | None:
    """Return the element as text, several values joined by backslashes; None when it says nothing."""
    value = header.get(keyword)
    if value is None:
        return None
    values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return "\\".join(map(str, values)).strip(" \0")[:length] or None


def number(header: Header, keyword: str) -> int | None:
    """Return the element as a whole number, or None when it is not one."""
    spelled = text(header, keyword) or ""
    return int(spelled) if re.fullmatch(r"[+-]?\d{1,18}", spelled) else None


def day(header: Header, keyword: str) -> date | None:
    """Return the element as a date, or None when it is not one."""
    try:
        return date.fromisoformat(text(header, keyword) or "")
    except ValueError:
        return None
