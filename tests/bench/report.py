"""Tells what was found: a table of targets on the terminal, and docs/benchmarks.md with charts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.chart import chart, duration
from tests.bench.measure import PROFILES, Case, Target
from tests.bench.results import Found, Results

_INTRODUCTION = """# Benchmarks

`make bench` wrote this. The archive is the embedded one, in a process of its own on the same machine; between
it and its clients is a line:

| line | before each answer | a connection | in all |
|---|---|---|---|
{lines}

Whoever is compared is measured in turn in each round, on the same server, and what counts is the median of
the rounds' ratios. Absolute times are those of a machine that is the archive and the client at once, and that
may have done other things: `load` is how many processes wanted to run at the end, its own included, on the
cores told below. On `lan` the archive is a web server in Python; TCIA's own may be
faster or slower than any of these lines.
"""


def rows(case: Case, found: Found) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield case, profile, what was aimed at, what was reached, and whether that is enough."""
    if not found.rounds:
        yield case.name, found.profile, "", found.failure, "not measured"
        return
    for target in case.targets:
        if found.profile in target.profiles:
            reached = target.reached(found.rounds)
            met = "met" if target.is_met(found.profile, reached) else "**not met**"
            yield case.name, found.profile, _aim(target, found.profile), _spelled(reached, target), met


def _aim(target: Target, profile: str) -> str:
    sign = "≥" if target.at_least else "≤"
    return f"{target.what} {sign} {target.limit_for(profile):g}{_unit(target)}"


def _spelled(reached: float, target: Target) -> str:
    return f"{reached:.0f}" if float(reached).is_integer() else f"{reached:.3g}{_unit(target)}"


def _unit(target: Target) -> str:
    return f" {target.unit}" if target.unit else ""


def print_table(table: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def write(results: Results, cases: Sequence[Case], file: Path) -> None:
    """Write the report at `file`, and its charts into a folder beside it."""
    pictures = file.with_suffix("")
    pictures.mkdir(exist_ok=True)
    lines = "\n".join(f"| `{name}` | {_line(profile)} |" for name, profile in PROFILES.items())
    parts = [_INTRODUCTION.format(lines=lines), _summary(results, cases)]
    for case in cases:
        founds = [found for found in results.of(case.name) if found.rounds]
        if founds:
            parts.append(_section(case, founds, pictures))
    parts.append(_machine(results))
    file.write_text("\n".join(parts))


def _line(profile: dict[str, float]) -> str:
    delay = profile.get("latency_ms", 0)
    speeds = [profile.get(name, 0) for name in ("bandwidth_mbit", "total_mbit")]
    told = [f"{speed:g} Mbit/s" if speed else "no limit" for speed in speeds]
    return " | ".join([f"{delay:g} ms" if delay else "no delay", *told])


def _summary(results: Results, cases: Sequence[Case]) -> str:
    table = [row for case in cases for found in results.of(case.name) for row in rows(case, found)]
    return _markdown(("case", "line", "target", "median", ""), table)


def _markdown(head: Sequence[str], table: Sequence[Sequence[str]]) -> str:
    told = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *table)]
    return "\n".join([*told, ""])


def _section(case: Case, founds: Sequence[Found], pictures: Path) -> str:
    text = [f"## {case.title}\n\n{case.how}\n"]
    if case.bars:
        groups = {_heading(found): _bars(case, found) for found in founds}
        (pictures / f"{case.name}.svg").write_text(chart(case.title.replace("`", ""), groups))
        text.append(f"![{case.title.replace('`', '')}]({pictures.name}/{case.name}.svg)\n")
    names = list(dict.fromkeys(name for found in founds for name in found.medians()))
    table = [
        [found.profile, str(len(found.rounds)), found.date, f"{found.load:g}", *_values(case, found, names)]
        for found in founds
    ]
    text.append(_markdown(["line", "rounds", "date", "load", *names], table))
    return "\n".join(text)


def _heading(found: Found) -> str:
    return f"{found.profile}, medians of {len(found.rounds)} rounds"


def _bars(case: Case, found: Found) -> dict[str, float]:
    medians = found.medians()
    return {name: medians[name] for name in case.bars if name in medians}


def _values(case: Case, found: Found, names: Sequence[str]) -> list[str]:
    medians = found.medians()
    return [
        ""
        if name not in medians
        else duration(medians[name])
        if name in case.bars
        else f"{medians[name]:.3g}"
        for name in names
    ]


def _machine(results: Results) -> str:
    facts = "\n".join(f"- {name}: {value}" for name, value in results.machine.items())
    return f"## Where\n\n{facts}\n"
