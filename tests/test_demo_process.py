"""The embedded archive as a process: how it starts, what it serves, and how it ends."""

import http.client
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pydicom
import pytest

from tests.archive import start_archive

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
PROJECT = Path(__file__).parent.parent


def gone(pid):
    """Tell whether the process ends within 5 seconds; nobody need have waited for it."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def folder(tmp_path):
    """Return a data folder: two collections, a file beside them, and things that are not DICOM files."""
    data = tmp_path / "My Archive"
    for target, name in (
        ("One/deep/er/a.dcm", "CT_small.dcm"),
        ("One/again.dcm", "CT_small.dcm"),
        ("Two x/no-extension", "MR_small.dcm"),
        ("Two x/same-uid.dcm", "MR_small_RLE.dcm"),
        ("beside.dcm", "rtplan.dcm"),
        ("One/no-preamble.dcm", "rtstruct.dcm"),
    ):
        (data / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(BUNDLED / name, data / target)
    (data / "One" / "README").write_text("not DICOM")
    (data / "One" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)
    return data


def test_a_folder_is_served_by_its_first_level(folder):
    with start_archive("--data", folder) as archive:
        rows = httpx.get(f"{archive.url}/v4/getSeries", trust_env=False).json()
        assert sorted((row["Collection"], row["Modality"], row["FileSize"]) for row in rows) == [
            ("My Archive", "RTPLAN", (BUNDLED / "rtplan.dcm").stat().st_size),
            ("One", "CT", (BUNDLED / "CT_small.dcm").stat().st_size),
            ("Two x", "MR", (BUNDLED / "MR_small.dcm").stat().st_size),
        ]


def test_start_and_end_are_quick_silent_and_clean_even_with_connections_open():
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "tciafs.demo"], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    url = process.stdout.readline().decode().rstrip("\n")
    started = time.monotonic() - start
    address = urlsplit(url)
    assert (address.hostname, address.path) == ("127.0.0.1", "/nbia-api/services")
    with httpx.Client(trust_env=False) as idle, socket.create_connection(("127.0.0.1", address.port)) as deaf:
        assert idle.get(f"{url}/v4/getPatient").status_code == 200
        uid = next(
            row["SeriesInstanceUID"]
            for row in idle.get(f"{url}/v4/getSeries").json()
            if row["FileSize"] > 15e6
        )
        path = f"/nbia-api/services/v4/getImage?SeriesInstanceUID={uid}"
        deaf.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)
        end = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=5)
    assert process.returncode == 0
    assert time.monotonic() - end < 3
    assert (output, errors) == (b"", b"")
    assert started < 5  # under 2 s on an idle machine


def test_an_interrupt_ends_it_too():
    with start_archive("--port", "0") as archive:
        archive.process.send_signal(signal.SIGINT)
        assert archive.process.wait(timeout=5) == 0


def test_latency_and_bandwidth_can_be_given_at_start():
    with start_archive("--latency", "1000", "--bandwidth", "1") as archive:
        start = time.monotonic()
        answer = httpx.get(f"{archive.url}/v4/getSeries", trust_env=False)
        assert time.monotonic() - start >= 1 + len(answer.content) / 125_000
        archive.faults(latency_ms=0, bandwidth_mbit=0)
        start = time.monotonic()
        httpx.get(f"{archive.url}/v4/getSeries", trust_env=False)
        assert time.monotonic() - start < 1


def test_it_ends_when_its_parent_does():
    parent = (
        "import subprocess, sys;"
        "child = subprocess.Popen([sys.executable, '-m', 'tciafs.demo'], stdout=subprocess.PIPE);"
        "child.stdout.readline();"
        "print(child.pid, flush=True);"
        "import os; os._exit(0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", parent], cwd=PROJECT, capture_output=True, text=True, check=True, timeout=20
    )
    assert gone(int(run.stdout))


def test_it_does_not_end_when_only_the_thread_that_started_it_does():
    with ExitStack() as stack:
        with ThreadPoolExecutor(1) as thread:
            archive = thread.submit(stack.enter_context, start_archive()).result()
        time.sleep(0.7)
        assert httpx.get(f"{archive.url}/v4/getCollectionValues", trust_env=False).status_code == 200


def test_a_folder_that_is_not_there_is_said_so(tmp_path):
    command = [sys.executable, "-m", "tciafs.demo", "--data", str(tmp_path / "none")]
    run = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=20)
    assert run.returncode == 2
    assert "not a folder" in run.stderr


def test_a_connection_may_stay_for_thousands_of_requests():
    with start_archive() as archive:
        address = urlsplit(archive.url)
        with closing(http.client.HTTPConnection("127.0.0.1", address.port or 0)) as connection:
            connection.connect()
            opened = connection.sock
            for _ in range(1_200):
                connection.request("GET", "/nbia-api/v4/getCollectionValues")
                assert connection.getresponse().read()
            assert connection.sock is opened
        assert archive.requests() == {"v4/getCollectionValues": 1_200}
