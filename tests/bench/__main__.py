"""The command line of the measurements: `make bench`, or `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench import cached, daemon, images, listings
from tests.bench.measure import PROFILES, Case, can_drop_caches
from tests.bench.peers import prepare_environment, versions
from tests.bench.report import print_table, rows, write
from tests.bench.results import Found, Results, machine, today

CASES: Sequence[Case] = (*images.CASES, *cached.CASES, *listings.CASES, *daemon.CASES)
_ROUNDS = 5
_REPORT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_DATA = _REPORT.with_suffix("") / "rounds.json"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure the drive beside its peers."
    )
    names = [case.name for case in CASES]
    parser.add_argument("--case", action="append", choices=names, help="measure this one alone; repeatable")
    parser.add_argument("--profile", action="append", choices=PROFILES, help="on this line alone; repeatable")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="rounds of each (%(default)s)")
    parser.add_argument(
        "--write", action="store_true", help=f"write {_REPORT.name} even from fewer than {_ROUNDS} rounds"
    )
    return parser.parse_args()


def _measured(case: Case, profile: str, rounds: int) -> Found:
    """Measure a case; one that fails is told, and the others go on."""
    found = Found(case.name, profile, date=today())
    if case.cold_kernel and not can_drop_caches():
        found.failure = "needs root: the kernel's caches must be dropped"
        return found
    began = time.monotonic()
    try:
        with case.begin(profile) as measure:
            for number in range(min(rounds, case.most_rounds)):
                found.rounds.append(measure(number))
                print(f"  {case.name}, {profile}: {_brief(found.rounds[-1])}", flush=True)
    except (OSError, RuntimeError, ValueError, AssertionError, pytest.fail.Exception) as exc:
        traceback.print_exc()
        found.failure = " ".join(str(exc).split())[:200]
        found.rounds.clear()
    found.load = round(os.getloadavg()[0], 1)
    print(f"  {case.name}, {profile}: {time.monotonic() - began:.0f} s in all", flush=True)
    return found


def _brief(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def main() -> None:
    """Measure what is wanted, print targets and results, and write the report."""
    wanted = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what is mounted is unmounted on the way out
    prepare_environment()
    is_kept = wanted.rounds >= _ROUNDS or wanted.write
    table: list[tuple[str, ...]] = []
    for case in CASES:
        for profile in case.profiles:
            if profile in (wanted.profile or PROFILES) and case.name in (wanted.case or [case.name]):
                found = _measured(case, profile, wanted.rounds)
                table += rows(case, found)
                if is_kept:  # now: the rest takes long, and may be interrupted
                    _keep(found)
    if not table:
        sys.exit("no such case on that line")
    print()
    print_table(table)
    if is_kept:
        print(f"\nWritten: docs/{_REPORT.name}")


def _keep(found: Found) -> None:
    """Write the report anew with what was found."""
    results = Results.load(_DATA)
    results.put(found)
    results.machine = machine(versions())
    write(results, CASES, _REPORT)
    results.save(_DATA)


if __name__ == "__main__":
    main()
