"""All that the embedded archive holds, in memory, found by UID, by primary key and by what lists filter on.

Files come in through `ingest`; made-up content through `synthetic`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count

from tciafs.demo.records import StoredInstance, StoredPatient, StoredSeries, StoredStudy

# Keys of the tables must not look alike, or a client that confuses two of them would pass its tests.
_FIRST_PATIENT, _FIRST_STUDY, _FIRST_SERIES, _FIRST_INSTANCE = 1_000, 2_000_000, 3_000_000, 40_000_000


class Dataset:
    """The archive's tables; a UID is filed once, and whoever came first keeps it.

    Nothing here awaits, so every answer sees one state.
    """

    def __init__(self) -> None:
        self.series: dict[str, StoredSeries] = {}
        self.series_by_pk: dict[int, StoredSeries] = {}
        self.instances: dict[str, StoredInstance] = {}
        self.carts: dict[str, list[str]] = {}  # SeriesInstanceUIDs by the name of a shared cart
        self._patients: dict[tuple[str, str], StoredPatient] = {}
        self._studies: dict[tuple[int, str], StoredStudy] = {}
        self._by_collection: defaultdict[str, list[StoredSeries]] = defaultdict(list)
        self._by_patient: defaultdict[str, list[StoredSeries]] = defaultdict(list)
        self._by_study: defaultdict[str, list[StoredSeries]] = defaultdict(list)
        self._patient_pks = count(_FIRST_PATIENT)
        self._study_pks = count(_FIRST_STUDY)
        self._series_pks = count(_FIRST_SERIES)
        self._instance_pks = count(_FIRST_INSTANCE)

    def file_patient(self, patient: StoredPatient) -> StoredPatient:
        """Add `patient` unless the collection has it, and return the one on file."""
        filed = self._patients.setdefault((patient.collection, patient.patient_id), patient)
        if filed is patient:
            patient.pk = next(self._patient_pks)
        return filed

    def file_study(self, study: StoredStudy) -> StoredStudy:
        """Add `study` unless its patient has it, and return the one on file."""
        filed = self._studies.setdefault((study.patient.pk, study.study_instance_uid), study)
        if filed is study:
            study.pk = next(self._study_pks)
            study.patient.studies += 1
        return filed

    def file_series(self, series: StoredSeries) -> StoredSeries:
        """Add `series` unless it is there, and return the one on file."""
        filed = self.series.setdefault(series.series_instance_uid, series)
        if filed is series:
            series.pk = next(self._series_pks)
            self.series_by_pk[series.pk] = series
            patient = series.study.patient
            self._by_collection[patient.collection.upper()].append(series)
            self._by_patient[patient.patient_id.upper()].append(series)
            self._by_study[series.study.study_instance_uid].append(series)
        return filed

    def file_instance(self, instance: StoredInstance) -> bool:
        """Add `instance` to its series; False when its SOPInstanceUID, unique in the archive, is taken."""
        if self.instances.setdefault(instance.sop_instance_uid, instance) is not instance:
            return False
        instance.pk = next(self._instance_pks)
        instance.series.instances.append(instance)
        return True

    def candidates(
        self,
        *,
        collection: str | None = None,
        patient_id: str | None = None,
        study_instance_uid: str | None = None,
        series_instance_uid: str | None = None,
    ) -> Iterable[StoredSeries]:
        """Return a short list that holds every series these filters could match, whatever the case."""
        if series_instance_uid is not None:
            series = self.series.get(series_instance_uid)
            return [series] if series else []
        if study_instance_uid is not None:
            return self._by_study.get(study_instance_uid, [])
        if patient_id is not None:
            return self._by_patient.get(patient_id.upper(), [])
        if collection is not None:
            return self._by_collection.get(collection.upper(), [])
        return self.series.values()
