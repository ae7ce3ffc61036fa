"""What was measured, kept beside the report, so that one case can be measured anew without the others."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import pyfuse3

from tciafs import __version__
from tests.bench.measure import Round


@dataclass
class Found:
    """The rounds of one case in one profile, or why there are none."""

    case: str
    profile: str
    rounds: list[Round] = field(default_factory=list)
    date: str = ""
    failure: str = ""
    load: float = 0.0  # processes that wanted to run at the end, its own included

    def medians(self) -> dict[str, float]:
        """Return the median of each value, over the rounds that have it."""
        names = dict.fromkeys(name for each in self.rounds for name in each)
        return {name: statistics.median(each[name] for each in self.rounds if name in each) for name in names}


@dataclass
class Results:
    """The latest of each case and profile, and on what machine."""

    machine: dict[str, str] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)

    def put(self, new: Found) -> None:
        """Take `new` in the place of what was found of the same before."""
        kept = [each for each in self.found if (each.case, each.profile) != (new.case, new.profile)]
        self.found = [*kept, new]

    def of(self, case: str) -> Iterator[Found]:
        """Yield what is known of a case."""
        yield from (each for each in self.found if each.case == case)

    def save(self, file: Path) -> None:
        """Write all of it."""
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, file: Path) -> Results:
        """Read it, nothing where there is no such file."""
        if not file.exists():
            return cls()
        told = json.loads(file.read_text())
        return cls(told["machine"], [Found(**each) for each in told["found"]])


def today() -> str:
    """Return the date as reports say it."""
    return time.strftime("%Y-%m-%d")


def machine(peers: dict[str, str]) -> dict[str, str]:
    """Describe the machine in general terms, and the versions of all that takes part."""
    info = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in info.items()}
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {
        "processor": f"{facts.get('model name', platform.machine())}, {os.cpu_count()} cores",
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "Python": platform.python_version(),
        "tciafs": f"{__version__} ({_commit()})",
        "pyfuse3": pyfuse3.__version__,
        **{name: version(name) for name in ("trio", "httpx", "hypercorn", "SimpleITK")},
        **peers,
    }


def _commit() -> str:
    command: Sequence[str] = ("git", "rev-parse", "--short", "HEAD")
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"
