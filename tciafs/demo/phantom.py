"""A generated CT of a made-up thorax, the same bytes on every machine: 120 slices, and all in one file.

The geometry of the slices is complete (position, orientation, spacing), so that viewers and converters
read one volume. The multi-frame file is what a large object of one instance looks like.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset as Header
from pydicom.uid import CTImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage

from tciafs.demo.template import Mould, encode, made_up_uid, uid_field

SLICES = 120
SIDE = 256
SPACING = 1.25
THICKNESS = 2.5
PATIENT_ID = "PHANTOM-01"
_INTERCEPT = -1024
_SLICE_BYTES = SIDE * SIDE * 2
_CORNER = f"{-SPACING * (SIDE - 1) / 2:g}"
_MARKS = {
    "sop_instance_uid": uid_field("phantom"),
    "number": "2147483647",
    "z": "-987654321.98765",
    "location": "-123456789.12345",
}


def slice_header() -> Header:
    """Return what all slices say, with placeholders for what differs."""
    made = _header("series")
    made.SOPClassUID = CTImageStorage
    made.SOPInstanceUID = _MARKS["sop_instance_uid"]
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.Modality = "CT"
    made.SeriesNumber = 2
    made.SeriesDescription = "Thorax 2.5 mm"
    made.AcquisitionNumber = 1
    made.InstanceNumber = _MARKS["number"]
    made.FrameOfReferenceUID = made_up_uid("phantom", "frame of reference")
    made.ImagePositionPatient = [_CORNER, _CORNER, _MARKS["z"]]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.SliceLocation = _MARKS["location"]
    made.SliceThickness = THICKNESS
    made.SpacingBetweenSlices = THICKNESS
    made.PixelSpacing = [SPACING, SPACING]
    return made


def multiframe_header() -> Header:
    """Return what the file says that holds every slice as a frame."""
    made = _header("frames")
    made.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    made.SOPInstanceUID = made_up_uid("phantom", "frames", 1)
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.Modality = "OT"
    made.SeriesNumber = 3
    made.SeriesDescription = "All slices in one file"
    made.InstanceNumber = 1
    made.ConversionType = "SYN"
    made.NumberOfFrames = SLICES
    made.FrameIncrementPointer = 0x00080018
    return made


def _header(series: str) -> Header:
    made = Header()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.StudyInstanceUID = made_up_uid("phantom", "study")
    made.SeriesInstanceUID = made_up_uid("phantom", series)
    _describe(made)
    _lay_out_pixels(made)
    return made


def _describe(made: Header) -> None:
    """Say whose scan it is, when and how it was made."""
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = "20190114"
    made.StudyTime = made.SeriesTime = made.AcquisitionTime = made.ContentTime = "101500"
    made.AccessionNumber = ""
    made.Manufacturer = "tciafs"
    made.ManufacturerModelName = "Phantom"
    made.SoftwareVersions = "1"
    made.StudyDescription = "CT THORAX"
    made.ProtocolName = "Thorax"
    made.PatientName = made.PatientID = PATIENT_ID
    made.PatientSex = "O"
    made.PatientBirthDate = ""
    made.PatientAge = "042Y"
    made.BodyPartExamined = "CHEST"
    made.PatientPosition = "HFS"
    made.KVP = 120
    made.StudyID = "1"


def _lay_out_pixels(made: Header) -> None:
    """Say how the pixels are stored: 16 bits, signed, to be shifted into Hounsfield units."""
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows = made.Columns = SIDE
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit = 15
    made.PixelRepresentation = 1
    made.WindowCenter, made.WindowWidth = 40, 400
    made.RescaleIntercept = _INTERCEPT
    made.RescaleSlope = 1
    made.RescaleType = "HU"


def sop_instance_uid(index: int) -> str:
    """Return the UID of the slice at `index`, counted from the feet."""
    return made_up_uid("phantom", "slice", index)


@cache
def _mould() -> Mould:
    return Mould(without_pixels(slice_header(), _SLICE_BYTES), _MARKS)


@cache
def _multiframe_head() -> bytes:
    return without_pixels(multiframe_header(), SLICES * _SLICE_BYTES)


def without_pixels(made: Header, pixel_bytes: int) -> bytes:
    """Encode `made` up to where the values of its pixels begin."""
    made.PixelData = bytes(pixel_bytes)
    return encode(made)[:-pixel_bytes]


def slice_size() -> int:
    """Return the size of each slice's file."""
    return _mould().size + _SLICE_BYTES


def slice_file(index: int) -> bytes:
    """Return the file of the slice at `index`."""
    z = f"{(index - SLICES // 2) * THICKNESS:g}"
    uid = sop_instance_uid(index)
    return _mould().fill(sop_instance_uid=uid, number=str(index + 1), z=z, location=z) + _pixels(index)


def multiframe_size() -> int:
    """Return the size of the file of all slices."""
    return len(_multiframe_head()) + SLICES * _SLICE_BYTES


def multiframe_file() -> bytes:
    """Return the file of all slices."""
    return b"".join([_multiframe_head(), *map(_pixels, range(SLICES))])


def pixels(index: int, side: int) -> bytes:
    """Return a slice of another size, with noise of its own: enlarged up to twice, repeated beyond.

    `side` is a multiple of `SIDE`.
    """
    scale = 2 if side % (2 * SIDE) == 0 else 1
    drawn = np.kron(_hounsfield(index % SLICES), np.ones((scale, scale), dtype=np.int32))
    drawn += _noise(index, SIDE * scale, 5)
    tiles = side // (SIDE * scale)
    return np.tile((drawn - _INTERCEPT).astype("<i2"), (tiles, tiles)).tobytes()


@cache  # 16 MB at most, and half of the time that a request for a slice takes
def _pixels(index: int) -> bytes:
    return (_hounsfield(index) + _noise(index, SIDE) - _INTERCEPT).astype("<i2").tobytes()


def _hounsfield(index: int) -> NDArray[np.int32]:
    """Draw one slice: body, lungs, spine, heart and a lesion, each an ellipsoid, over a slow gradient.

    Whole numbers only, so that no machine rounds another way.
    """
    y, x = np.ogrid[:SIDE, :SIDE]
    drawn = np.full((SIDE, SIDE), -1000, dtype=np.int32)
    for (middle_x, middle_y, middle_z), (width, height, depth), value in _ORGANS:
        across = ((x - middle_x) * 256 // width) ** 2 + ((y - middle_y) * 256 // height) ** 2
        inside = across + ((index - middle_z) * 256 // depth) ** 2 <= 65536
        drawn[inside] = value
    tissue = drawn > -1000
    drawn[tissue] += ((x + 2 * y + 3 * index) % 64 // 2)[tissue]
    return drawn


def _noise(index: int, side: int, bits: int = 4) -> NDArray[np.int32]:
    """Return, with 4 bits, up to 8 HU either way, so that the slices compress no better than real ones."""
    mixed = np.arange(side * side, dtype=np.uint64) + np.uint64(index * side * side + 1)
    for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9):
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(factor)
    return (mixed >> np.uint64(64 - bits)).astype(np.int32).reshape(side, side) - (1 << bits - 1)


# Middle (x, y, slice), half axes, Hounsfield units; a later one is drawn over an earlier one.
_ORGANS = (
    ((128, 128, 60), (112, 84, 400), 20),
    ((76, 120, 64), (38, 56, 58), -820),
    ((180, 120, 64), (38, 56, 58), -830),
    ((138, 104, 44), (36, 30, 26), 90),
    ((128, 186, 60), (15, 15, 400), 420),
    ((128, 186, 60), (6, 6, 400), 30),
    ((66, 96, 80), (9, 9, 5), 60),
)
