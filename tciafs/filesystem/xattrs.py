"""Extended attributes `user.tcia.*`: what the archive says of a directory or file, without opening it."""

from __future__ import annotations

from tciafs.content.index import Stored
from tciafs.model import Collection, Instance, Patient, Record, Series, Study

NAMESPACE = b"user."  # of security.* and system.*, which `ls -l` asks for, there is nothing to tell
_PREFIX = "user.tcia."


def extended_attributes(
    record: Record | None, parent: Record | None = None, stored: Stored | None = None
) -> dict[bytes, bytes]:
    """Return the attributes of a record; an instance needs its series, and what was fetched of it."""
    match record:
        case Collection(name):
            told = {"collection": name}
        case Patient(collection, patient_id):
            told = {"collection": collection, "patient_id": patient_id}
        case Study(collection, patient_id, study_uid):
            told = {"collection": collection, "patient_id": patient_id, "study_uid": study_uid}
        case Series():
            told = _of_series(record)
        case Instance():
            told = _of_series(parent) if isinstance(parent, Series) else {}
            told["sop_uid"] = record.sop_instance_uid
            told["cached"] = "1" if stored and stored.on_disk else "0"
            told["size_exact"] = "1" if stored or record.size is not None else "0"
        case None:
            told = {}
    return {(_PREFIX + name).encode(): value.encode() for name, value in told.items()}


def _of_series(series: Series) -> dict[str, str]:
    told = {
        "collection": series.collection,
        "patient_id": series.patient_id,
        "study_uid": series.study_instance_uid,
        "series_uid": series.series_instance_uid,
        "modality": series.modality,
        "body_part": series.body_part,
        "license": series.license_name,
        "license_uri": series.license_uri,
        "doi": series.data_description_uri,
        "analysis_result": "1" if series.third_party_analysis else None,
    }
    return {name: value for name, value in told.items() if value}
