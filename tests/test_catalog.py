"""Listings asked for once however many look, believed only when complete, and renewed behind."""

import time
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import trio
import trio.testing

from tciafs.archives.base import ArchiveError, BadAnswer, Overdue, Unavailable
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.difference import Put
from tciafs.catalog.freshness import Freshness
from tciafs.catalog.lately import Lately
from tciafs.catalog.rows import ROOT, Listing, Node
from tciafs.catalog.store import Store
from tciafs.database import Database
from tciafs.model import Collection, Instance, Kind, Patient, Series, Study
from tciafs.names import Layout
from tests.archive import start_archive

COLLECTIONS, PATIENTS = "v4/getCollectionValues", "v4/getPatient"
STUDIES, SERIES = "v4/getPatientStudy", "v4/getSeries"
SEARCH, UIDS = "v4/getSimpleSearch", "v4/getSOPInstanceUIDs"
DRILL_DOWNS = ("getImageDrillDown", "v4/getImageDrillDown")
EXPIRED = Freshness(0, 0, 0, deadline=5)
DAY = 24 * 3600


@pytest.fixture(scope="module")
def edited_archive():
    """Serve the sample data, and what the tests of this module add to them."""
    with start_archive() as archive:
        yield archive


@asynccontextmanager
async def over(archive, room, freshness=None, layout=Layout.DESCRIPTIVE):
    with closing(Store.open(room / "catalog.sqlite", "test", layout)) as store:
        async with trio.open_nursery() as nursery:
            catalog = Catalog(archive, store, nursery, freshness)
            yield catalog
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def looking(room, archive, freshness=None, layout=Layout.DESCRIPTIVE):
    """Wire a catalog to the embedded archive as a mount does."""
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(room / "capabilities.json"))
        async with over(nbia, room, freshness, layout) as catalog:
            yield catalog


async def listed(catalog, node):
    await catalog.age(node)
    return [child for _, child in await catalog.entries(node)]


async def child(catalog, node, name):
    found, _ = await catalog.child(node, name)
    assert found is not None, name
    return found.node


async def walk(catalog, *names):
    """Return the node of a path below the root."""
    node = ROOT
    for name in names:
        node = await child(catalog, node, name)
    return node


async def first_series(catalog, *names):
    """Return the first series of the first study of a patient."""
    (study, *_) = await listed(catalog, await walk(catalog, *names))
    return (await listed(catalog, study))[0]


async def largest_series(catalog):
    """Return the CT phantom, of 120 slices."""
    (study,) = await listed(catalog, await walk(catalog, "Demo-CT", "PHANTOM-01"))
    return max(await listed(catalog, study), key=lambda node: node.record.image_count)


async def until(condition, seconds=5.0):
    with trio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 (nothing else tells)
            await trio.sleep(0.02)


async def at_rest(catalog):
    """Wait until no request is under way."""
    await until(lambda: idle(catalog))


async def idle(catalog):
    return not len(catalog._flights)


def rule(do, endpoint="*", **more):
    return {"do": do, "endpoint": endpoint, **more}


# Requests are counted by the archive.


async def test_many_who_look_at_once_cost_one_request(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        for names in ((), ("Demo-CT",), ("Demo-CT", "98890234")):
            node = await walk(catalog, *names)
            archive.reset()
            archive.faults(latency_ms=50)
            async with trio.open_nursery() as lookers:
                for _ in range(50):
                    lookers.start_soon(catalog.age, node)
            assert sum(archive.requests().values()) == 1


async def test_many_who_look_at_the_studies_of_a_patient_at_once_cost_one_request_for_their_series(
    tmp_path, archive
):
    async with looking(tmp_path, archive) as catalog:
        studies = await listed(catalog, await walk(catalog, "Demo MR", "98890234"))
        assert len(studies) == 3
        archive.reset()
        async with trio.open_nursery() as lookers:
            for study in studies * 10:
                lookers.start_soon(catalog.age, study)
        assert archive.requests() == {SERIES: 1}


async def test_each_level_costs_what_it_should_and_the_second_look_nothing(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        await listed(catalog, ROOT)
        assert archive.requests() == {COLLECTIONS: 1}
        collection = await walk(catalog, "Demo MR")
        await listed(catalog, collection)
        assert archive.requests() == {COLLECTIONS: 1, PATIENTS: 1}
        archive.reset()
        studies = await listed(catalog, await walk(catalog, "Demo MR", "98890234"))
        all_series = [await listed(catalog, study) for study in studies]
        assert sum(archive.requests().values()) <= 3
        assert sorted(map(len, all_series)) == [2, 2, 3]
        first, *_, other = max(all_series, key=len)
        archive.reset()
        assert len(await listed(catalog, first)) == first.record.image_count
        assert 1 <= sum(archive.requests().values()) <= 2
        archive.reset()
        assert len(await listed(catalog, other)) == other.record.image_count
        for node in (ROOT, collection, first, other):
            await listed(catalog, node)
            assert (await catalog.child(node, "nobody"))[0] is None
        assert archive.requests() == {}


async def test_after_reopening_nothing_is_asked_even_under_another_layout(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        series = await first_series(catalog, "Demo-CT", "98890234")
        before = await listed(catalog, series)
    archive.reset()
    for layout in (Layout.DESCRIPTIVE, Layout.UID):
        async with looking(tmp_path, archive, layout=layout) as catalog:
            assert await first_series(catalog, "Demo-CT", "98890234") in await listed(
                catalog, await catalog.node(series.parent)
            )
            assert {node.inode for node in await listed(catalog, series)} == {node.inode for node in before}
    assert archive.requests() == {}


async def test_after_reopening_what_is_on_disk_is_not_asked_again_with_a_batch(tmp_path, own_archive):
    async with looking(tmp_path, own_archive) as catalog:
        series = await first_series(catalog, "Demo MR", "98890234")
        await listed(catalog, series)
        study = await catalog.node(series.parent)
    own_archive.edit(
        synthetic={
            "collection": "Demo MR",
            "patient_id": "98890234",
            "study_instance_uid": study.record.study_instance_uid,
        }
    )
    async with looking(tmp_path, own_archive, Freshness(listings=0)) as catalog:
        await catalog.age(await catalog.node(study.parent))
        await catalog.age(study)
        await at_rest(catalog)
        new = next(n for n in await listed(catalog, study) if "2.25." in n.record.series_instance_uid)
        await at_rest(catalog)
        own_archive.reset()
        assert len(await listed(catalog, new)) == 1
        asked = " ".join(own_archive.log())
        assert new.record.series_instance_uid in asked
        assert series.record.series_instance_uid not in asked


async def test_names_that_can_never_exist_cost_no_request(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        series = await first_series(catalog, "Demo-CT", "98890234")
        archive.reset()
        for node, name in (
            (ROOT, "a:b"),
            (ROOT, ".hidden"),
            (ROOT, "\udcff"),
            (series, "Thumbs.db"),
            (series, "autorun.inf"),
        ):
            found, seconds = await catalog.child(node, name)
            assert (found, seconds > 0) == (None, True), name
        assert archive.requests() == {}
        # Of these only a listing can tell.
        assert (await catalog.child(series, "no such.dcm"))[0] is None
        assert archive.requests() != {}


# Freshness.


async def test_a_listing_tells_when_it_was_made_and_when_it_expires(tmp_path, archive):
    freshness = Freshness(collections=1000, listings=200, instances=30)
    async with looking(tmp_path, archive, freshness) as catalog:
        series = await first_series(catalog, "Demo-CT", "98890234")
        study = await catalog.node(series.parent)
        patient = await catalog.node(study.parent)
        for node, seconds in ((ROOT, 1000), (patient, 200), (study, 200), (series, 30)):
            age = await catalog.age(node)
            assert age.listed_at == pytest.approx(time.time(), abs=10)
            assert age.expires_in == pytest.approx(seconds, abs=10)


async def test_an_expired_listing_is_given_at_once_and_renewed_behind_by_one_request(tmp_path, archive):
    async with looking(tmp_path, archive, EXPIRED) as catalog:
        before = await catalog.age(ROOT)
        archive.faults(latency_ms=400)
        start = trio.current_time()
        for _ in range(20):
            age = await catalog.age(ROOT)
            assert age.listed_at == before.listed_at
            assert age.expires_in < 0
            assert len(await catalog.entries(ROOT)) == 3
        assert trio.current_time() - start < 0.35
        await at_rest(catalog)
        assert archive.requests() == {COLLECTIONS: 2}
        archive.faults(latency_ms=400)
        assert (await catalog.age(ROOT)).listed_at > before.listed_at


async def test_what_is_new_is_shown_after_the_renewal(tmp_path, edited_archive):
    async with looking(tmp_path, edited_archive, EXPIRED) as catalog:
        assert (await catalog.child(ROOT, "Brand New"))[0] is None
        await at_rest(catalog)
        edited_archive.edit(synthetic={"collection": "Brand New", "patient_id": "p"})
        await catalog.age(ROOT)
        await at_rest(catalog)
        assert (await catalog.child(ROOT, "Brand New"))[0] is not None


async def test_a_renewal_that_fails_keeps_the_old_listing_and_pauses(tmp_path, archive):
    async with looking(tmp_path, archive, replace(EXPIRED, pause=0.5)) as catalog:
        before = await listed(catalog, ROOT)
        await at_rest(catalog)
        archive.reset()
        archive.faults(rules=[rule("html", COLLECTIONS)])
        await catalog.age(ROOT)
        await at_rest(catalog)
        failed = archive.requests()[COLLECTIONS]
        for _ in range(20):
            assert await listed(catalog, ROOT) == before
        await at_rest(catalog)
        assert archive.requests() == {COLLECTIONS: failed}
        archive.faults()
        await trio.sleep(0.55)
        old = await catalog.age(ROOT)
        await at_rest(catalog)
        assert archive.requests() == {COLLECTIONS: failed + 1}
        assert (await catalog.age(ROOT)).listed_at > old.listed_at


async def test_a_listing_made_under_a_clock_that_went_wrong_counts_as_expired(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        await catalog._store.replace({1: [Collection("from the future")]}, time.time() + 1000 * DAY)
        found, seconds = await catalog.child(ROOT, "Demo-CT")
        assert found is None
        assert seconds < 0
        await at_rest(catalog)
        assert (await catalog.child(ROOT, "Demo-CT"))[0] is not None
        assert (await catalog.age(ROOT)).expires_in == pytest.approx(DAY, abs=10)


async def test_absence_holds_for_a_while_only_where_the_listing_is_fresh(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        found, seconds = await catalog.child(ROOT, "Nobody")
        assert found is None
        assert 0 < seconds <= DAY
    async with looking(tmp_path, archive, EXPIRED) as catalog:
        found, seconds = await catalog.child(ROOT, "Nobody")
        assert found is None
        assert seconds < 0
        await at_rest(catalog)


async def test_a_series_submitted_again_has_new_inodes_after_the_renewal(tmp_path, edited_archive):
    (uid,) = edited_archive.edit(synthetic={"collection": "Again", "patient_id": "p", "series_of": 2})
    async with looking(tmp_path, edited_archive, EXPIRED) as catalog:
        series = await first_series(catalog, "Again", "p")
        before = await listed(catalog, series)
        study = await catalog.node(series.parent)
        await at_rest(catalog)
        edited_archive.edit(series=uid, submitted="2024-05-17")
        await catalog.age(study)
        await at_rest(catalog)
        (again,) = await listed(catalog, study)
        after = await listed(catalog, again)
        assert again.inode != series.inode
        assert again.record.submitted == date(2024, 5, 17)
        assert not {n.inode for n in before} & {n.inode for n in after}
        assert {n.record.version for n in after} == {"2024-05-17"}
        assert await catalog.node(before[0].inode) == before[0]  # an open file keeps what it has
        assert await catalog.name_of(series) is None
        assert await catalog.name_of(again) is not None


# Failures.


async def test_a_listing_never_seen_of_an_archive_that_is_gone_fails_quickly(tmp_path, own_archive):
    async with looking(tmp_path, own_archive) as catalog:
        collection = await walk(catalog, "Demo-CT")
        own_archive.stop()
        start = trio.current_time()
        with pytest.raises(Unavailable):
            await catalog.age(collection)
        assert trio.current_time() - start < 3
        assert len(await listed(catalog, ROOT)) == 3


async def test_a_silent_archive_is_overdue_in_time_and_whoever_asks_next_joins_the_request(tmp_path, archive):
    async with looking(tmp_path, archive, Freshness(deadline=2)) as catalog:
        archive.faults(rules=[rule("delay", COLLECTIONS, ms=3500)])
        start = trio.current_time()
        with pytest.raises(Overdue, match="the list of collections: no answer within 2 s"):
            await catalog.age(ROOT)
        assert 1.9 < trio.current_time() - start < 3
        assert (await catalog.age(ROOT)).expires_in > 0
        assert trio.current_time() - start < 4.5
        assert archive.requests() == {COLLECTIONS: 1}


async def test_whoever_stops_waiting_costs_the_others_nothing(tmp_path, archive):
    archive.faults(latency_ms=300)
    async with looking(tmp_path, archive) as catalog:
        with trio.move_on_after(0.1) as scope:
            await catalog.age(ROOT)
        assert scope.cancelled_caught
        await catalog.age(ROOT)
        assert archive.requests() == {COLLECTIONS: 1}


LEVELS = [COLLECTIONS, PATIENTS, STUDIES, SERIES]


async def node_above(catalog, endpoint):
    """Return the directory that is listed by this endpoint."""
    depth = LEVELS.index(endpoint) if endpoint in LEVELS else 4
    if depth < 3:
        return await walk(catalog, *("Demo-CT", "98890234")[:depth])
    study = (await listed(catalog, await walk(catalog, "Demo-CT", "98890234")))[0]
    return study if depth == 3 else (await listed(catalog, study))[0]


@pytest.mark.parametrize("endpoint", [*LEVELS, *DRILL_DOWNS])
@pytest.mark.parametrize("body", ["", "[]"])
async def test_an_empty_listing_is_a_failure_and_never_believed(tmp_path, archive, endpoint, body):
    name = endpoint.rpartition("/")[2]
    empty = [rule("status", name, status=200, body=body, content_type="application/json")]
    async with looking(tmp_path, archive) as catalog:
        node = await node_above(catalog, endpoint)
        archive.faults(rules=empty)
        with pytest.raises(BadAnswer):
            await catalog.age(node)
        assert await catalog.entries(node) == []
        archive.faults()
        wanted = await listed(catalog, node)
        assert wanted
    async with looking(tmp_path, archive, EXPIRED) as catalog:
        archive.reset()
        archive.faults(rules=empty)
        await catalog.age(node)
        await at_rest(catalog)
        assert any(asked.endswith(name) for asked in archive.requests())
        assert [n for _, n in await catalog.entries(node)] == wanted


@pytest.mark.parametrize("do", ["html", "malformed", "cut", "status"])
async def test_an_answer_that_is_none_is_a_failure_and_the_next_look_asks_again(tmp_path, archive, do):
    async with looking(tmp_path, archive) as catalog:
        archive.faults(rules=[rule(do, COLLECTIONS)])
        with pytest.raises(ArchiveError):
            await catalog.age(ROOT)
        archive.faults()
        assert len(await listed(catalog, ROOT)) == 3


async def test_fewer_series_than_promised_are_asked_for_again_with_the_studies(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        studies = await listed(catalog, await walk(catalog, "Demo MR", "98890234"))
        archive.reset()
        archive.faults(rules=[rule("empty", SERIES, times=1)])
        assert len(await listed(catalog, studies[0])) == studies[0].record.series_count
        assert archive.requests() == {SERIES: 2, STUDIES: 1}
        assert sorted([len(await listed(catalog, study)) for study in studies]) == [2, 2, 3]
        assert archive.requests() == {SERIES: 2, STUDIES: 1}


async def test_a_study_that_lost_a_series_since_it_was_listed_is_listed_anew(tmp_path, own_archive):
    async with looking(tmp_path, own_archive) as catalog:
        studies = await listed(catalog, await walk(catalog, "Demo MR", "98890234"))
        study = next(node for node in studies if node.record.series_count == 2)
    hidden = next(
        s
        for s in (await series_of(own_archive, "Demo MR", "98890234"))
        if s.study_instance_uid == study.record.study_instance_uid
    )
    own_archive.edit(hide_series=hidden.series_instance_uid)
    async with looking(tmp_path, own_archive) as catalog:
        (left,) = await listed(catalog, study)
        assert left.record.series_instance_uid != hidden.series_instance_uid
        assert (await catalog.node(study.inode)).record.series_count == 1


async def series_of(archive, collection, patient_id):
    async with Http.connect(archive.url) as http:
        return await NBIA("x", http, Capabilities(Path("/nonexistent/capabilities"))).get_series(
            collection, patient_id
        )


async def test_a_study_that_stays_short_fails_and_the_patients_other_studies_do_not(tmp_path):
    scripted = Scripted()
    scripted.studies = [replace(STUDY, series_count=2), OTHER_STUDY]
    scripted.series = [one_series("s1"), replace(one_series("s2"), study_instance_uid="9.2")]
    async with over(scripted, tmp_path) as catalog:
        short, whole = await listed(catalog, await walk(catalog, "C", "P"))
        with pytest.raises(BadAnswer, match="fewer series came than the study's 2"):
            await catalog.age(short)
        assert scripted.asked.count("series C P") == 2
        assert scripted.asked.count("studies C P") == 2
        assert [n.record.series_instance_uid for n in await listed(catalog, whole)] == ["s2"]
        assert scripted.asked.count("series C P") == 2
        assert await catalog.entries(short) == []


async def test_a_short_study_does_not_fail_those_who_joined_its_request(tmp_path):
    scripted = Scripted()
    scripted.studies = [replace(STUDY, series_count=2), OTHER_STUDY]
    scripted.series = [one_series("s1"), replace(one_series("s2"), study_instance_uid="9.2")]
    async with over(scripted, tmp_path) as catalog:
        short, whole = await listed(catalog, await walk(catalog, "C", "P"))
        scripted.seconds = 0.2
        async with trio.open_nursery() as lookers:

            async def fail():
                with pytest.raises(BadAnswer):
                    await catalog.age(short)

            lookers.start_soon(fail)
            await trio.sleep(0.1)
            assert len(await listed(catalog, whole)) == 1


async def test_a_study_of_which_nobody_counts_the_series_is_not_empty_either(tmp_path):
    scripted = Scripted()
    scripted.studies = [STUDY, OTHER_STUDY]
    async with over(scripted, tmp_path) as catalog:
        whole, empty = await listed(catalog, await walk(catalog, "C", "P"))
        assert len(await listed(catalog, whole)) == 1
        with pytest.raises(BadAnswer):
            await catalog.age(empty)


async def test_the_studies_stay_when_the_archive_no_longer_lists_any(tmp_path):
    scripted = Scripted()
    scripted.studies = [replace(STUDY, series_count=2)]
    scripted.series = [one_series("s1")]
    async with over(scripted, tmp_path) as catalog:
        patient = await walk(catalog, "C", "P")
        (study,) = await listed(catalog, patient)
        scripted.studies = []
        with pytest.raises(BadAnswer):
            await catalog.age(study)
        assert await listed(catalog, patient) == [study]


async def test_two_requests_for_one_listing_share_one_deadline(tmp_path):
    scripted = Scripted()
    scripted.studies = [STUDY, replace(OTHER_STUDY, series_count=2)]
    scripted.series = [one_series("s1"), replace(one_series("s2"), study_instance_uid="9.2")]
    async with over(scripted, tmp_path, Freshness(deadline=0.9)) as catalog:
        whole, short = await listed(catalog, await walk(catalog, "C", "P"))
        scripted.seconds = 0.6
        async with trio.open_nursery() as lookers:
            lookers.start_soon(catalog.age, whole)
            await trio.sleep(0.05)
            start = trio.current_time()
            with pytest.raises(Overdue):  # the first request lists it not, so it needs one of its own
                await catalog.age(short)
            assert 0.85 < trio.current_time() - start < 1.2


async def test_a_series_that_disagrees_with_its_image_count_is_asked_twice_and_then_believed(
    tmp_path, archive
):
    async with looking(tmp_path, archive) as catalog:
        series = await largest_series(catalog)
        archive.reset()
        archive.faults(rules=[rule("short", endpoint, match="list=") for endpoint in DRILL_DOWNS])
        found = await listed(catalog, series)
        assert 0 < len(found) < series.record.image_count
        assert archive.requests()[SEARCH] == 2
        archive.reset()
        assert await listed(catalog, series) == found
        assert archive.requests() == {}


async def test_a_series_that_was_short_once_is_listed_whole(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        series = await largest_series(catalog)
        archive.faults(rules=[rule("short", "getImageDrillDown", times=1)])
        assert len(await listed(catalog, series)) == series.record.image_count


async def test_a_series_that_failed_with_the_batch_is_asked_for_alone(tmp_path):
    scripted = Scripted()
    wanted, other = one_series("s1", 2), one_series("s2", 3)
    scripted.studies, scripted.series = [replace(STUDY, series_count=2)], [wanted, other]
    scripted.answers = [
        {"s1": BadAnswer("no"), "s2": images_of(other)},
        {"s1": images_of(wanted)},
    ]
    async with over(scripted, tmp_path) as catalog:
        first = await scripted_series(catalog, "s1")
        assert len(await listed(catalog, first)) == 2
        assert scripted.batches == [["s1", "s2"], ["s1"]]
        second = await scripted_series(catalog, "s2")
        assert len(await listed(catalog, second)) == 3
        assert len(scripted.batches) == 2


async def test_a_series_that_fails_alone_as_well_is_a_failure_of_its_own(tmp_path):
    scripted = Scripted()
    wanted, other = one_series("s1", 2), one_series("s2", 3)
    scripted.studies, scripted.series = [replace(STUDY, series_count=2)], [wanted, other]
    scripted.answers = [
        {"s1": BadAnswer("no"), "s2": images_of(other)},
        {"s1": BadAnswer("never")},
        {"s2": images_of(other)},
    ]
    async with over(scripted, tmp_path) as catalog:
        first = await scripted_series(catalog, "s1")
        with pytest.raises(BadAnswer, match=r"^never$"):
            await catalog.age(first)
        second = await scripted_series(catalog, "s2")
        assert len(await listed(catalog, second)) == 3


@pytest.mark.parametrize(
    "bad", [BadAnswer("no"), [], [Instance("s2", "only one of three", "")]], ids=["error", "none", "short"]
)
async def test_only_whole_listings_are_taken_from_a_batch_for_the_other_series(tmp_path, bad):
    scripted = Scripted()
    wanted, other = one_series("s1", 2), one_series("s2", 3)
    scripted.studies, scripted.series = [replace(STUDY, series_count=2)], [wanted, other]
    scripted.answers = [{"s1": images_of(wanted), "s2": bad}, {"s2": images_of(other)}]
    async with over(scripted, tmp_path) as catalog:
        first = await scripted_series(catalog, "s1")
        assert len(await listed(catalog, first)) == 2
        second = await scripted_series(catalog, "s2")
        assert len(await listed(catalog, second)) == 3
        assert scripted.batches == [["s1", "s2"], ["s2"]]


async def test_a_batch_stays_below_twenty_thousand_images_and_leaves_out_what_does_not_fit(tmp_path):
    scripted = Scripted()
    counts = {"s1": 9_000, "s2": 6_000, "s3": 25_000, "s4": 6_000, "s5": 5_000}
    scripted.studies = [replace(STUDY, series_count=5)]
    scripted.series = [one_series(uid, count) for uid, count in counts.items()]
    async with over(scripted, tmp_path) as catalog:
        with pytest.raises(BadAnswer):
            await catalog.age(await scripted_series(catalog, "s1"))
        asked = scripted.batches[0]
        assert asked[0] == "s1"
        assert len(asked) == len(set(asked)) == 3
        assert "s3" not in asked
        assert sum(counts[uid] for uid in asked) <= 20_000
        with pytest.raises(BadAnswer):
            await catalog.age(await scripted_series(catalog, "s3"))
        assert scripted.batches[-1] == ["s3"]


async def test_without_the_drill_down_instances_are_named_by_their_uids(tmp_path, archive):
    archive.faults(disabled=DRILL_DOWNS)
    async with looking(tmp_path, archive) as catalog:
        series = await first_series(catalog, "Demo-CT", "98890234")
        await catalog.age(series)
        entries = await catalog.entries(series)
        assert len(entries) == series.record.image_count > 1
        assert archive.requests()[UIDS] == 1
        for name, node in entries:
            assert name == f"{node.record.sop_instance_uid}.dcm"
            assert node.record.size is None
            assert node.record.estimate > 0


@pytest.mark.alarming
async def test_a_full_disk_pauses_the_renewals_as_any_failure_does(tmp_path, caplog):
    scripted = Scripted()
    async with over(scripted, tmp_path, EXPIRED) as catalog:
        before = await listed(catalog, ROOT)
        await at_rest(catalog)
        full = "CREATE TRIGGER full BEFORE DELETE ON name BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        await catalog._store.database.run(lambda db: db.execute(full))
        asked = len(scripted.asked)
        for _ in range(10):
            assert await listed(catalog, ROOT) == before
            await at_rest(catalog)
        assert len(scripted.asked) == asked + 1
        assert "disk full" in caplog.text


@pytest.mark.alarming
async def test_a_file_has_no_listing(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        (image, *_) = await listed(catalog, await first_series(catalog, "Demo-CT", "98890234"))
        with pytest.raises(NotADirectoryError):
            await catalog.age(image)


# What an archive may be like.


HOSTILE = ["../..", ".", "a/b", "CON", "x" * 300, " ", "é\u2028\n", "<i>&'\"", "%00", "LICENSE.txt", "ß" * 64]


async def test_hostile_identifiers_are_listed_and_lead_to_their_files(tmp_path, edited_archive):
    edited_archive.edit(synthetic={"collection": "a/../b\n", "patient_ids": HOSTILE})
    async with looking(tmp_path, edited_archive) as catalog:
        (collection,) = (n for n in await listed(catalog, ROOT) if n.record.name.startswith("a/"))
        patients = await listed(catalog, collection)
        assert {node.record.patient_id for node in patients} == set(HOSTILE)
        for patient in patients:
            (study,) = await listed(catalog, patient)
            (series,) = await listed(catalog, study)
            assert series.record.patient_id == patient.record.patient_id
            assert len(await listed(catalog, series)) == 1


async def test_patients_whose_ids_differ_only_in_case_have_their_own_studies(tmp_path, edited_archive):
    lower, upper = edited_archive.edit(synthetic={"collection": "Case", "patient_ids": ["abc", "ABC"]})
    async with looking(tmp_path, edited_archive) as catalog:
        patients = await listed(catalog, await walk(catalog, "Case"))
        assert len(patients) == 2
        for patient in patients:
            (study,) = await listed(catalog, patient)
            (series,) = await listed(catalog, study)
            wanted = lower if patient.record.patient_id == "abc" else upper
            assert series.record.series_instance_uid == wanted


async def test_a_node_knows_its_name_and_is_found_by_number(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        node = await walk(catalog, "Demo-CT", "98890234")
        assert await catalog.node(node.inode) == node
        assert await catalog.name_of(node) == "98890234"
        assert await catalog.node(99) is None


# The end.


async def test_closing_releases_those_who_wait_and_those_who_come_later(tmp_path, archive):
    archive.faults(rules=[rule("stall")])
    released = []
    async with looking(tmp_path, archive) as catalog:

        async def wait():
            with pytest.raises(Unavailable, match="is ending"):
                await catalog.age(ROOT)
            released.append(trio.current_time())

        async with trio.open_nursery() as lookers:
            for _ in range(3):
                lookers.start_soon(wait)
            await until(lambda: asked(archive))
            closed = trio.current_time()
            catalog.close()
            lookers.start_soon(wait)
    assert len(released) == 4
    assert max(released) - closed < 0.5


async def asked(archive):
    return bool(await trio.to_thread.run_sync(archive.requests))


# An archive that says what it is told to.


STUDY, OTHER_STUDY = Study("C", "P", "9.1", study_id="1"), Study("C", "P", "9.2", study_id="2")


def one_series(uid, images=1):
    return Series("C", "P", "9.1", uid, image_count=images)


async def scripted_series(catalog, uid):
    (study,) = await listed(catalog, await walk(catalog, "C", "P"))
    return await child(catalog, study, uid)


def images_of(series):
    return [Instance(series.series_instance_uid, f"i{n}", "") for n in range(series.image_count)]


class Scripted:
    """An archive with one patient, whose studies, series and instances a test decides."""

    name = "scripted"
    has_ranges = False

    def __init__(self):
        self.asked = []
        self.batches = []
        self.seconds = 0.0
        self.studies = [STUDY]
        self.series = [one_series("s1")]
        self.answers = []

    async def _ask(self, what):
        self.asked.append(what)
        await trio.sleep(self.seconds)

    async def get_collections(self):
        await self._ask("collections")
        return [Collection("C")]

    async def confirm_right(self, collection):
        """Refuse nothing: there is no login."""

    async def get_patients(self, collection):
        await self._ask(f"patients {collection}")
        return [Patient(collection, "P")]

    async def get_studies(self, collection, patient_id):
        await self._ask(f"studies {collection} {patient_id}")
        return self.studies

    async def get_series(self, collection, patient_id):
        await self._ask(f"series {collection} {patient_id}")
        return self.series

    async def get_instances(self, wanted, others=()):
        batch = [series.series_instance_uid for series in (wanted, *others)]
        self.batches.append(batch)
        await self._ask("instances")
        return self.answers.pop(0) if self.answers else dict.fromkeys(batch, ())

    def open_instance(self, instance, span=None):
        raise AssertionError("a catalog fetches no bytes")

    async def get_md5(self, instance):
        raise AssertionError("a catalog asks for no digest")


# What was looked at lately is in memory.


async def test_names_and_files_of_a_listed_series_take_no_look_at_the_disk(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        series = await largest_series(catalog)
        await listed(catalog, series)
        entries = await catalog.entries(series)
        catalog._store.close()  # whoever looks at the disk now fails
        for name, node in entries:
            assert (await child(catalog, series, name)) == await catalog.node(node.inode) == node


async def test_what_was_looked_at_lately_is_forgotten_when_a_listing_comes(tmp_path, edited_archive):
    wanted = {"collection": "Shrinks", "patient_id": "A", "study_instance_uid": "2.25.7"}
    uids = edited_archive.edit(synthetic={**wanted, "series": 2, "series_of": 1, "side": 8})
    async with looking(tmp_path, edited_archive) as catalog:
        (study,) = await listed(catalog, await walk(catalog, "Shrinks", "A"))
        before = {node.record.series_instance_uid: node for node in await listed(catalog, study)}
        names = {node.inode: name for name, node in await catalog.entries(study)}
        edited_archive.edit(hide_series=uids[0])
        await catalog.ask_anew(study)
        found = [await catalog.child(study, names[before[uid].inode]) for uid in uids]
        assert [one is None for one, _ in found] == [True, False]


async def test_names_of_a_listing_that_another_mount_has_renewed_are_not_believed():
    listing = Listing(Node(55, 1, Kind.STUDY, None), 1.0, [("a", Node(56, 55, Kind.SERIES, None))])
    for news, is_believed in ((Put(listed={55: 2.0}), False), (Put(expired=[55]), False), (Put(), True)):
        lately = Lately()
        lately.keep_listing(listing, lately.reading)
        assert lately.entries(listing.directory) == listing.entries
        lately.note_put(news)
        assert (lately.entries(listing.directory) is not None) == is_believed
        assert (lately.find(listing.directory, "a") is not None) == is_believed
        reading = lately.reading
        lately.note_put(Put())
        lately.forget()
        lately.keep_listing(listing, reading)  # it was read before the news
        assert lately.entries(listing.directory) is None


@pytest.fixture
def visits(monkeypatch):
    """Return what is done in the thread of the database, as it is asked for."""
    visits: list[object] = []
    run = Database._run

    async def counted(self, work, begin):
        visits.append(work)
        return await run(self, work, begin)

    monkeypatch.setattr(Database, "_run", counted)
    return visits


async def test_a_lookup_in_a_series_reads_all_of_its_names_at_once(tmp_path, archive, visits):
    async with looking(tmp_path, archive) as catalog:
        series = await largest_series(catalog)
        await listed(catalog, series)
        names = [name for name, _ in await catalog.entries(series)]
        catalog._lately._forget_names()
        visits.clear()
        for name in names:
            await child(catalog, series, name)
        assert len(visits) == 1
        assert (await catalog.child(series, "nobody.dcm"))[0] is None
        assert len(visits) == 2


async def test_who_lists_a_patient_finds_what_is_listed_below_in_memory(tmp_path, archive, visits):
    async with looking(tmp_path, archive) as catalog:
        patient = await walk(catalog, "Demo-CT", "PHANTOM-01")
        tree = await below(catalog, patient)
        assert {node.kind for node in tree} == {Kind.STUDY, Kind.SERIES, Kind.INSTANCE}
        catalog._lately._forget_names()
        visits.clear()
        assert await below(catalog, patient) == tree
        assert len(visits) == 1


async def below(catalog, directory):
    found = []
    for node in await listed(catalog, directory):
        found += [node, *(await below(catalog, node) if node.kind < Kind.INSTANCE else [])]
    return found


async def test_a_listing_that_is_expired_while_it_is_looked_at_is_renewed(tmp_path, archive, monkeypatch):
    async with looking(tmp_path, archive) as catalog:
        study = await catalog.node((await largest_series(catalog)).parent)
        await listed(catalog, study)
        before = await catalog._store.listed_at(study.inode)
    async with looking(tmp_path, archive, Freshness(listings=0)) as catalog:
        held_at = catalog._held_at

        async def expired(node, listed_at):
            monkeypatch.undo()
            catalog._note_put(Put(expired=[node.inode]))
            return await held_at(node, listed_at)

        monkeypatch.setattr(catalog, "_held_at", expired)
        await catalog.age(study)
        await at_rest(catalog)
        assert await catalog._store.listed_at(study.inode) > before
