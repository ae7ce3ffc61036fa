"""A walk through a collection: few requests, whatever of them fails, and the same tree as by single ones."""

import os
import subprocess
import time
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.catalog import batches, crawl
from tciafs.catalog.catalog import Catalog
from tciafs.catalog.crawl import NEVER, Thresholds
from tciafs.catalog.rows import ROOT
from tciafs.catalog.store import Store
from tciafs.model import Collection, Kind
from tciafs.names import Layout
from tests.archive import start_archive
from tests.drive import mounted

PATIENTS, SERIES, FILES = 60, 3, 2
NAME = "Walked"
STUDIES_LIST, SERIES_LIST, SEARCH = "v4/getPatientStudy", "v4/getSeries", "v4/getSimpleSearch"
DRILL_DOWN = "getImageDrillDown"
DAY = 24 * 3600
SINGLE = {
    "do": "delay",
    "match": "PatientID",
}  # a rule that takes what is asked of one patient, and harms none


@pytest.fixture(scope="module")
def walked():
    """Serve a collection of 60 patients, of whom every other has nothing but MR."""
    with start_archive() as archive:
        wanted = {"collection": NAME, "series": SERIES, "series_of": FILES}
        for first, modality in enumerate(("CT", "MR")):
            ids = [f"P-{index:03d}" for index in range(first, PATIENTS, 2)]
            archive.edit(synthetic={**wanted, "patient_ids": ids, "modality": modality})
        yield archive


@pytest.fixture
def archive(walked, single):
    walked.reset()
    yield walked
    walked.reset()


@asynccontextmanager
async def looking(room, archive, thresholds=None):
    """Wire a catalog to the archive as a mount does."""
    room.mkdir(exist_ok=True)
    async with Http.connect(archive.url) as http:
        nbia = NBIA("test", http, Capabilities(room / "capabilities.json"))
        with closing(Store.open(room / "catalog.sqlite", "test", Layout.DESCRIPTIVE)) as store:
            async with trio.open_nursery() as nursery:
                yield Catalog(nbia, store, nursery, None, thresholds=thresholds)
                nursery.cancel_scope.cancel()


async def collection_of(catalog):
    await catalog.age(ROOT)
    found, _ = await catalog.child(ROOT, NAME)
    return found.node


async def walk(catalog, node, depth=Kind.INSTANCE):
    """Return the inode number of each path below a directory, walked through as `find` does."""
    found = {}
    await catalog.age(node)
    for name, child in await catalog.entries(node):
        found[name] = child.inode
        if child.kind < depth:
            below = await walk(catalog, child, depth)
            found.update({f"{name}/{path}": inode for path, inode in below.items()})
    return found


async def patients_of(catalog):
    collection = await collection_of(catalog)
    await catalog.age(collection)
    return [node for _, node in await catalog.entries(collection)]


def in_whole(archive):
    """Return the lists that were asked of the whole collection."""
    lists = (line.rpartition("/")[2] for line in archive.log())
    return [line.partition("?")[0] for line in lists if "Collection=" in line and "PatientID" not in line]


@pytest.fixture(scope="module")
def single(walked, tmp_path_factory):
    """Return the tree by single requests."""

    async def tree():
        async with looking(tmp_path_factory.mktemp("single"), walked, NEVER) as catalog:
            return await walk(catalog, await collection_of(catalog))

    found = trio.run(tree)
    assert in_whole(walked) == ["getPatient"]
    return found


def test_find_costs_a_handful_of_requests_and_a_look_at_two_patients_none_more(tmp_path: Path, archive):
    with mounted(tmp_path, archive.url) as drive:
        for patient in sorted(path for path in (drive.path / NAME).iterdir() if path.is_dir())[:2]:
            for study in patient.iterdir():
                os.listdir(study)
        assert archive.requests()[STUDIES_LIST] == archive.requests()[SERIES_LIST] == 2
        assert in_whole(archive) == ["getPatient"]
        archive.reset()
        found = subprocess.run(
            ["find", drive.path / NAME, "-name", "*.dcm", "-size", "+0"], capture_output=True
        )
        assert len(found.stdout.splitlines()) == PATIENTS * SERIES * FILES
        asked = archive.requests()
        assert asked.pop(STUDIES_LIST) <= 4
        assert asked.pop(SERIES_LIST) <= 4
        assert asked.pop(SEARCH) == asked.pop(DRILL_DOWN) <= 5
        assert asked == {}
        assert sorted(in_whole(archive)) == ["getPatientStudy", "getSeries"]


def test_a_walk_through_what_is_selected_costs_as_little(tmp_path: Path, archive):
    with mounted(tmp_path, archive.url, "--modality", "CT", "--collection", NAME) as drive:
        assert len(drive.files()) == PATIENTS // 2 * SERIES * FILES
        assert sum(archive.requests().values()) <= 20
        assert sorted(in_whole(archive)) == ["getPatient", "getPatientStudy", "getSeries"]
        asked = [line for line in archive.log() if "SeriesCriteria" in line]
        assert sum(line.count("SeriesCriteria") for line in asked) == PATIENTS // 2 * SERIES
    archive.reset()
    wanted = [flag for index in range(0, 8, 2) for flag in ("--patient", f"P-{index:03d}")]
    with mounted(tmp_path, archive.url, *wanted, "--cache-dir", str(tmp_path / "other")) as drive:
        assert len(drive.files()) == 4 * SERIES * FILES
        assert STUDIES_LIST.rpartition("/")[2] not in in_whole(archive)


async def test_names_and_inode_numbers_are_those_of_single_requests(tmp_path, archive, single):
    async with looking(tmp_path, archive) as catalog:
        assert await walk(catalog, await collection_of(catalog)) == single
        assert sorted(in_whole(archive)) == ["getPatient", "getPatientStudy", "getSeries"]
        archive.reset()
        assert await walk(catalog, await collection_of(catalog)) == single
        assert archive.requests() == {}


async def test_where_the_studies_are_known_only_series_are_asked_in_whole(tmp_path, archive, single):
    async with looking(tmp_path, archive, NEVER) as catalog:
        await walk(catalog, await collection_of(catalog), Kind.STUDY)
    archive.reset()
    async with looking(tmp_path, archive) as catalog:
        assert await walk(catalog, await collection_of(catalog)) == single
    assert in_whole(archive) == ["getSeries"]
    assert STUDIES_LIST not in archive.requests()


@pytest.mark.parametrize("endpoint", [STUDIES_LIST, SERIES_LIST])
@pytest.mark.parametrize("do", ["status", "html", "malformed", "short", "cut", "stall_body", "trickle"])
async def test_an_answer_in_whole_that_fails_costs_nothing_but_itself(
    tmp_path, archive, single, endpoint, do
):
    archive.faults(rules=[SINGLE, {"do": do, "endpoint": endpoint}])
    async with looking(tmp_path, archive) as catalog:
        with trio.fail_after(30):
            tree = await walk(catalog, await collection_of(catalog), Kind.SERIES)
    assert tree == {path: inode for path, inode in single.items() if not path.endswith(".dcm")}
    assert in_whole(archive).count(endpoint.rpartition("/")[2]) == 1


async def test_what_is_complete_is_there_before_the_answer_is(tmp_path, archive):
    archive.faults(rules=[SINGLE, {"do": "stall_body", "endpoint": SERIES_LIST}])
    async with looking(tmp_path, archive) as catalog:
        for patient in (await patients_of(catalog))[:4]:
            await catalog.age(patient)
        await trio.sleep(0.5)
        patients = await patients_of(catalog)
        asked = archive.requests()[STUDIES_LIST]
        for patient in patients:
            await catalog.age(patient)
        assert archive.requests()[STUDIES_LIST] == asked <= 4


async def test_a_batch_that_fails_costs_nobody_a_series(tmp_path, archive, single):
    archive.faults(rules=[{"do": "cut", "endpoint": SEARCH, "skip": 3, "times": 3}])
    async with looking(tmp_path, archive) as catalog:
        assert await walk(catalog, await collection_of(catalog)) == single


async def test_who_look_at_the_series_of_one_study_at_once_share_a_batch(tmp_path, archive):
    async with looking(tmp_path, archive, NEVER) as catalog:
        (patient, *_) = await patients_of(catalog)
        await catalog.age(patient)
        ((_, study),) = await catalog.entries(patient)
        await catalog.age(study)
        series = [node for _, node in await catalog.entries(study)]
        archive.forget()
        async with trio.open_nursery() as nursery:
            for node in series:
                nursery.start_soon(catalog.age, node)
        assert [len(await catalog.entries(node)) for node in series] == [FILES] * SERIES
        assert archive.requests() == {SEARCH: 1, DRILL_DOWN: 1}


async def test_a_long_walk_has_two_batches_under_way_and_none_far_ahead(
    tmp_path, archive, single, monkeypatch
):
    batch = 12  # series: those of four patients
    monkeypatch.setattr(batches, "_IMAGES", batch * FILES)
    monkeypatch.setattr(crawl, "FIRST_BATCH", batch * FILES)
    archive.faults(rules=[{"do": "delay", "ms": 100, "endpoint": DRILL_DOWN}])
    under_way, at_once, asked = set(), [], []
    get = NBIA.get_instances

    async def get_instances(self, wanted, others=()):
        under_way.add(wanted)
        at_once.append(len(under_way))
        asked.append(1 + len(others))
        try:
            return await get(self, wanted, others)
        finally:
            under_way.discard(wanted)

    monkeypatch.setattr(NBIA, "get_instances", get_instances)
    async with looking(tmp_path, archive) as catalog:
        patients = await patients_of(catalog)
        for patient in patients[:8]:
            await walk(catalog, patient)
        with trio.fail_after(5):
            while len(catalog._flights):  # noqa: ASYNC110 (nothing else tells)
                await trio.sleep(0.02)
        assert max(at_once) == 2
        assert sum(asked) <= 8 * SERIES + 3 * batch
        assert await walk(catalog, await collection_of(catalog)) == single
    assert sum(asked) == PATIENTS * SERIES
    assert max(asked) <= batch


@pytest.mark.parametrize(("guess", "before"), [(10, ["getPatient"]), (1, ["getPatient", "getPatientStudy"])])
async def test_a_large_collection_is_asked_in_whole_when_the_walk_has_proved_itself(
    tmp_path, archive, guess, before
):
    thresholds = Thresholds(series=PATIENTS * SERIES, series_a_patient=guess, share=0.5)
    async with looking(tmp_path, archive, thresholds) as catalog:
        patients = await patients_of(catalog)
        for patient in patients[: PATIENTS // 2 - 1]:
            await walk(catalog, patient, Kind.SERIES)
        assert in_whole(archive) == before
        archive.forget()
        for patient in patients[PATIENTS // 2 - 1 :]:
            await walk(catalog, patient, Kind.SERIES)
        assert archive.requests()[SERIES_LIST] <= 3
        assert "getSeries" in in_whole(archive)


async def test_a_second_walk_past_its_time_is_renewed_in_whole(tmp_path, archive, single):
    with pytest.MonkeyPatch.context() as patch:
        now = time.time
        patch.setattr(time, "time", lambda: now() - DAY / 2)
        async with looking(tmp_path, archive) as catalog:
            await walk(catalog, await collection_of(catalog))
    archive.reset()
    async with looking(tmp_path, archive) as catalog:
        assert await walk(catalog, await collection_of(catalog)) == single
        with trio.fail_after(5):
            while len(catalog._flights):  # noqa: ASYNC110 (nothing else tells)
                await trio.sleep(0.02)
    assert sorted(in_whole(archive)) == ["getPatient", "getPatientStudy", "getSeries"]
    assert sum(archive.requests().values()) <= 10


async def test_nothing_that_a_walk_asks_of_the_store_reads_a_table_from_end_to_end(tmp_path, archive):
    async with looking(tmp_path, archive) as catalog:
        connection = catalog._store.database._connection
        asked: set[str] = set()
        connection.set_trace_callback(asked.add)
        tree = await walk(catalog, await collection_of(catalog))
        for inode in list(tree.values())[:50]:
            node = await catalog.node(inode)
            assert await catalog.name_of(node)
            assert await catalog.is_listed(node)
        assert await catalog._store.count_unlisted(catalog._store.inode_of(Collection(NAME)), 0.0)
        connection.set_trace_callback(None)
        queries = [text for text in asked if text.split()[0] in ("SELECT", "DELETE")]
        assert len(queries) > 10
        for query in queries:
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {query}"):
                assert not step.startswith("SCAN") or step in ("SCAN patient", "SCAN CONSTANT ROW"), query
