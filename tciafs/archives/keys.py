"""NBIA's drill-downs: which database key a series has, and what is told by that alone (nbia-api 4)."""

from __future__ import annotations

import msgspec

from tciafs.archives.values import Number


class SeriesKey(msgspec.Struct, rename={"key": "seriesPkId", "uid": "seriesUID"}):
    """A series in getStudyDrillDownWithSeriesIds."""

    key: int
    uid: str


class StudyKey(msgspec.Struct, rename="camel"):
    """A row of getStudyDrillDownWithSeriesIds: a study with those of its series that were asked for."""

    series_list: list[SeriesKey] = []


class ImageRow(msgspec.Struct, rename="camel"):
    """A row of getImageDrillDown: the one place that tells the size of an image (nbia-api 4.1)."""

    sop_instance_uid: str
    series_instance_uid: str
    instance_number: Number = None
    size: Number = None
