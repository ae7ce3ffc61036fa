"""The unversioned drill-down from SeriesInstanceUIDs to studies, which tells primary keys (nbia-api 4.2)."""

from __future__ import annotations

from tciafs.demo.answers import JSON, Answer, Endpoint, Question, json_answer, server_error, spell_date
from tciafs.demo.records import StoredSeries, StoredStudy


def get_study_drill_down_with_series_ids(question: Question) -> Answer:
    """List the studies of some series, each with those series; in v4 it is broken (see `search`)."""
    uids = dict.fromkeys(question.get_all("list"))
    if not uids:
        raise server_error("null")
    found: dict[StoredStudy, list[StoredSeries]] = {}
    for uid in uids:
        series = question.dataset.series.get(uid)
        if series and question.sees(series):
            found.setdefault(series.study, []).append(series)
    return json_answer([_study(study, members) for study, members in found.items()])


def _study(study: StoredStudy, members: list[StoredSeries]) -> dict[str, object]:
    return {
        "studyId": study.study_instance_uid,
        "date": spell_date(study.study_date, "v4") if study.study_date else None,
        "description": study.description,
        "id": study.pk,
        "study_id": study.study_id,
        "excludeCommercial": None,
        "seriesList": [_series(series) for series in members],
    }


def _series(series: StoredSeries) -> dict[str, object]:
    return {
        "seriesPkId": series.pk,
        "seriesUID": series.series_instance_uid,
        "seriesNumber": None if series.number is None else str(series.number),
        "modality": series.modality,
        "description": series.description,
        "numberImages": len(series.instances),
        "totalSizeForAllImagesInSeries": series.file_size,
        "exactSize": series.file_size,
        "maxFrameCount": 0,
        "sopClassUID": None,
    }


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    endpoint = Endpoint(get_study_drill_down_with_series_ids, "POST", produces=(JSON,))
    return {} if version else {"getStudyDrillDownWithSeriesIds": endpoint}
