"""The identity of what an archive holds: numbers that stand in users' caches, and may never change."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.model import (
    ROOT_INODE,
    Collection,
    Instance,
    Kind,
    Patient,
    Record,
    Series,
    Study,
    alias_inode,
    aliased_inode,
    inode_number,
    inode_of,
    is_file,
    key_of,
    kind_of,
    series_of,
)

SERIES = Series("LIDC-IDRI", "LIDC-0001", "1.2.3", "1.2.3.4", submitted=date(2019, 2, 25))


@pytest.mark.parametrize(
    ("record", "number"),
    [
        (Collection("LIDC-IDRI"), 687_494_667_068_171_785),
        (Patient("LIDC-IDRI", "LIDC-0001"), 164_655_029_178_814_600),
        (Study("LIDC-IDRI", "LIDC-0001", "1.2.3"), 1_626_013_178_906_184_016),
        (SERIES, 1_147_489_782_594_268_832),
        (Instance("1.2.3.4", "1.2.3.4.5", "2019-02-25"), 3_453_320_242_372_459_061),
        (Patient("Ä\ud800", "\x00é\U0001f600"), 2_213_340_928_903_425_060),
    ],
)
def test_an_inode_number_never_changes(record, number):
    assert inode_of("tcia", record) == number


def test_what_only_describes_a_record_does_not_change_its_inode_number():
    study = Study("C", "P", "1.2", date(2000, 1, 1), "a description", "7", 3)
    assert key_of(study) == key_of(Study("C", "P", "1.2"))
    series = Series("C", "P", "1.2", "1.3", "CT", "1", "a description", image_count=5, file_size=9)
    assert key_of(series) == key_of(Series("C", "P", "1.2", "1.3"))
    instance = Instance("1.3", "1.4", "v", instance_number=3, size=7, estimate=7)
    assert key_of(instance) == key_of(Instance("1.3", "1.4", "v"))


def test_a_series_submitted_again_and_its_instances_have_other_inode_numbers():
    again = Series("LIDC-IDRI", "LIDC-0001", "1.2.3", "1.2.3.4", submitted=date(2019, 2, 26))
    assert key_of(again) != key_of(SERIES)
    assert key_of(Instance("1", "2", again.version)) != key_of(Instance("1", "2", SERIES.version))


def test_each_archive_has_inode_numbers_of_its_own():
    key = key_of(Collection("LIDC-IDRI"))
    assert inode_number("tcia", *key) != inode_number("nlst", *key)


def test_the_version_of_a_series_is_its_submission_or_else_its_release():
    submitted, released = date(2019, 2, 25), date(2019, 3, 8)
    assert Series("", "", "", "", submitted=submitted, released=released).version == "2019-02-25"
    assert Series("", "", "", "", released=released).version == "2019-03-08"
    assert Series("", "", "", "").version == ""


def test_every_record_knows_its_level():
    records: list[Record] = [Collection(""), Patient("", ""), Study("", "", ""), SERIES, Instance("", "", "")]
    assert [kind_of(record) for record in records] == list(Kind)[1:]
    assert len({key_of(record)[0] for record in records}) == 5


@given(st.text(), st.lists(st.text()))
def test_inode_numbers_leave_room_for_the_control_files_and_fit_63_bits(archive, key):
    inode = inode_number(archive, *key)
    assert 1024 <= inode < 2**61
    assert inode != ROOT_INODE
    assert aliased_inode(inode) is None
    assert not is_file(inode)


@given(st.text(), st.text(), st.text(), st.text())
def test_a_file_leads_to_its_series_wherever_that_is_filed(archive, patient_id, uid, other):
    file = inode_of(archive, Instance(uid, other, "2019-02-25"))
    assert is_file(file)
    assert aliased_inode(file) is None
    assert 2**61 <= file < 2**62
    series = inode_of(archive, Series("C", patient_id, other, uid, submitted=date(2019, 2, 25)))
    assert series in series_of(file)
    assert series >= 1024
    assert not is_file(series)


@given(st.text())
def test_an_alias_leads_back_to_what_it_points_to(text):
    inode = inode_number("tcia", text)
    alias = alias_inode(inode)
    assert aliased_inode(alias) == inode
    assert 2**62 <= alias < 2**63
