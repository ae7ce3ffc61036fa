"""What the start of a DICOM file says of itself: its SOPInstanceUID."""

from __future__ import annotations

_IN_META = b"\x02\x00\x03\x00UI"  # (0002,0003): explicit and little endian, whatever follows (PS3.10 7.1)
_IN_DATA = b"\x08\x00\x18\x00"  # (0008,0018)


def sop_instance_uid(start: bytes) -> str | None:
    """Return the SOPInstanceUID in the first bytes of a file, None where they do not tell it.

    The file's meta information and its data must say the same. Data that are deflated or big endian do not
    tell it here.
    """
    at = start.find(_IN_META) + len(_IN_META)
    length = int.from_bytes(start[at : at + 2], "little")
    value = start[at + 2 : at + 2 + length]
    explicit = b"UI" + length.to_bytes(2, "little") + value  # PS3.5 7.1.2
    implicit = length.to_bytes(4, "little") + value  # PS3.5 7.1.3
    if at < len(_IN_META) or not any(_IN_DATA + each in start[at:] for each in (explicit, implicit)):
        return None
    return value.rstrip(b"\0 ").decode("latin-1")
