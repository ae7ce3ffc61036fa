"""The report of the measurements says what was found; the measurements themselves are `make bench`."""

import math
import xml.etree.ElementTree as ElementTree
from functools import partial

from tests.bench.__main__ import CASES
from tests.bench.chart import chart
from tests.bench.images import CASES as IMAGE_CASES
from tests.bench.measure import in_turn, percentile
from tests.bench.report import rows, write
from tests.bench.results import Found, Results, machine

FIRST, SERIES, _ = IMAGE_CASES


def test_a_target_is_judged_by_the_median_of_the_rounds_ratios():
    # The ratio of the medians would be 1.0: each round is one comparison.
    rounds = [{"drive": 1.0, "curl": 2.0}, {"drive": 4.0, "curl": 3.0}, {"drive": 3.0, "curl": 1.0}]
    ((_, _, aim, reached, met),) = rows(FIRST, Found("first-slice", "wan", rounds))
    assert (aim, reached, met) == ("drive / curl of the image ≤ 1.15", "1.33", "**not met**")
    ((_, _, _, _, met),) = rows(FIRST, Found("first-slice", "lan", rounds))
    assert met == "met"  # other limits hold there


def test_the_faster_peer_counts_and_one_that_was_given_up_is_no_peer():
    rounds = [{"drive": 2.0, "curl, ZIP": math.inf, "curl, 8 images at a time": 4.0, "tcia-utils": 8.0}]
    reached = [row[3:] for row in rows(SERIES, Found("series", "wan", rounds))]
    assert reached == [("0.5", "met"), ("0.25", "met")]


def test_contenders_begin_in_turn():
    order: list[str] = []

    def contender(name: str) -> float:
        order.append(name)
        return 1.0

    contenders = {name: partial(contender, name) for name in "abc"}
    for number in range(3):
        in_turn(number, contenders)
    assert "".join(order) == "abcbcacab"
    assert percentile([*range(1, 101)], 0.99) == 99


def test_a_chart_is_svg_that_keeps_names_as_they_are():
    drawn = chart("a < b", {"lan": {"drive": 0.05, "curl & co": 1.5}, "wan": {"drive": math.inf}})
    texts = [each.text for each in ElementTree.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["a < b", "lan", "drive", "50.0 ms", "curl & co", "1.5 s", "wan", "drive", "given up"]


def test_a_report_keeps_what_was_measured_before_and_tells_what_was_not(tmp_path):
    data, report = tmp_path / "rounds.json", tmp_path / "benchmarks.md"
    results = Results(machine({"curl": "8.0"}))
    results.put(Found("first-slice", "wan", [{"drive": 9.0, "curl": 1.0}], "2026-01-01"))
    results.save(data)
    results = Results.load(data)
    results.put(Found("first-slice", "wan", [{"drive": 0.4, "curl": 0.5}], "2026-01-02"))
    results.put(Found("remount", "lan", [], "2026-01-02", "needs root"))
    write(results, CASES, report)
    text = report.read_text()
    assert "| first-slice | wan | drive / curl of the image ≤ 1.15 | 0.8 | met |" in text
    assert "| remount | lan |  | needs root | not measured |" in text
    assert "| wan | 1 | 2026-01-02 | 0 | 400 ms | 500 ms |" in text
    assert (tmp_path / "benchmarks" / "first-slice.svg").exists()
    assert str(tmp_path) not in text
