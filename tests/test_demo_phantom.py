"""The generated CT is one volume to programs that read DICOM, and the same on every machine."""

import hashlib
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
import SimpleITK

from tciafs.demo import phantom

Z = -60 * phantom.THICKNESS
CORNER = -phantom.SPACING * (phantom.SIDE - 1) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    for index in range(phantom.SLICES):
        (folder / f"{hashlib.md5(bytes([index])).hexdigest()}.dcm").write_bytes(phantom.slice_file(index))
    return folder


def test_the_slices_are_valid_files_of_the_promised_size():
    uids = set()
    for index in (0, 59, 119):
        file = phantom.slice_file(index)
        assert len(file) == phantom.slice_size()
        header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(file))
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert (header.InstanceNumber, float(header.SliceLocation)) == (index + 1, Z + index * 2.5)
        assert header.pixel_array.shape == (256, 256)
        uids.add(header.SOPInstanceUID)
    assert uids == {phantom.sop_instance_uid(index) for index in (0, 59, 119)}


def test_simpleitk_reads_one_volume(folder):
    reader = SimpleITK.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), series))
    volume = reader.Execute()
    assert volume.GetSize() == (256, 256, 120)
    assert volume.GetSpacing() == pytest.approx((1.25, 1.25, 2.5))
    assert volume.GetOrigin() == pytest.approx((CORNER, CORNER, Z))
    pixels = SimpleITK.GetArrayFromImage(volume)
    assert -1010 < pixels[60, 5, 5] < -985  # air
    assert -830 < pixels[60, 120, 76] < -780  # lung
    assert 400 < pixels[60, 176, 128] < 470  # bone


def test_dcm2niix_reads_one_volume(folder, tmp_path):
    program = shutil.which("dcm2niix")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    command = [program, "-f", "volume", "-o", str(tmp_path), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "256x256x120" in run.stdout
    assert "Convert 120 DICOM" in run.stdout
    assert run.stdout.count("Warning") == run.stdout.count("Unable to determine manufacturer")
    assert [path.name for path in tmp_path.glob("*.nii*")] == ["volume.nii"]


def test_one_file_holds_all_slices():
    file = phantom.multiframe_file()
    assert len(file) == phantom.multiframe_size()
    frames = pydicom.dcmread(pydicom.filebase.DicomBytesIO(file))
    assert frames.pixel_array.shape == (120, 256, 256)
    single = pydicom.dcmread(pydicom.filebase.DicomBytesIO(phantom.slice_file(60)))
    assert np.array_equal(frames.pixel_array[60], single.pixel_array)


def test_the_bytes_are_the_same_everywhere():
    digest = hashlib.sha256(b"".join(map(phantom.slice_file, range(phantom.SLICES))))
    assert digest.hexdigest() == "3d878746f54c8fe7c01b006a4cd586a973c9d247b5d48946bc29c086c58bc727"
