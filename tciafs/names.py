"""The names under which records are shown: safe, unique in their directory, the same in every mount.

It trusts nothing that an archive says. It does not know which directories exist, nor any request.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final

from tciafs.model import Collection, Instance, Kind, Patient, Record, Series, Study, key_of, kind_of


class Layout(StrEnum):
    """How studies, series and instances are named: chosen once, when mounting."""

    DESCRIPTIVE = "descriptive"
    RETRIEVER = "retriever"
    UID = "uid"


_EXTENSION: Final = ".dcm"
_LONGEST: Final = 255  # bytes: NAME_MAX of Linux
_LAST_STEP: Final = 2

# What Windows and Samba refuse in a name, and the names that Windows takes for devices, extension or not:
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_REFUSED: Final = '/<>:"\\|?*'
_DEVICE_NAME: Final = (
    r"(?i:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[0-9\u00b9\u00b2\u00b3]|LPT[0-9\u00b9\u00b2\u00b3])"
    r"(?= *(?:\.|\Z))"
)
_DEVICE: Final = re.compile(rf"\A{_DEVICE_NAME}")
_PLAIN: Final = re.compile(
    rf'(?!{_DEVICE_NAME})(?![ .])[^\x00-\x1f/<>:"\\|?*\x7f-\U0010ffff]{{1,{_LONGEST}}}(?<![ .])'
)
_WHOLE_NUMBER: Final = re.compile(r"\A([+-]?[0-9]+)\.0+\Z")


def names_of(layout: Layout, records: Sequence[Record]) -> list[str]:
    """Name each of `records`, which are all of one kind and all that their directory holds.

    No two names are equal, case and Unicode composition ignored, nor equal to a reserved name. The order
    of the records does not matter; records with one key have one name.
    """
    distinct = _distinct(records)
    instances = [record for record in distinct.values() if isinstance(record, Instance)]
    if layout is not Layout.UID and any(instance.instance_number is not None for instance in instances):
        names = _ranked(layout, instances)
    else:
        names = dict(zip(distinct, _climbed(layout, list(distinct.values())), strict=True))
    return [names[key_of(record)] for record in records]


def alias_of(record: Record) -> str | None:
    """Return the name, made of its UID, by which `record` is found though it is not listed.

    None when there is no such UID, or it is no safe file name. A shown name goes before an equal alias.
    """
    if isinstance(record, Collection | Patient):
        return None
    identifier = _identifier(record)
    name = identifier + _extension(record)
    return name if clean(identifier) == identifier and clean(name) == name else None


def may_exist(kind_of_child: Kind, name: str) -> bool:
    """Tell whether a record of that kind can ever be shown or found as `name`, whatever the archive holds.

    Control files (`.tciafs`, `LICENSE.txt` and the like) are no records, and not known here.
    """
    return clean(name) == name and (kind_of_child is not Kind.INSTANCE or name.endswith(_EXTENSION))


def clean(text: str) -> str:
    """Turn any text into a name that Linux, Windows and Samba accept; leave such a name as it is.

    Refused and invisible characters become `_`, every kind of blank a space. Blanks and dots at both ends
    go: a leading dot hides a file, Windows drops trailing ones. Unicode is kept, composed (NFC).
    """
    return text if _PLAIN.fullmatch(text) else _compose(_translated(text).strip(" ."))


@lru_cache(maxsize=1024)
def _safe(character: str) -> str:
    """Replace what is refused or invisible.

    Private characters are what Samba and macOS write for refused ones; unassigned ones may be letters soon.
    """
    if character.isspace():
        return " "
    hidden = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"}
    return "_" if hidden or character in _REFUSED else character


def _translated(text: str) -> str:
    return unicodedata.normalize("NFC", "".join(map(_safe, text)))


def _compose(head: str, tail: str = "", extension: str = "") -> str:
    """Join translated texts with a dash to a clean name; what is too long is cut from the head first."""
    room = _LONGEST - len(extension) - bool(_DEVICE.match(head))
    tail = _cut(tail, room)
    head = _cut(head.lstrip(" ."), max(0, room - len(tail.encode()) - len("-")) if tail else room)
    stem = "-".join(filter(None, (head, tail))).strip(" .")
    return (_DEVICE.sub(r"\g<0>_", stem) or "_") + extension


def _cut(text: str, room: int) -> str:
    if text.isascii() and len(text) <= room:
        return text
    encoded = text.encode()
    return text if len(encoded) <= room else encoded[:room].decode(errors="ignore").rstrip(" .")


def _folded(name: str) -> str:
    """Return what the clean name has in common with those that a careless file system takes for it."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFD", name.casefold())


_RESERVED: Final = {
    Kind.COLLECTION: {_folded("DATA-USAGE-POLICY.txt"), ".tciafs"},
    Kind.PATIENT: {_folded("LICENSE.txt"), _folded("CITATION.txt"), _folded("CITATION.bib")},
}


def _distinct(records: Sequence[Record]) -> dict[tuple[str, ...], Record]:
    """Keep one record for each key: the least, so that order does not matter even among these."""
    distinct: dict[tuple[str, ...], Record] = {}
    for record in records:
        key = key_of(record)
        if key not in distinct or repr(record) < repr(distinct[key]):
            distinct[key] = record
    return distinct


def _ranked(layout: Layout, instances: Sequence[Instance]) -> dict[tuple[str, ...], str]:
    """Number the instances of a series so that names sort as InstanceNumber does, then SOPInstanceUID."""
    keys = sorted((one.instance_number is None, one.instance_number or 0, key_of(one)) for one in instances)
    width = max(3 if layout is Layout.DESCRIPTIVE else 1, len(str(len(keys))))
    return {key: f"1-{rank:0{width}}{_EXTENSION}" for rank, (_, _, key) in enumerate(keys, 1)}


def _climbed(layout: Layout, records: Sequence[Record]) -> list[str]:
    """Give each record the first of its forms that it shares with no other.

    All that share a form climb together, hence no order matters. It ends, since the last form holds the
    digest of the key; and in linear time, since only the names that have just changed are looked at.
    """
    steps = [0] * len(records) if layout is not Layout.DESCRIPTIVE else _first_steps(records)
    names = [""] * len(records)
    reserved = _RESERVED.get(kind_of(records[0]), set()) if records else set()
    holders: defaultdict[str, list[int]] = defaultdict(list)
    moving: Sequence[int] = range(len(records))
    while moving:
        touched = set()
        for index in moving:
            record, step = records[index], steps[index]
            names[index] = _compose(_head(layout, record), _tail(layout, record, step), _extension(record))
            folded = _folded(names[index])
            holders[folded].append(index)
            touched.add(folded)
        moving = []
        for folded in touched:
            held = holders[folded]
            if len(held) > 1 or folded in reserved:
                moving += [index for index in held if steps[index] < _LAST_STEP]
                holders[folded] = [index for index in held if steps[index] == _LAST_STEP]
        for index in moving:
            steps[index] += 1
    return names


def _first_steps(records: Sequence[Record]) -> list[int]:
    """Start studies and series with equal hex digits at the whole UID, for digits should tell them apart."""
    digits = [_hex(_identifier(record)) for record in records if isinstance(record, Study | Series)]
    counts = Counter(digits)
    return [int(counts[text] > 1) for text in digits] or [0] * len(records)


def _head(layout: Layout, record: Record) -> str:
    """Return the part of the name that is for people.

    "retriever" is the NBIA Data Retriever's "Descriptive" directory name.
    """
    match layout, record:
        case Layout.DESCRIPTIVE, Study():
            when = record.study_date.isoformat() if record.study_date else None
            return _joined(when, (record.study_description or "").strip())
        case Layout.DESCRIPTIVE, Series():
            number = _WHOLE_NUMBER.sub(r"\1", (record.series_number or "").strip())
            return _joined(number, (record.modality or "").strip(), (record.series_description or "").strip())
        case Layout.RETRIEVER, Study():
            when = f"{record.study_date:%m-%d-%Y}" if record.study_date else None
            return _joined(when, record.study_id, (record.study_description or "").replace("/", "-")[:53])
        case Layout.RETRIEVER, Series():
            return _joined(record.series_number, (record.series_description or "").replace("/", "-")[:53])
    return clean(_identifier(record))


def _tail(layout: Layout, record: Record, step: int) -> str:
    """Return the part of the name that tells it from others: more elaborate at each step, never cut off."""
    identifier = _identifier(record)
    match layout, record:
        case _ if step == _LAST_STEP:  # ascii(): no two keys look alike
            return hashlib.sha256(ascii(key_of(record)).encode()).hexdigest()
        case Layout.DESCRIPTIVE, Study() | Series():
            return clean(identifier) if step else _hex(identifier)
        case Layout.RETRIEVER, Study() | Series():
            ending = _translated(identifier[-5:])
            return f"{ending}-{clean(identifier)}" if step else ending
    return _hex(identifier) if step else ""


def _identifier(record: Record) -> str:
    match record:
        case Collection(identifier) | Patient(_, identifier) | Study(_, _, identifier):
            return identifier
        case Series():
            return record.series_instance_uid
    return record.sop_instance_uid


def _extension(record: Record) -> str:
    return _EXTENSION if isinstance(record, Instance) else ""


def _hex(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _joined(*parts: str | None) -> str:
    """Join the parts that say something: an archive may write "null" for nothing."""
    return _translated("-".join(part for part in parts if part and part.strip() not in {"", "null"}))
