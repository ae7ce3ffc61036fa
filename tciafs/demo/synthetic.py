"""Made-up content for tests: any number of patients or instances, each a valid CT file, tiny or large.

The files are made when asked for; their size is the same for all, so listing them costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

from pydicom.dataset import Dataset as Header
from pydicom.uid import CTImageStorage

from tciafs.demo import phantom
from tciafs.demo.dataset import Dataset
from tciafs.demo.records import StoredInstance, StoredPatient, StoredSeries, StoredStudy
from tciafs.demo.template import Mould, made_up_uid, text_field, uid_field

_SIDE = 8
_FILES_KEPT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to make up: `patients` (or the `patient_ids` named), each with a study of `series` series.

    Each series has `series_of` files; an image is `side` pixels wide and high: 8, or a multiple of 256 and
    then a slice of a thorax. Asking again for the same patient adds another study; with
    `study_instance_uid`, series to that study.
    """

    collection: str
    patients: int = 0
    patient_ids: Sequence[str] = ()
    patient_id: str | None = None
    series: int = 1
    series_of: int = 1
    side: int = _SIDE
    study_instance_uid: str | None = None
    study_description: str | None = None
    series_description: str | None = None
    modality: str | None = "CT"
    body_part: str | None = None
    manufacturer: str | None = None
    model_name: str | None = None
    species: str = "Homo sapiens"

    def __post_init__(self) -> None:
        if self.side != _SIDE and (self.side <= 0 or self.side % phantom.SIDE):
            raise ValueError(f"side is {_SIDE} or a multiple of {phantom.SIDE}, not {self.side}")

    def names(self) -> list[str]:
        """Return the PatientIDs, generated ones after those that are given."""
        given = [*self.patient_ids, *([self.patient_id] if self.patient_id is not None else [])]
        return given + [f"P-{index:06d}" for index in range(1, self.patients - len(given) + 1)]


def make_up(dataset: Dataset, wanted: Wanted) -> list[StoredSeries]:
    """Add what is `wanted` and return the new series."""
    made = []
    for patient_id in wanted.names():
        study = _study(dataset, wanted, patient_id)
        made += [_series(dataset, wanted, study) for _ in range(wanted.series)]
    return made


def add_images(dataset: Dataset, series: StoredSeries, count: int) -> None:
    """Add images to a series, as a submission does that goes on."""
    for index in range(len(series.instances), len(series.instances) + count):
        dataset.file_instance(_instance(series, index, _SIDE))


def _study(dataset: Dataset, wanted: Wanted, patient_id: str) -> StoredStudy:
    patient = StoredPatient(
        collection=wanted.collection, patient_id=patient_id, name=patient_id, species=wanted.species
    )
    study = StoredStudy(
        patient=dataset.file_patient(patient),
        study_instance_uid=wanted.study_instance_uid or made_up_uid("study", len(dataset.series)),
        description=wanted.study_description,
    )
    return dataset.file_study(study)


def _series(dataset: Dataset, wanted: Wanted, study: StoredStudy) -> StoredSeries:
    series = dataset.file_series(
        StoredSeries(
            study=study,
            series_instance_uid=made_up_uid("series", len(dataset.series)),
            modality=wanted.modality,
            body_part=wanted.body_part,
            description=wanted.series_description,
            manufacturer=wanted.manufacturer,
            model_name=wanted.model_name,
        )
    )
    for index in range(wanted.series_of):
        dataset.file_instance(_instance(series, index, wanted.side))
    return series


def _instance(series: StoredSeries, index: int, side: int) -> StoredInstance:
    sop_instance_uid = made_up_uid(series.series_instance_uid, index)
    return StoredInstance(
        series=series,
        sop_instance_uid=sop_instance_uid,
        size=_mould(len(series.study.study_instance_uid), side).size + 2 * side * side,
        source=partial(_file, series, sop_instance_uid, index, side),
        number=index + 1,
    )


@lru_cache(_FILES_KEPT)
def _file(series: StoredSeries, sop_instance_uid: str, index: int, side: int) -> bytes:
    head = _mould(len(series.study.study_instance_uid), side).fill(
        study_instance_uid=series.study.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        sop_instance_uid=sop_instance_uid,
        patient_id=series.study.patient.patient_id,
        study_description=series.study.description or "",
        series_description=series.description or "",
        number=str(index + 1),
        z=str(index),
    )
    return head + _pixels(index, side)


@lru_cache(_FILES_KEPT)
def _pixels(index: int, side: int) -> bytes:
    return bytes(range(2 * side * side)) if side == _SIDE else phantom.pixels(index, side)


@cache
def _mould(study_uid_width: int, side: int) -> Mould:
    """Return the mould for studies with a UID this long (they need not be made up here), up to the pixels."""
    marks = {
        "study_instance_uid": "1.".ljust(study_uid_width, "7"),
        **{f"{level}_instance_uid": uid_field(level) for level in ("series", "sop")},
        **{name: text_field(name) for name in ("patient_id", "study_description", "series_description")},
        "number": "2147483647",
        "z": "-987654321.98765",
    }
    return Mould(phantom.without_pixels(_header(marks, side), 2 * side * side), marks)


def _header(marks: Mapping[str, str], side: int) -> Header:
    made = Header()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = marks["sop_instance_uid"]
    made.Modality = "CT"
    made.StudyDescription = marks["study_description"]
    made.SeriesDescription = marks["series_description"]
    made.PatientName = "MADE^UP"
    made.PatientID = marks["patient_id"]
    made.StudyInstanceUID = marks["study_instance_uid"]
    made.SeriesInstanceUID = marks["series_instance_uid"]
    made.InstanceNumber = marks["number"]
    made.ImagePositionPatient = [0, 0, marks["z"]]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.PixelSpacing = [1, 1]
    made.SliceThickness = 1
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows = made.Columns = side
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = 1
    return made
