"""Image delivery: single files, ZIPs of series, and checksums (nbia-api: section 3 and 4.5)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import groupby

from tciafs.demo.answers import Answer, Endpoint, Question, bad_request, server_error
from tciafs.demo.records import StoredInstance, StoredSeries, terms_of
from tciafs.demo.zipstream import Entry, zip_stream

_LICENSE = (
    "License Information. The {collection} collection is distributed under the {license} at {uri} "
    "By downloading the data, you agree to abide by terms of this license.\n"
    "Users must abide by the TCIA Data Usage Policy and Restrictions.\n"
)


def get_single_image(question: Question) -> Answer:
    """Return one file; nothing found is a null pointer to the archive."""
    instance = question.dataset.instances.get(question.get("SOPInstanceUID") or "")
    if instance is None or instance.series.series_instance_uid != question.get("SeriesInstanceUID"):
        raise server_error("null")
    if not question.may_read(instance.series):
        raise server_error("null")
    disposition = f"attachment; filename={instance.sop_instance_uid}.dcm"
    return Answer(200, instance.read(), "application/dicom", (("Content-Disposition", disposition),))


def get_image(question: Question) -> Answer:
    """Return the ZIP of a series: LICENSE, the files, and md5hashes.csv when asked for."""
    renamed = (question.get("NewFileNames") or "").lower() == "yes"
    series = _series(question, even_hidden=renamed)
    named = _numbered_by_acquisition(series.instances) if renamed else _numbered(series.instances)
    with_md5 = question.version == "v4" and (question.get("IncludeMD5") or "").lower() == "yes"
    images = [Entry(name, instance.read) for name, instance in named]
    hashes = [Entry("md5hashes.csv", partial(_md5_list, named))] if with_md5 else []
    return _zip(series, [Entry("LICENSE", partial(_license, series))], images, hashes)


def get_image_with_md5(question: Question) -> Answer:
    """Return the ZIP of a series with checksums and without LICENSE."""
    series = _series(question, even_hidden=False)
    named = _numbered(series.instances)
    images = [Entry(name, instance.read) for name, instance in named]
    return _zip(series, [], images, [Entry("md5hashes.csv", partial(_md5_list, named))])


def get_md5(name: str, question: Question) -> Answer:
    """Return a file's checksum; nothing at all for a file that is not there, or not for who asks."""
    instance = question.dataset.instances.get(question.get(name) or "")
    is_told = instance is not None and question.may_read(instance.series)
    return Answer(200, instance.md5.encode() if instance and is_told else b"", "text/plain")


def _series(question: Question, *, even_hidden: bool) -> StoredSeries:
    uid = question.get("SeriesInstanceUID") or ""
    series = question.dataset.series.get(uid)
    if series is not None and (question.may_read(series) if even_hidden else question.sees(series)):
        return series
    if question.version == "v1":
        raise bad_request(f"Image with given SeriesInstanceUID,{uid}, is not in public domain.")
    raise bad_request(
        f"The user has not been granted the access to image with given SeriesInstanceUID,{uid}. "
        "Please contact System Admin to resolve this issue."
    )


def _zip(
    series: StoredSeries, first: Sequence[Entry], images: Sequence[Entry], last: Sequence[Entry]
) -> Answer:
    def answer(kept: Sequence[Entry], hashes: Sequence[Entry]) -> Answer:
        return Answer(
            200,
            partial(zip_stream, [*first, *kept, *hashes]),
            "application/octet-stream",
            (("Content-Disposition", f'attachment; filename="{series.series_instance_uid}.zip"'),),
            shorter=partial(answer, kept[: len(kept) // 2], ()),
        )

    return answer(images, last)


def _numbered(instances: Sequence[StoredInstance]) -> list[tuple[str, StoredInstance]]:
    """Number the files in the order in which the database happens to give them."""
    shuffled = random.sample(instances, len(instances))
    return [(f"{index:08d}.dcm", instance) for index, instance in enumerate(shuffled, 1)]


def _numbered_by_acquisition(instances: Iterable[StoredInstance]) -> list[tuple[str, StoredInstance]]:
    """Name the files as `NewFileNames=Yes` does, in order of InstanceNumber: acquisition, index in it."""
    ordered = sorted(instances, key=lambda instance: instance.promised_number or 0)
    acquisitions = [list(group) for _, group in groupby(ordered, lambda each: each.acquisition_number)]
    width = len(str(len(acquisitions)))
    depth = len(str(sum(1 for _ in groupby(each.promised_number for each in ordered))))
    return [
        (f"{acquisition:0{width}d}-{index:0{depth}d}.dcm", instance)
        for acquisition, group in enumerate(acquisitions, 1)
        for index, instance in enumerate(group, 1)
    ]


def _license(series: StoredSeries) -> bytes:
    terms = terms_of(series.collection, series.is_analysis)
    text = _LICENSE.format(
        collection=series.collection, license=terms.license_short_name, uri=terms.license_uri
    )
    return text.encode()


def _md5_list(named: Sequence[tuple[str, StoredInstance]]) -> bytes:
    rows = [f"{name},{instance.md5}\n" for name, instance in random.sample(named, len(named))]
    return "".join(["Filename,MD5Hash\n", *rows]).encode()


def endpoints(version: str) -> dict[str, Endpoint]:
    """Return the endpoints of this module in `version` of the API."""
    uids = ("SeriesInstanceUID", "SOPInstanceUID")
    series, zipped = ("SeriesInstanceUID",), ("application/octet-stream",)
    md5, parameter = (
        ("getMD5HashForImage", "SOPInstanceUID")
        if version == "v4"
        else ("getM5HashForImage", "SOPInstanceUid")
    )
    no_series = "A parameter, SeriesInstanceUID, is required for this API call."
    no_pair = "A parameter, SeriesInstanceUID and SOPInstanceUID, are required for this API call."
    no_sop = f"A parameter, {parameter}, is required for this API call."
    options = (*series, "NewFileNames", "IncludeMD5")
    return {
        "getSingleImage": Endpoint(
            get_single_image, "GET", uids, uids, no_pair, produces=("application/dicom",)
        ),
        "getImage": Endpoint(get_image, "GET", options, series, no_series, produces=zipped),
        "getImageWithMD5Hash": Endpoint(
            get_image_with_md5, "GET", series, series, no_series, produces=zipped
        ),
        md5: Endpoint(
            partial(get_md5, parameter), "GET", (parameter,), (parameter,), no_sop, produces=("text/plain",)
        ),
    }
