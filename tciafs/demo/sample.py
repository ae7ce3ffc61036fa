"""The sample data: files that pydicom brings along, a generated CT, and odd and restricted patients.

Only files on disk count; nothing is ever downloaded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pydicom
from pydicom.uid import ImplicitVRLittleEndian

from tciafs.demo import phantom
from tciafs.demo.dataset import Dataset
from tciafs.demo.ingest import ingest, ingest_file
from tciafs.demo.synthetic import Wanted, make_up
from tciafs.demo.tokens import RESTRICTED

_FILES = {
    "Demo-CT": ("CT_small.dcm", "dicomdirtests/77654033/CT2/*", "dicomdirtests/98892001/CT*/*"),
    "Demo MR": ("MR_small.dcm", "examples_overlay.dcm", "dicomdirtests/98892003/MR*/*"),
    "Demo-Mixed": (
        "693_J2KI.dcm",  # CT, JPEG 2000
        "JPEG-lossy.dcm",  # NM, JPEG Extended
        "JPEG2000.dcm",  # NM, JPEG 2000
        "SC_rgb_rle.dcm",  # RLE
        "dicomdirtests/77654033/CR*/*",
        "examples_jpeg2k.dcm",  # US
        "examples_palette.dcm",
        "examples_ybr_color.dcm",  # US, 30 frames, JPEG
        "image_dfl.dcm",  # deflated
        "liver_1frame.dcm",  # SEG
        "reportsi.dcm",  # SR
        "rtdose.dcm",
        "rtplan.dcm",
        "test-SR.dcm",
        "waveform_ecg.dcm",
    ),
}
ODD_PATIENT_ID = "Odd/ID: *é?"


def ingest_sample(dataset: Dataset) -> None:
    """Add the sample collections."""
    _ingest_phantom(dataset, "Demo-CT")
    for collection, patterns in _FILES.items():
        for path in _on_disk(*patterns):
            ingest_file(dataset, collection, path)
    _ingest_structure_set(dataset, "Demo-Mixed")
    make_up(dataset, Wanted(collection="Demo-Mixed", patient_id=ODD_PATIENT_ID, series_of=3))
    for collection in RESTRICTED:
        make_up(dataset, Wanted(collection=collection, patients=2, series_of=4))


def _on_disk(*patterns: str) -> Iterator[Path]:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _ingest_phantom(dataset: Dataset, collection: str) -> None:
    header = phantom.slice_header()
    for index in range(phantom.SLICES):
        header.SOPInstanceUID = phantom.sop_instance_uid(index)
        header.InstanceNumber = index + 1
        ingest(dataset, collection, header, partial(phantom.slice_file, index), phantom.slice_size())
    ingest(
        dataset, collection, phantom.multiframe_header(), phantom.multiframe_file, phantom.multiframe_size()
    )


def _ingest_structure_set(dataset: Dataset, collection: str) -> None:
    """Add pydicom's RTSTRUCT, which comes without the preamble that an archive insists on."""
    for path in _on_disk("rtstruct.dcm"):
        header = pydicom.dcmread(path, force=True)
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        buffer = io.BytesIO()
        header.save_as(buffer, enforce_file_format=True)
        ingest(dataset, collection, header, cache(buffer.getvalue), len(buffer.getvalue()))
