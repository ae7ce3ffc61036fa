"""The rows of the embedded archive's database: patients, studies, series and instances, with primary keys.

They carry what the headers say and what an edit has changed since; which endpoint shows which of it, and
how it is spelled on the wire, is not known here.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

SPECIES = {"Homo sapiens": "337915000", "Mus musculus": "447612001"}  # and their codes in SNOMED CT


@dataclass(frozen=True, slots=True)
class Terms:
    """What a collection's publication fixes for every series of it."""

    license_name: str
    license_short_name: str
    license_uri: str
    data_description_uri: str


@cache
def terms_of(collection: str, is_analysis: bool = False) -> Terms:
    """Return plausible terms of `collection`, always the same: CC BY 3.0 or 4.0 and a DOI.

    An analysis result in it has a DOI of its own.
    """
    digest = zlib.crc32(f"{collection} analysis".encode() if is_analysis else collection.encode())
    edition, suffix = ("3.0", " Unported") if digest % 2 else ("4.0", " International")
    return Terms(
        license_name=f"Creative Commons Attribution {edition}{suffix} License",
        license_short_name=f"CC BY {edition}",
        license_uri=f"https://creativecommons.org/licenses/by/{edition}/",
        data_description_uri=f"https://doi.org/10.7937/demo.{digest:08x}",
    )


@dataclass(slots=True, eq=False, kw_only=True)
class StoredPatient:
    """A patient of one collection."""

    pk: int = 0
    collection: str
    patient_id: str
    name: str | None = None
    sex: str | None = None
    birth_date: date | None = None
    ethnic_group: str | None = None
    phantom: bool = False
    species: str = "Homo sapiens"
    studies: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class StoredStudy:
    """A study of one patient."""

    pk: int = 0
    patient: StoredPatient
    study_instance_uid: str
    study_date: date | None = None
    description: str | None = None
    study_id: str | None = None
    patient_age: str | None = None
    admitting_diagnoses: str | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class StoredSeries:
    """A series with its instances, and switches to make its rows disagree with its files."""

    pk: int = 0
    study: StoredStudy
    series_instance_uid: str
    modality: str | None = None
    protocol_name: str | None = None
    series_date: date | None = None
    description: str | None = None
    body_part: str | None = None
    number: int | None = None
    manufacturer: str | None = None
    model_name: str | None = None
    software_versions: str | None = None
    submitted: date = date(2019, 2, 25)
    released: date = date(2019, 3, 8)
    instances: list[StoredInstance] = field(default_factory=list)
    hidden: bool = False
    promised_size_delta: int = 0
    null_sizes: bool = False
    null_instance_numbers: bool = False

    @property
    def collection(self) -> str:
        """Name the collection."""
        return self.study.patient.collection

    @property
    def is_analysis(self) -> bool:
        """Tell whether this is what others made of the collection: so is every segmentation here."""
        return self.modality == "SEG"

    @property
    def file_size(self) -> int | None:
        """Add up the promised sizes as SQL does: null ones count for nothing, none at all give null."""
        sizes = [size for instance in self.instances if (size := instance.promised_size) is not None]
        return sum(sizes) if sizes else None


@dataclass(slots=True, eq=False, kw_only=True)
class StoredInstance:
    """An instance: its row, and where its bytes come from.

    `size` is the true length of the bytes; what the database says of it is `promised_size`.
    """

    pk: int = 0
    series: StoredSeries
    sop_instance_uid: str
    size: int
    source: Path | Callable[[], bytes]
    number: int | None = None
    acquisition_number: int | None = None
    content_date: date | None = None
    content_time: str | None = None
    _md5: str | None = None

    def read(self) -> bytes:
        """Return the file, unmodified."""
        return self.source.read_bytes() if isinstance(self.source, Path) else self.source()

    def rewrite(self) -> None:
        """Change the last byte of the file, which is a pixel's."""
        content = self.read()
        self.source = lambda: content[:-1] + bytes([content[-1] ^ 1])
        self._md5 = None

    @property
    def md5(self) -> str:
        """Return the hex digest of the file, computed when first asked for."""
        if self._md5 is None:
            self._md5 = hashlib.md5(self.read(), usedforsecurity=False).hexdigest()
        return self._md5

    @property
    def promised_size(self) -> int | None:
        """Say what the database holds as the size of the file."""
        return None if self.series.null_sizes else self.size + self.series.promised_size_delta

    @property
    def promised_number(self) -> int | None:
        """Say what the database holds as the InstanceNumber."""
        return None if self.series.null_instance_numbers else self.number
