"""What the start of a DICOM file says of itself: its SOPInstanceUID."""

from __future__ import annotations

import io
import warnings

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

_SOP_INSTANCE_UID = 0x00080018  # PS3.6


def sop_instance_uid(start: bytes) -> str | None:
    """Return the SOPInstanceUID in the first bytes of a file, None where they do not tell it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that break a rule of the standard: the archive has many
        try:
            header = read_partial(io.BytesIO(start), _is_past, specific_tags=[_SOP_INSTANCE_UID], force=True)
            return str(header.SOPInstanceUID)
        except Exception:  # pydicom raises whatever the bytes provoke
            return None


def _is_past(tag: BaseTag, vr: str | None, length: int) -> bool:
    return bool(tag > _SOP_INSTANCE_UID)
