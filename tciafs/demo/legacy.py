"""What v1 and v2 alone list: getSeriesMetaData, with columns of its own (nbia-api 2.1)."""

from __future__ import annotations

from datetime import date

from tciafs.demo.answers import Answer, Endpoint, Question, json_answer, spell_date
from tciafs.demo.records import StoredSeries
from tciafs.demo.rows import series_row

_COLUMNS = {
    "Series UID": "SeriesInstanceUID",
    "Collection": "Collection",
    "3rd Party Analysis": "ThirdPartyAnalysis",
    "Data Description URI": "DataDescriptionURI",
    "Subject ID": "PatientID",
    "Study UID": "StudyInstanceUID",
    "Study Description": "StudyDesc",
    "Study Date": "StudyDate",
    "Series Description": "SeriesDescription",
    "Manufacturer": "Manufacturer",
    "Modality": "Modality",
    "Number of Images": "ImageCount",
    "File Size": "FileSize",
    "Series Number": "SeriesNumber",
    "License Name": "LicenseName",
    "License URL": "LicenseURI",
    "Date Released": "DateReleased",
    "Series Date": "SeriesDate",
    "Protocol Name": "ProtocolName",
    "Body Part Examined": "BodyPartExamined",
    "Annotations Flag": "AnnotationsFlag",
    "Manufacturer Model Name": "ManufacturerModelName",
    "Software Versions": "SoftwareVersions",
    "TimeStamp": "TimeStamp",
}


def get_series_meta_data(question: Question) -> Answer:
    """Describe one series, in strings alone; an unknown one is 204."""
    series = question.dataset.series.get(question.get("SeriesInstanceUID") or "")
    if series is None or not question.sees(series):
        return Answer(204)
    return json_answer([_described(series)])


def _described(series: StoredSeries) -> dict[str, str]:
    row = series_row(series)
    return {column: _spelled(column, row[name]) for column, name in _COLUMNS.items() if row[name] is not None}


def _spelled(column: str, value: object) -> str:
    if isinstance(value, date):
        return spell_date(value, "v4")
    if column == "Series Number":
        return f"{value}.000000"  # as MySQL spells a decimal
    return str(value).lower() if isinstance(value, bool) else str(value)


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    if version not in ("v1", "v2"):
        return {}
    uid, complaint = ("SeriesInstanceUID",), "A parameter, SeriesInstanceUID, is required for this API call."
    return {"getSeriesMetaData": Endpoint(get_series_meta_data, "GET", uid, uid, complaint)}
