"""What a measurement is: cases and their targets, rounds, medians, and what a machine allows."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Round = dict[str, float]
Measure = Callable[[int], Round]
"""Measure every contender once; the number of the round says whose turn is first."""

PROFILES: dict[str, dict[str, float]] = {
    "lan": {},
    "wan": {"latency_ms": 100, "bandwidth_mbit": 40, "total_mbit": 200},
    "slow": {"latency_ms": 250, "bandwidth_mbit": 8},
}
_DROP = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the median of a value of the rounds is to be: at most `limit`, or at least."""

    what: str
    value: Callable[[Round], float]
    limit: Callable[[str], float] | float
    unit: str = ""
    at_least: bool = False
    profiles: Sequence[str] = tuple(PROFILES)

    def limit_for(self, profile: str) -> float:
        """Return the limit that holds in `profile`."""
        return self.limit(profile) if callable(self.limit) else self.limit

    def reached(self, rounds: Sequence[Round]) -> float:
        """Return the median over the rounds."""
        return statistics.median(map(self.value, rounds))

    def is_met(self, profile: str, reached: float) -> bool:
        """Tell whether that is good enough."""
        limit = self.limit_for(profile)
        return reached >= limit if self.at_least else reached <= limit


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that is measured; `begin` sets it up for one profile and yields what measures a round."""

    name: str
    title: str
    how: str
    begin: Callable[[str], AbstractContextManager[Measure]]
    targets: Sequence[Target]
    bars: Sequence[str]
    profiles: Sequence[str] = ("lan",)
    most_rounds: int = 99
    cold_kernel: bool = False  # cannot be measured where caches cannot be dropped


def ratio(key: str, *others: str) -> Callable[[Round], float]:
    """Return how many times as long `key` takes as the quickest of the `others`."""
    return lambda found: found[key] / min(found[other] for other in others)


def value(key: str) -> Callable[[Round], float]:
    """Return what was measured as `key`."""
    return lambda found: found[key]


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(number: int, contenders: Mapping[str, Callable[[], float]]) -> Round:
    """Let each contender measure itself, beginning with another one each round."""
    names = list(contenders)
    turn = number % len(names)
    return {name: contenders[name]() for name in names[turn:] + names[:turn]}


def read_all(files: Iterable[Path]) -> int:
    """Read files one after the other, each from its start to its end."""
    return sum(len(file.read_bytes()) for file in files)


def read_large(file: Path) -> int:
    """Read one file in pieces of 1 MiB."""
    buffer, total = bytearray(1 << 20), 0
    with file.open("rb", buffering=0) as opened:
        while count := opened.readinto(buffer):
            total += count
    return total


def run(*command: str | Path) -> None:
    """Run a program, silent unless it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, check=False)
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip() or f"exit status {done.returncode}"
        raise RuntimeError(f"{Path(command[0]).name}: {told[-500:]}")


def can_drop_caches() -> bool:
    """Tell whether the kernel's caches may be dropped here."""
    return os.access(_DROP, os.W_OK) and os.geteuid() == 0


def drop_caches() -> None:
    """Have the kernel forget the pages and the names that it has read."""
    os.sync()
    _DROP.write_text("3\n")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
