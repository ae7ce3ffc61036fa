"""Reads that go on are known as such: out of order, beside each other, and from many readers."""

from tciafs.content.runs import Runs

MIB = 1 << 20


def test_reads_that_go_on_are_one_run_whoever_sends_them_and_a_little_out_of_order():
    runs = Runs()
    for offset in (0, 2, 1, 3, 5, 4):
        run = runs.note(offset * MIB, MIB)
    assert run == range(6 * MIB)
    assert runs.note(5 * MIB, MIB // 2) == run  # the same once more is nothing new


def test_a_read_elsewhere_begins_another_run_and_leaves_the_first_to_go_on():
    runs = Runs()
    runs.note(0, MIB)
    assert runs.note(50 * MIB, 4096) == range(50 * MIB, 50 * MIB + 4096)
    assert runs.note(MIB, MIB) == range(2 * MIB)
    for place in range(16):
        runs.note((100 + 10 * place) * MIB, 4096)
    assert runs.note(2 * MIB, MIB) == range(2 * MIB, 3 * MIB)  # forgotten: so many read elsewhere since
