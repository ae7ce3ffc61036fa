"""Old listings of a collection are current after a few requests, and none is believed that is not so."""

from __future__ import annotations

import shutil
import time
from datetime import date, timedelta

import httpx
import pytest
import trio

from tciafs.archives.base import ArchiveError, Unsupported
from tciafs.catalog.crawl import NEVER, Thresholds
from tciafs.catalog.rows import ROOT
from tciafs.database import digest_of
from tests.archive import start_archive
from tests.test_crawl import looking, walk

DAY = 24 * 3600.0
MONTH = 31 * DAY
PATIENT_LIST, STUDY_LIST, SERIES_LIST = "v4/getPatient", "v4/getPatientStudy", "v4/getSeries"
NEW_STUDIES, UPDATED_SERIES = "v4/NewStudiesInPatientCollection", "v4/getUpdatedSeries"
SEARCH, DRILL_DOWN = "v4/getSimpleSearch", "getImageDrillDown"
IN_WHOLE, BY_DIFFERENCE = Thresholds(), Thresholds(few_series=0)


class Updated:
    """A collection of patients with two series each, and what befalls it."""

    def __init__(self, archive, room, name, patients):
        self.archive, self.room, self.name = archive, room, name
        self.uids = archive.edit(synthetic={"collection": name, "patients": patients, "series": 2})
        (row,) = self.ask("getSeries", SeriesInstanceUID=self.uids[18])
        study = {"patient_id": row["PatientID"], "study_instance_uid": row["StudyInstanceUID"]}
        (self.successor,) = archive.edit(synthetic={"collection": name, **study})
        archive.edit(hide_series=self.successor)

    def ask(self, endpoint, **params):
        return httpx.get(f"{self.archive.url}/v4/{endpoint}", params=params, trust_env=False).json()

    def change(self):
        """Submit one series again, withdraw one, and replace one by another that was submitted long ago."""
        today = date.today().isoformat()
        again, withdrawn, replaced = self.uids[10], self.uids[14], self.uids[18]
        self.archive.edit(series=again, submitted=today, rewritten=True)
        self.archive.edit(hide_series=withdrawn)
        self.archive.edit(hide_series=replaced)
        self.archive.edit(show_series=self.successor)
        self.archive.edit(series=self.successor, released=today)

    def looking(self, thresholds=None, room="old"):
        return looking(self.room / room, self.archive, thresholds)

    async def collection(self, catalog):
        await catalog.age(ROOT)
        found, _ = await catalog.child(ROOT, self.name)
        return found.node

    async def tree(self, catalog):
        return await walk(catalog, await self.collection(catalog))

    async def list_ago(self, seconds):
        """List the whole collection some time ago."""
        with pytest.MonkeyPatch.context() as patch:
            now = time.time
            patch.setattr(time, "time", lambda: now() - seconds)
            async with self.looking() as catalog:
                await self.tree(catalog)
                await idle(catalog)

    async def update(self, catalog):
        """Renew all that was listed; return what that cost."""
        collection = await self.collection(catalog)
        await idle(catalog)
        self.archive.forget()
        flight = await catalog.update(collection)
        await flight.result(20)
        return self.archive.requests()

    async def asked_anew(self):
        """Return the tree as it is for who never looked before."""
        async with self.looking(room="new") as catalog:
            return await self.tree(catalog)


@pytest.fixture(scope="module")
def changing_archive():
    with start_archive() as archive:
        yield archive


@pytest.fixture
def updated(changing_archive, tmp_path):
    changing_archive.reset()
    yield Updated(changing_archive, tmp_path, tmp_path.name, 12)
    changing_archive.reset()


async def idle(catalog):
    with trio.fail_after(20):
        while len(catalog._flights):  # noqa: ASYNC110 (nothing else tells)
            await trio.sleep(0.02)


async def test_a_month_old_catalog_of_200_patients_is_current_after_a_few_requests(
    tmp_path, changing_archive
):
    updated = Updated(changing_archive, tmp_path, "Month", 200)
    await updated.list_ago(MONTH)
    shutil.copytree(tmp_path / "old", tmp_path / "as old")
    updated.change()
    few = {PATIENT_LIST: 1, STUDY_LIST: 1}
    anew = await updated.asked_anew()
    for room, thresholds, requests in (
        ("old", IN_WHOLE, {**few, SERIES_LIST: 1}),
        ("as old", BY_DIFFERENCE, {**few, NEW_STUDIES: 1, UPDATED_SERIES: 1, SERIES_LIST: 3}),
    ):
        async with updated.looking(thresholds, room) as catalog:
            assert await updated.update(catalog) == requests
            updated.archive.forget()
            assert await updated.tree(catalog) == anew
            await idle(catalog)
            assert updated.archive.requests() == {SEARCH: 2, DRILL_DOWN: 2}  # of the two series that are new


@pytest.mark.says(
    "Who walks through old listings of a collection has all that was listed of it renewed with a few"
    " requests, however many patients it has.",
)
async def test_who_walks_through_what_is_old_has_all_of_it_renewed(updated):
    await updated.list_ago(MONTH)
    updated.change()
    async with updated.looking(BY_DIFFERENCE) as catalog:
        updated.archive.forget()
        for _ in range(2):
            await updated.tree(catalog)
            await idle(catalog)
        requests = updated.archive.requests()
        assert requests[NEW_STUDIES] == requests[UPDATED_SERIES] == 1
        assert requests[STUDY_LIST] <= 3  # two patients are asked for singly, before it is a walk
        assert requests[SERIES_LIST] <= 2 + 3
        assert await updated.tree(catalog) == await updated.asked_anew()


@pytest.mark.says(
    "The files of a series are believed for 30 days from the last time that its study listed it"
    " unchanged, and for 90 in all.",
    "Of a collection of more than 500 patients, the series of a study hold where the archive, asked for"
    " all that was submitted or released since, does not name the study and counts as many series; for"
    " 90 days at most.",
)
async def test_an_update_asks_from_the_day_of_the_last_one_on(updated):
    assert IN_WHOLE.few_series == 500 * IN_WHOLE.series_a_patient
    await updated.list_ago(MONTH)
    for ago in (MONTH / DAY, 0):
        async with updated.looking(BY_DIFFERENCE) as catalog:
            assert SERIES_LIST not in await updated.update(catalog)
            day = (date.today() - timedelta(days=ago + 2)).strftime("fromDate=%m-%d-%Y")
            asked = [line for line in updated.archive.log() if "fromDate" in line]
            assert [line.rpartition("&")[2].rpartition("?")[2] for line in asked] == [day, day]
            updated.archive.forget()
            await updated.tree(catalog)
            assert updated.archive.requests() == {}
    updated.archive.edit(series=updated.uids[7], submitted=date.today().isoformat())
    async with updated.looking(BY_DIFFERENCE) as catalog:
        assert (await updated.update(catalog))[SERIES_LIST] == 1
        assert await updated.tree(catalog) == await updated.asked_anew()


async def test_what_was_listed_too_long_ago_is_asked_for_itself(updated):
    await updated.list_ago(MONTH)
    async with updated.looking(BY_DIFFERENCE) as catalog:
        listed = await catalog._updates.expiry.listed_studies((await updated.collection(catalog)).inode)
        old = [one.study for one in listed[:3]]
        await catalog._store.write(lambda db: db.executemany(*put_listed_at(old, time.time() - 100 * DAY)))
        assert (await updated.update(catalog))[SERIES_LIST] == 3


def put_listed_at(inodes, when):
    rows = [(when, digest_of(inode, float(when)), inode) for inode in inodes]
    return "UPDATE listing SET listed_at = ?, digest = ? WHERE inode = ?", rows


@pytest.mark.says(
    "An update that fails confirms nothing.",
)
@pytest.mark.parametrize(
    ("endpoint", "do"),
    [
        (NEW_STUDIES, "malformed"),
        (UPDATED_SERIES, "cut"),
        (STUDY_LIST, "html"),
    ],
)
async def test_an_update_that_fails_confirms_nothing(updated, endpoint, do):
    await updated.list_ago(MONTH)
    updated.change()
    async with updated.looking(BY_DIFFERENCE) as catalog:
        updated.archive.faults(rules=[{"do": do, "endpoint": endpoint}])
        with pytest.raises(ArchiveError):
            await updated.update(catalog)
        assert await catalog._updates.expiry.confirmed((await updated.collection(catalog)).inode) is None
        updated.archive.reset()
        await updated.update(catalog)
        assert await updated.tree(catalog) == await updated.asked_anew()


async def test_a_server_that_does_not_tell_changes_is_asked_in_whole(updated):
    await updated.list_ago(MONTH)
    updated.change()
    updated.archive.faults(disabled=[UPDATED_SERIES])
    async with updated.looking(BY_DIFFERENCE) as catalog:
        with pytest.raises(Unsupported):
            await updated.update(catalog)
        for _ in range(3):
            await updated.tree(catalog)
            await idle(catalog)
        assert updated.archive.requests()[UPDATED_SERIES] == 1
        assert await updated.tree(catalog) == await updated.asked_anew()


async def test_patients_that_came_and_went_are_seen(updated):
    await updated.list_ago(MONTH)
    updated.archive.edit(hide_series=updated.uids[0])
    updated.archive.edit(hide_series=updated.uids[1])
    updated.archive.edit(synthetic={"collection": updated.name, "patient_id": "new"})
    async with updated.looking(BY_DIFFERENCE) as catalog:
        await updated.update(catalog)
        tree = await updated.tree(catalog)
        assert tree == await updated.asked_anew()
        assert ("new" in tree, "P-000001" in tree) == (True, False)


@pytest.mark.says(
    "A listing is asked for anew at its next look where the directory above tells another number of"
    " series, or another number or size of images.",
)
async def test_images_that_came_without_a_new_stamp_are_seen_where_the_series_are_listed_anew(updated):
    await updated.list_ago(MONTH)
    updated.archive.edit(series=updated.uids[6], more_images=2)
    async with updated.looking() as catalog:
        await updated.update(catalog)
        await updated.tree(catalog)  # shown as it was, and renewed behind
        await idle(catalog)
        assert await updated.tree(catalog) == await updated.asked_anew()


async def test_what_was_expired_by_hand_is_not_confirmed(updated):
    await updated.list_ago(DAY)
    async with updated.looking(BY_DIFFERENCE) as catalog:
        await catalog.expire_below(ROOT)
        assert await updated.update(catalog) == {PATIENT_LIST: 1}  # nothing is left that could be
        assert await catalog.count_expired(await updated.collection(catalog)) == 12


async def test_files_past_their_time_cost_one_request_a_patient(updated):
    await updated.list_ago(MONTH)
    async with updated.looking(NEVER) as catalog:
        updated.archive.forget()
        for _ in range(2):
            await updated.tree(catalog)
            await idle(catalog)
        requests = updated.archive.requests()
        assert {SEARCH, DRILL_DOWN}.isdisjoint(requests)
        assert requests[SERIES_LIST] == requests[STUDY_LIST] == 12
