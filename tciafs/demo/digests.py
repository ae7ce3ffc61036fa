"""Digests of series, studies, patients and collections, each of those below it (nbia-api: 2.3)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tciafs.demo.answers import Answer, Endpoint, Question, bad_request
from tciafs.demo.records import StoredSeries

_LEVELS = ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Collection")


def get_md5_hierarchy(question: Question) -> Answer:
    """Return the digest of what the one given level names; nothing where there is no such thing."""
    given = [level for level in _LEVELS if question.get(level)]
    if given not in (
        ["SeriesInstanceUID"],
        ["StudyInstanceUID"],
        ["PatientID", "Collection"],
        ["Collection"],
    ):
        raise bad_request(
            "One of SeriesInstanceUID, StudyInstanceUID, PatientID with Collection, Collection is required."
        )
    wanted = [
        series
        for series in question.dataset.series.values()
        if question.sees(series) and all(_name(series, level) == question.get(level) for level in given)
    ]
    return Answer(200, _digest(wanted, _LEVELS.index(given[0])).encode() if wanted else b"", "text/plain")


def _digest(wanted: Iterable[StoredSeries], level: int) -> str:
    if level == 0:
        return _of(instance.md5 for series in wanted for instance in series.instances)
    groups: dict[str, list[StoredSeries]] = {}
    for series in wanted:
        groups.setdefault(_name(series, _LEVELS[level - 1]), []).append(series)
    return _of(_digest(group, level - 1) for group in groups.values())


def _of(digests: Iterable[str]) -> str:
    return hashlib.md5("".join(sorted(digests)).encode(), usedforsecurity=False).hexdigest()


def _name(series: StoredSeries, level: str) -> str:
    patient = series.study.patient
    return {
        "SeriesInstanceUID": series.series_instance_uid,
        "StudyInstanceUID": series.study.study_instance_uid,
        "PatientID": patient.patient_id,
        "Collection": patient.collection,
    }[level]


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    if version != "v4":
        return {}
    return {"getMD5Hierarchy": Endpoint(get_md5_hierarchy, "POST", allowed=_LEVELS, produces=("text/plain",))}
