"""The records of what an archive holds, and the inode number of each: frozen, typed, no I/O.

Text fields are as the archive spells them (never safe as file names: see `names`). `None` is
"the archive does not say".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum
from functools import lru_cache


class Kind(IntEnum):
    """A level of the tree."""

    ROOT = 0
    COLLECTION = 1
    PATIENT = 2
    STUDY = 3
    SERIES = 4
    INSTANCE = 5


@dataclass(frozen=True, slots=True)
class Collection:
    """A TCIA collection, known by its name alone."""

    name: str


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient of one collection; the same PatientID may occur in another collection."""

    collection: str
    patient_id: str


@dataclass(frozen=True, slots=True)
class Study:
    """A study of one patient (the same StudyInstanceUID may, rarely, occur under two patients)."""

    collection: str
    patient_id: str
    study_instance_uid: str
    study_date: date | None = None
    study_description: str | None = None
    study_id: str | None = None
    series_count: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A series and what the archive's database says of its instances.

    `file_size` is the sum of the instances' sizes in bytes. `submitted` is the stamp of the latest
    submission: the version of the series' content.
    """

    collection: str
    patient_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str | None = None
    series_number: str | None = None
    series_description: str | None = None
    body_part: str | None = None
    image_count: int = 0
    file_size: int | None = None
    submitted: date | None = None
    released: date | None = None
    license_name: str | None = None
    license_uri: str | None = None
    data_description_uri: str | None = None
    third_party_analysis: bool = False

    @property
    def terms(self) -> Terms:
        """Return the terms of the series."""
        is_analysis = self.third_party_analysis
        return Terms(self.license_name, self.license_uri, self.data_description_uri, is_analysis)

    @property
    def version(self) -> str:
        """Name the version of the content, so that a series submitted again has new files."""
        stamp = self.submitted or self.released
        return stamp.isoformat() if stamp else ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One DICOM instance: the file behind a name.

    `size` is what the archive's database promises, in bytes; `estimate` stands in where it promises
    nothing, and is never 0. `version` is that of the series when it was listed.
    """

    series_instance_uid: str
    sop_instance_uid: str
    version: str
    instance_number: int | None = None
    size: int | None = None
    estimate: int = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which licence data may be used, and the link, a DOI's as a rule, by which they are cited."""

    license_name: str | None = None
    license_uri: str | None = None
    data_description_uri: str | None = None
    third_party_analysis: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What an archive says of a collection as a whole; `html` is its text."""

    html: str | None = None
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class Attribution:
    """What is known of a collection's terms.

    `series` counts the series that were looked at, by their terms. `series_count` counts those that are
    known to be there; with `is_whole`, there are no others.
    """

    collection: str
    series: Mapping[Terms, int]
    series_count: int = 0
    is_whole: bool = False
    description: Description = Description()


Record = Collection | Patient | Study | Series | Instance

ROOT_INODE = 1
_FIRST_HASHED_INODE = 1024  # below are the root and the control files
_HASH_BITS = 61
_FILE_BIT = 1 << _HASH_BITS
_ALIAS_BIT = _FILE_BIT << 1
_IN_SERIES_BITS = 45  # of the hash; those before are what a series and its files have in common


def inode_number(archive: str, *key: str) -> int:
    """Return the inode number of what `key` names in `archive`: the same in every mount, for ever.

    A 61-bit hash; the 62nd bit tells a file of a series, the 63rd a symbolic link (`alias_inode`).
    """
    return _above_control(_hash(archive, *key))


def inode_of(archive: str, record: Record) -> int:
    """Return the inode number of a record.

    Those of a series and of its files begin alike, so that the series is found by either.
    """
    if isinstance(record, Instance):
        return next(inodes_of(archive, [record]))
    number = _hash(archive, *key_of(record))
    if isinstance(record, Series):
        common = _common(archive, record.series_instance_uid, record.version)
        number = common | number % (1 << _IN_SERIES_BITS)
    return _above_control(number)


def inodes_of(archive: str, instances: Iterable[Instance]) -> Iterator[int]:
    """Yield the inode numbers of instances, which are those of one series as a rule."""
    for each in instances:
        uid, version = each.series_instance_uid, each.version
        digest = _begun(archive, "instance", uid).copy()
        digest.update(f"{each.sop_instance_uid}\0{version}".encode("utf-8", "surrogatepass"))
        number = int.from_bytes(digest.digest()[:8], "big") % (1 << _IN_SERIES_BITS)
        yield _FILE_BIT | _common(archive, uid, version) | number


def is_file(inode: int) -> bool:
    """Tell whether the inode number is that of an instance."""
    return bool(inode & _FILE_BIT)


def series_of(inode: int) -> range:
    """Return what the inode number of the series may be, of which `inode` is a file."""
    first = (inode ^ _FILE_BIT) >> _IN_SERIES_BITS << _IN_SERIES_BITS
    return range(first, first + (1 << _IN_SERIES_BITS))


@lru_cache(maxsize=1024)
def _common(archive: str, series_instance_uid: str, version: str) -> int:
    return _hash(archive, series_instance_uid, version) >> _IN_SERIES_BITS << _IN_SERIES_BITS


@lru_cache(maxsize=1024)
def _begun(*key: str) -> hashlib._Hash:
    return hashlib.sha256("".join(f"{part}\0" for part in key).encode("utf-8", "surrogatepass"))


def _hash(archive: str, *key: str) -> int:
    digest = hashlib.sha256("\0".join((archive, *key)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % _FILE_BIT


def _above_control(number: int) -> int:
    return number if number >= _FIRST_HASHED_INODE else number + _FIRST_HASHED_INODE


def alias_inode(inode: int) -> int:
    """Return the inode number of the symbolic link that points to `inode`."""
    return inode | _ALIAS_BIT


def aliased_inode(inode: int) -> int | None:
    """Return what the symbolic link `inode` points to, or None when it is no such link."""
    return inode ^ _ALIAS_BIT if inode & _ALIAS_BIT else None


def key_of(record: Record) -> tuple[str, ...]:
    """Return the key path that identifies `record` in its archive, its version included."""
    match record:
        case Collection(name):
            return ("collection", name)
        case Patient(collection, patient_id):
            return ("patient", collection, patient_id)
        case Study():
            return ("study", record.collection, record.patient_id, record.study_instance_uid)
        case Series():
            uids = (record.study_instance_uid, record.series_instance_uid)
            return ("series", record.collection, record.patient_id, *uids, record.version)
        case Instance():
            return ("instance", record.series_instance_uid, record.sop_instance_uid, record.version)


def collection_of(record: Record | None) -> str | None:
    """Return the collection that a record tells it is of: an instance tells none."""
    match record:
        case None | Instance():
            return None
        case Collection(name):
            return name
    return record.collection


def kind_of(record: Record) -> Kind:
    """Return the level of the tree at which `record` stands."""
    return _KINDS[type(record)]


_KINDS: dict[type, Kind] = {
    Collection: Kind.COLLECTION,
    Patient: Kind.PATIENT,
    Study: Kind.STUDY,
    Series: Kind.SERIES,
    Instance: Kind.INSTANCE,
}
