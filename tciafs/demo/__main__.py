"""The command line of the embedded archive: `python -m tciafs.demo`."""

from __future__ import annotations

import argparse
from pathlib import Path

import trio

from tciafs.demo.dataset import Dataset
from tciafs.demo.faults import Switches
from tciafs.demo.ingest import ingest_folder
from tciafs.demo.sample import ingest_sample
from tciafs.demo.server import run
from tciafs.demo.service import Service


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"not a folder: {text}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tciafs.demo",
        description="Serve DICOM files as the NBIA API of TCIA does; prints the base URL when ready.",
    )
    parser.add_argument("--data", type=_folder, help="folder of DICOM files, one folder per collection")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (any free one)")
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="wait before every answer")
    parser.add_argument(
        "--bandwidth", type=float, default=0, metavar="MBIT", help="speed of each connection (unlimited)"
    )
    parser.add_argument(
        "--total-bandwidth", type=float, default=0, metavar="MBIT", help="speed of all connections together"
    )
    return parser


def main() -> None:
    """Read the arguments and the data, and serve."""
    arguments = _parser().parse_args()
    dataset = Dataset()
    if arguments.data:
        ingest_folder(dataset, arguments.data)
    else:
        ingest_sample(dataset)
    usual = Switches(
        latency_ms=arguments.latency,
        bandwidth_mbit=arguments.bandwidth,
        total_mbit=arguments.total_bandwidth,
    )
    trio.run(run, Service(dataset, usual), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
