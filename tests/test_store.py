"""Listings on disk: put whole, found by name and by inode number, under whatever layout looks."""

import random
import sqlite3
import time
from contextlib import closing, suppress
from datetime import date

import pytest
import trio

from tciafs.catalog.difference import Put
from tciafs.catalog.expiry import expire
from tciafs.catalog.rows import ROOT, Found, Node, digest_of_names, insert_names
from tciafs.catalog.store import Store
from tciafs.database import Lost, Unwritable
from tciafs.model import (
    ROOT_INODE,
    Collection,
    Instance,
    Kind,
    Patient,
    Series,
    Study,
    inode_of,
    inodes_of,
)
from tciafs.names import Layout

COLLECTION = Collection("LIDC-IDRI")
PATIENT = Patient("LIDC-IDRI", "LIDC-0001")
STUDY = Study("LIDC-IDRI", "LIDC-0001", "1.2", date(2000, 1, 31), "CT chest", "42", 2)
SERIES = Series(
    "LIDC-IDRI",
    "LIDC-0001",
    "1.2",
    "1.2.3",
    modality="CT",
    series_number="3000566.000000",
    series_description='é "/" \x00',
    body_part="CHEST",
    image_count=133,
    file_size=2**62,
    submitted=date(2019, 2, 25),
    released=date(2019, 3, 8),
    license_name="CC BY 3.0",
    license_uri="https://creativecommons.org/licenses/by/3.0/",
    data_description_uri="https://doi.org/10.7937/K9",
    third_party_analysis=True,
)
INSTANCE = Instance("1.2.3", "1.2.3.4", "2019-02-25", instance_number=-7, size=2**62, estimate=5)
FILES = inode_of("tcia", SERIES)  # the directory of its instances
EVERY_RECORD = [
    COLLECTION,
    PATIENT,
    STUDY,
    Study("C", "P", "1"),
    SERIES,
    Series("C", "P", "1", "2"),
    INSTANCE,
    Instance("2", "3", ""),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "catalog.sqlite"


def opened(path, layout=Layout.DESCRIPTIVE):
    return closing(Store.open(path, "tcia", layout))


def instances(count):
    return [Instance("1.2.3", f"1.{n}", "2019-02-25", instance_number=n) for n in range(1, count + 1)]


def directory_of(record):
    """Return where a record may be listed: what directories stand in does not matter to the store."""
    if not isinstance(record, Instance):
        return 55
    submitted = date.fromisoformat(record.version) if record.version else None
    return inode_of("tcia", Series("C", "P", "1", record.series_instance_uid, submitted=submitted))


async def names(store, parent=ROOT_INODE):
    return [name for name, _ in await store.children(parent)]


@pytest.mark.parametrize("record", EVERY_RECORD, ids=repr)
async def test_a_record_comes_back_with_every_field_and_survives_reopening(path, record):
    parent = directory_of(record)
    with opened(path) as store:
        await store.replace({parent: [record]}, 1.5)
        inode = store.inode_of(record)
    with opened(path) as store:
        node = await store.node(inode)
        ((name, child),) = await store.children(parent)
        assert node == child == Node(inode, parent, node.kind, record)
        assert node.kind.name.title() == type(record).__name__
        assert inode == inode_of("tcia", record)
        assert await store.child(parent, name) == Found(child, is_alias=False)
        assert await store.name_of(node) == name
        assert await store.listed_at(parent) == 1.5


async def test_the_root_is_there_in_an_empty_store_and_nothing_else_is(path):
    with opened(path) as store:
        assert await store.node(ROOT_INODE) == ROOT
        assert (ROOT.kind, ROOT.record, ROOT.parent) == (Kind.ROOT, None, ROOT_INODE)
        assert await store.node(12_345) is None
        assert await store.listed_at(ROOT_INODE) is None
        assert await store.children(ROOT_INODE) == []
        assert await store.child(ROOT_INODE, "LIDC-IDRI") is None
        assert await store.name_of(ROOT) is None


async def test_names_come_in_order_whatever_the_order_of_the_records(path):
    wanted = ["Alpha", "alpha beta", "beta", "Ära", "é"]
    with opened(path) as store:
        await store.replace({ROOT_INODE: [Collection(name) for name in reversed(wanted)]}, 1)
        assert await names(store) == wanted


async def test_files_are_in_slice_order(path):
    with opened(path) as store:
        await store.replace({FILES: list(reversed(instances(12)))}, 1)
        found = await store.children(FILES)
    assert [name for name, _ in found] == [f"1-{n:03}.dcm" for n in range(1, 13)]
    assert [node.record.instance_number for _, node in found] == list(range(1, 13))


async def test_a_uid_is_found_as_an_alias_and_not_listed(path):
    with opened(path) as store:
        await store.replace({55: [STUDY], 56: [SERIES], FILES: [INSTANCE]}, 1)
        for parent, alias in ((55, "1.2"), (56, "1.2.3"), (FILES, "1.2.3.4.dcm")):
            ((shown, node),) = await store.children(parent)
            assert shown != alias
            assert await store.child(parent, alias) == Found(node, is_alias=True)
            assert await store.child(parent, shown) == Found(node, is_alias=False)
            assert await store.name_of(node) == shown
        assert await store.child(55, "1.2.3") is None
        assert await store.child(56, "1.2") is None


async def test_under_the_uid_layout_the_uid_is_the_shown_name(path):
    with opened(path, Layout.UID) as store:
        await store.replace({55: [STUDY]}, 1)
        assert await names(store, 55) == ["1.2"]
        assert not (await store.child(55, "1.2")).is_alias


async def test_another_layout_names_what_the_first_one_listed(path):
    with opened(path) as store:
        await store.replace({55: [STUDY], 56: [SERIES], FILES: instances(3)}, 7)
        described = [await names(store, parent) for parent in (55, 56, FILES)]
    with opened(path, Layout.UID) as store:
        assert await names(store, 55) == ["1.2"]
        assert (await store.child(56, "1.2.3")).node.record == SERIES  # looked up before it was listed
        assert await names(store, FILES) == ["1.1.dcm", "1.2.dcm", "1.3.dcm"]
        assert await store.listed_at(FILES) == 7
    with opened(path, Layout.RETRIEVER) as store:
        assert await store.child(FILES, "1-1.dcm") is not None
        assert await store.child(FILES, "1-001.dcm") is None
        assert await store.child(FILES, "1.1.dcm") == Found(
            (await store.child(FILES, "1-1.dcm")).node, is_alias=True
        )
    with opened(path) as store:
        assert [await names(store, parent) for parent in (55, 56, FILES)] == described


async def test_a_listing_that_is_replaced_loses_its_names_under_every_layout(path):
    gone, stays = Study("C", "P", "1.7"), Study("C", "P", "1.8")
    with opened(path, Layout.UID) as uids, opened(path) as store:
        await store.replace({55: [gone, stays]}, 1)
        assert await names(uids, 55) == ["1.7", "1.8"]
        await store.replace({55: [stays]}, 2)
        assert await names(uids, 55) == ["1.8"]
        assert await store.child(55, "1.7") is None
        assert len(await names(store, 55)) == 1
        assert await store.listed_at(55) == 2
        # Whoever has it open still reads it.
        node = await store.node(store.inode_of(gone))
        assert node.record == gone
        assert await store.name_of(node) is None


async def test_replacing_one_directory_leaves_the_others_alone(path):
    with opened(path) as store:
        await store.replace({55: [Patient("C", "a")], 56: [Patient("D", "b")]}, 1)
        await store.replace({55: [Patient("C", "c")]}, 2)
        assert (await names(store, 55), await names(store, 56)) == (["c"], ["b"])
        assert (await store.listed_at(55), await store.listed_at(56)) == (2, 1)


async def test_what_is_said_anew_of_a_record_replaces_what_was_said(path):
    changed = Study("LIDC-IDRI", "LIDC-0001", "1.2", series_count=9)
    with opened(path) as store:
        await store.replace({55: [STUDY]}, 1)
        await store.replace({55: [changed]}, 2)
        assert (await store.node(store.inode_of(STUDY))).record == changed


async def test_nodes_never_listed_are_told_from_those_that_were(path):
    first, second = Series("C", "P", "1", "2"), Series("C", "P", "1", "3")
    with opened(path) as store:
        await store.replace({55: [first, second]}, 1)
        assert {node.record for node in await store.unlisted(55)} == {first, second}
        assert len(await store.unlisted(55)) == 2
        await store.replace({store.inode_of(first): [INSTANCE]}, 1)
        assert [node.record for node in await store.unlisted(55)] == [second]


@pytest.mark.parametrize("is_of_this_series", [True, False])
async def test_two_files_with_one_inode_number_are_refused_and_nothing_changes(
    path, monkeypatch, is_of_this_series
):
    """No archive is known to have such: the numbers are made to be equal."""
    same = Instance("1.2.3", "1.99", "2019-02-25")
    other = same if is_of_this_series else Instance("9.9", "9.9.9", "2001-01-01")
    elsewhere = FILES if is_of_this_series else FILES + 1

    def equal(archive, instances):
        return inodes_of(archive, [INSTANCE if each == other else each for each in instances])

    monkeypatch.setattr("tciafs.catalog.files.inodes_of", equal)
    with opened(path) as store:
        await store.replace({elsewhere: [other]}, 1)
        before = await store.children(elsewhere)
        with pytest.raises(RuntimeError, match="the same inode number"):
            await store.replace({54: [PATIENT], FILES: [*instances(2), INSTANCE]}, 2)
        assert await store.children(elsewhere) == before
        assert await store.listed_at(54) is None
        assert await store.listed_at(elsewhere) == 1
        assert (await store.node(store.inode_of(INSTANCE))).record == other


async def test_two_directories_with_one_inode_number_are_refused_and_nothing_changes(path, monkeypatch):
    monkeypatch.setattr("tciafs.catalog.directories.inode_of", lambda archive, record: 4711)
    with opened(path) as store:
        await store.replace({55: [STUDY]}, 1)
        with pytest.raises(RuntimeError, match="the same inode number"):
            await store.replace({54: [PATIENT], 56: [SERIES]}, 2)
        assert await store.listed_at(54) is None
        assert [node.record for _, node in await store.children(55)] == [STUDY]


async def test_files_of_two_series_are_never_listed_together(path):
    with opened(path) as store:
        with pytest.raises(RuntimeError, match="another series"):
            await store.replace({FILES: [INSTANCE, Instance("1.2.3", "1.7", "2020-01-01")]}, 1)
        assert await store.listed_at(FILES) is None


async def test_a_series_filed_under_another_patient_takes_its_instances_along(path):
    moved = inode_of("tcia", Series("C", "P", "1", "1.2.3", submitted=SERIES.submitted))
    assert moved != FILES
    for first, second in ((FILES, moved), (moved, FILES)):
        with opened(path.with_name(f"{first}")) as store:
            await store.replace({first: [INSTANCE]}, 1)
            await store.replace({second: [INSTANCE]}, 2)
            node = await store.node(store.inode_of(INSTANCE))
            assert node.parent == second
            for parent in (first, second):
                ((_, child),) = await store.children(parent)
                assert (child.inode, child.record) == (node.inode, INSTANCE)


async def test_a_file_that_is_listed_no_more_is_known_to_who_has_it_open(path):
    gone, *stay = instances(3)
    with opened(path) as store:
        await store.replace({FILES: [gone, *stay]}, 1)
        for moment in (2, 3):
            await store.replace({FILES: stay}, moment)
            node = await store.node(store.inode_of(gone))
            assert node.record == gone
            assert await store.name_of(node) is None
            assert await store.child(FILES, f"{gone.sop_instance_uid}.dcm") is None
        await store.replace({FILES: [gone, *stay]}, 4)
        assert len(await names(store, FILES)) == 3
        assert await store.name_of(node) is not None


async def test_what_expires_where_a_series_is_filed_now_does_not_bring_back_where_it_was(path):
    moved = inode_of("tcia", Series("C", "P", "1", "1.2.3", submitted=SERIES.submitted))
    with opened(path) as store:
        await store.replace({FILES: [INSTANCE]}, 1)
        await store.replace({moved: [INSTANCE]}, 2)
        await store.write(lambda db: expire(db, [moved]))
        assert await store.listed_at(moved) == 0
        assert (await store.node(store.inode_of(INSTANCE))).parent == moved


def put_now(store, listings, listed_at):
    """Put listings from another mount while this thread does something else, if it may."""
    connection = store.database._connection
    connection.execute("PRAGMA busy_timeout = 0")
    with suppress(sqlite3.OperationalError), connection:
        connection.execute("BEGIN IMMEDIATE")
        for parent, records in listings.items():
            store.replace_one(connection, parent, records, listed_at, Put())


async def test_two_mounts_that_list_one_series_at_once_do_not_take_that_for_damage(path, monkeypatch):
    with opened(path) as ours, opened(path) as theirs:
        listing = ours._files.listing

        def meanwhile(db, series):
            found = listing(db, series)
            put_now(theirs, {FILES: instances(2)}, 2)
            return found

        monkeypatch.setattr(ours._files, "listing", meanwhile)
        await ours.replace({FILES: instances(3)}, 1)
        assert len(await ours.children(FILES)) in (2, 3)
        assert ours.generation == 0


async def test_what_is_read_while_another_mount_writes_is_of_one_moment(path, monkeypatch):
    with opened(path) as theirs:
        await theirs.replace({55: [PATIENT]}, 1)
        with opened(path) as ours:
            left = [None]  # once

            def meanwhile(db, parent, layout):
                if left:
                    left.pop()
                    put_now(theirs, {55: [PATIENT, Patient("LIDC-IDRI", "LIDC-0002")]}, 2)
                return digest_of_names(db, parent, layout)

            monkeypatch.setattr("tciafs.catalog.directories.digest_of_names", meanwhile)
            assert await names(ours, 55) == ["LIDC-0001"]
            assert ours.generation == 0
            assert await names(ours, 55) == ["LIDC-0001", "LIDC-0002"]


async def test_a_layout_that_could_not_be_named_on_a_full_disk_is_not_taken_for_an_empty_directory(
    path, monkeypatch
):
    with opened(path) as store:
        await store.replace({55: [PATIENT], store.inode_of(PATIENT): [STUDY]}, 1)
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    with opened(path, Layout.UID) as store:
        directory = Node(55, 1, Kind.COLLECTION, COLLECTION)
        left: list[None] = []

        def insert(*names):
            if not left:
                raise full
            left.pop()
            insert_names(*names)

        monkeypatch.setattr("tciafs.catalog.directories.insert_names", insert)
        for room in (0, 1, 9):
            left[:] = [None] * room
            with suppress(Unwritable):
                await store.listings(directory, 100)
        found = await store.listings(directory, 100)
        assert [[name for name, _ in each.entries] for each in found] == [["LIDC-0001"], ["1.2"]]


async def test_what_changed_is_told_though_another_layout_has_listed_it_meanwhile(path):
    both = [Patient("C", "a"), Patient("C", "b")]
    with opened(path) as ours, opened(path, Layout.UID) as theirs:
        await ours.replace({55: both}, 1)
        assert await names(ours, 55) == ["a", "b"]
        await theirs.replace({55: both}, 2)
        told: list[Put] = []
        await ours.replace({55: both[:1]}, 3, told.append)
        assert list(told[0].changed[55].gone) == ["b"]


async def test_an_expired_directory_that_another_layout_lists_anew_is_not_empty(path):
    with opened(path) as ours, opened(path, Layout.UID) as theirs:
        await ours.replace({55: [PATIENT]}, 0)
        assert await names(ours, 55) == ["LIDC-0001"]
        await theirs.replace({55: [PATIENT]}, 0)
        assert await names(ours, 55) == ["LIDC-0001"]


async def test_a_record_listed_twice_is_one(path):
    with opened(path) as store:
        await store.replace({55: [PATIENT, PATIENT]}, 1)
        assert await names(store, 55) == ["LIDC-0001"]


async def test_each_archive_has_inode_numbers_of_its_own(tmp_path):
    with opened(tmp_path / "a") as store, closing(Store.open(tmp_path / "b", "nlst", Layout.UID)) as other:
        assert store.inode_of(PATIENT) != other.inode_of(PATIENT)


async def test_ten_thousand_instances_are_put_and_read_in_a_moment(path):
    wanted = instances(10_000)
    with opened(path) as store:
        for moment in (1, 2):  # the second time every row is there already
            start = time.monotonic()
            await store.replace({FILES: wanted}, moment)
            assert time.monotonic() - start < 3
        start = time.monotonic()
        found = await store.children(FILES)
        assert time.monotonic() - start < 1
        assert [node.record for _, node in found] == wanted
        assert found[-1][0] == "1-10000.dcm"
    with opened(path, Layout.UID) as store:
        start = time.monotonic()
        assert len(await store.children(FILES)) == 10_000
        assert time.monotonic() - start < 3


@pytest.mark.alarming
def test_a_bit_that_flips_on_disk_is_never_shown_as_news(tmp_path, path):
    records = sorted(instances(40), key=sop_uid)
    trio.run(put_listing, path, records)
    whole = path.read_bytes()
    ends = []
    for number, place in enumerate(random.Random(1).sample(range(len(whole)), 300)):
        flipped = tmp_path / f"{number}.sqlite"
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :])
        ends.append(trio.run(get_listing, flipped))
    assert set(map(str, ends)) == {"lost", "never listed", str(records)}


async def put_listing(path, records):
    with opened(path) as store:
        await store.replace({FILES: records}, 1)


async def get_listing(path):
    with opened(path) as store:
        try:
            if await store.listed_at(FILES) is None:
                return "never listed"
            listed = await store.children(FILES)
            for name, node in listed:
                assert (await store.child(FILES, name)).node == node
                assert await store.node(node.inode) == node
                assert await store.child(FILES, f"{node.record.sop_instance_uid}.dcm")
            return sorted((node.record for _, node in listed), key=sop_uid)
        except Lost:
            return "lost"


def sop_uid(record):
    return record.sop_instance_uid
