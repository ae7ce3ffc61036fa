"""DICOM files from a mould: one header is encoded by pydicom, and the fields that differ are filled in.

Every field has a fixed width, so all files of a mould have the same, known size and none need be made
before it is asked for.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping

from pydicom.dataset import Dataset as Header
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

# What stands in a mould for a value to come: legal for its VR and as wide as that may get.
UID_WIDTH = 44
TEXT_WIDTH = 64
_IMPLEMENTATION_UID = UID("2.25.170141183460469231731687303715884105999")


def made_up_uid(*names: object) -> str:
    """Return the UID that `names` always give: the UUID form (PS3.5 B.2), always `UID_WIDTH` characters."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big') | 1 << 127}"


def uid_field(name: str) -> str:
    """Return a placeholder for a UID."""
    return made_up_uid("placeholder", name)


def text_field(name: str) -> str:
    """Return a placeholder for text of up to `TEXT_WIDTH` bytes."""
    return f"@{name}@".ljust(TEXT_WIDTH, "@")


def encode(header: Header) -> bytes:
    """Return `header` as a Part-10 file in Explicit VR Little Endian, the same bytes with any pydicom."""
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.ImplementationClassUID = _IMPLEMENTATION_UID
    header.file_meta.ImplementationVersionName = "TCIAFS_DEMO"
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


class Mould:
    """A file with placeholders; what is filled in is padded with blanks, as DICOM permits for text."""

    def __init__(self, file: bytes, placeholders: Mapping[str, str]) -> None:
        self._file = file
        self._placeholders = {name: mark.encode() for name, mark in placeholders.items()}
        self.size = len(file)

    def fill(self, **values: str) -> bytes:
        """Return the file with `values` in place of the placeholders of these names."""
        file = self._file
        for name, value in values.items():
            mark = self._placeholders[name]
            file = file.replace(mark, value.encode()[: len(mark)].ljust(len(mark)))
        return file
