"""Manifests of series, as the NBIA Data Retriever and portals write them: text in and out, no I/O."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable

_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+")  # PS3.5 section 9; no more than 64 characters
_COLUMN = "seriesinstanceuid"
_HEAD = """\
downloadServerUrl={server}
includeAnnotation=true
noOfrRetry=4
databasketId={name}
manifestVersion=3.0
ListOfSeriesToDownload=
"""
_SERVER = "https://nbia.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet"


class BrokenManifest(ValueError):
    """Nothing can be mounted by this text; the message says why, in one line."""


def manifest_text(uids: Iterable[str], name: str = "manifest.tcia") -> str:
    """Return a manifest that the NBIA Data Retriever takes; `name` is what it calls the list."""
    return _HEAD.format(server=_SERVER, name=name) + "".join(f"{uid}\n" for uid in uids)


def read_manifest(content: bytes) -> list[str]:
    """Return the SeriesInstanceUIDs of a `.tcia`, or of a CSV or TSV with that column, in order, each once.

    Raise `BrokenManifest` where there are none.
    """
    lines = _decoded(content).splitlines()
    uids = list(dict.fromkeys(_in_column(lines) or _alone(lines)))
    if not uids:
        raise BrokenManifest(
            "has no SeriesInstanceUID; takes a .tcia manifest, or CSV or TSV with that column"
        )
    return uids


def is_uid(text: str) -> bool:
    """Tell whether the text is a DICOM UID."""
    return len(text) <= 64 and text.isascii() and bool(_UID.fullmatch(text))


def _decoded(content: bytes) -> str:
    """Return the text; spreadsheets save UTF-16 as well, with a mark in front."""
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as exc:
        raise BrokenManifest("is no text; takes a .tcia manifest, or CSV or TSV") from exc
    if "\0" in text:
        raise BrokenManifest("is no text; takes a .tcia manifest, or CSV or TSV")
    return text


def _alone(lines: list[str]) -> list[str]:
    """Return the UIDs that have a line to themselves: the head and stray lines have none."""
    return [uid for line in lines if is_uid(uid := line.strip().strip("\"',;"))]


def _in_column(lines: list[str]) -> list[str]:
    """Return the UIDs of the column, where a first line names it among others."""
    rows = [line for line in lines if line.strip()]
    for separator in ",\t;":
        try:
            head, *table = csv.reader(rows, delimiter=separator)
        except (csv.Error, ValueError):  # no table at all; no lines
            continue
        columns = [re.sub(r"[^a-z]", "", name.lower()) for name in head]
        if _COLUMN in columns and len(columns) > 1:
            at = columns.index(_COLUMN)
            return [uid for row in table if len(row) > at and is_uid(uid := row[at].strip())]
    return []
