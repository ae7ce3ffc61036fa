"""Series by any criteria, asked of the embedded archive and compared with what its lists say."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date

import httpx
import pytest
import trio

from tciafs.archives.base import BadAnswer, Failed, Unsupported
from tciafs.archives.capabilities import Capabilities
from tciafs.archives.http import Http
from tciafs.archives.nbia import NBIA
from tciafs.criteria import Criteria, spellings_of
from tciafs.model import Series
from tciafs.selection import Selection
from tests.archive import start_archive

SEARCH, CART = "v4/getSimpleSearch", "v4/getCartData"
ODD = "O'Neill 100%*"


@pytest.fixture(scope="module")
def server():
    made = {"manufacturer": "Acme", "model_name": "Eye 3", "series_description": "T1 (Post) 100%"}
    with start_archive() as archive:
        mice = {"collection": "Mice", "patients": 3, "species": "Mus musculus", "modality": "MR"}
        archive.edit(synthetic={**mice, **made})
        archive.edit(synthetic={"collection": "Odd", "patient_ids": [ODD, ODD.lower()], "series": 2})
        (uid, *_) = archive.edit(synthetic={"collection": "Mice", "patient_id": "late", **made})
        archive.edit(series=uid, submitted="2024-02-29")
        yield archive


@pytest.fixture(autouse=True)
def archive(server):
    server.reset()
    yield server
    server.reset()


@pytest.fixture(scope="module")
def rows(server):
    """Return what getSeries says of every series, by UID."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        return {row["SeriesInstanceUID"]: row for row in client.get("/v4/getSeries").json()}


@asynccontextmanager
async def nbia(server, tmp_path):
    async with Http.connect(server.url) as http:
        yield NBIA("test", http, Capabilities(tmp_path / "capabilities.json"))


def selected(**values: tuple[str, ...]) -> Criteria:
    return Criteria(selection=replace(Selection(), **values))  # type: ignore[arg-type]


DOI = "https://doi.org/10.7937/demo."


@pytest.mark.parametrize(
    ("criteria", "has"),
    [
        (selected(collections=("Demo-CT", "Demo MR")), lambda r: r["Collection"] in ("Demo-CT", "Demo MR")),
        (selected(modalities=("mr",)), lambda r: r.get("Modality") == "MR"),
        (selected(body_parts=("NOT SPECIFIED",)), lambda r: not r.get("BodyPartExamined")),
        (
            selected(modalities=("CT",), body_parts=("chest",)),
            lambda r: (r.get("Modality"), r.get("BodyPartExamined")) == ("CT", "CHEST"),
        ),
        (selected(patients=(ODD, "nobody")), lambda r: r["PatientID"] == ODD),
        (selected(patients=(ODD,), modalities=("MR",)), lambda r: False),
        (Criteria(manufacturers=("ACME ", "nobody")), lambda r: r.get("Manufacturer") == "Acme"),
        (Criteria(manufacturers=("nobody",)), lambda r: False),
        (Criteria(models=("eye 3",)), lambda r: r.get("ManufacturerModelName") == "Eye 3"),
        (
            replace(selected(patients=("late",)), models=("eye 3",)),
            lambda r: r["PatientID"] == "late",
        ),
        (replace(selected(collections=("Mice",)), models=("Eye 3",)), lambda r: r["Collection"] == "Mice"),
        (replace(selected(collections=("Odd",)), models=("Eye 3",)), lambda r: False),
        (
            Criteria(species=("mus MUSCULUS",)),
            lambda r: r["Collection"] == "Mice" and r["PatientID"] != "late",
        ),
        (
            Criteria(species=("447612001",)),
            lambda r: r["Collection"] == "Mice" and r["PatientID"] != "late",
        ),
        (Criteria(species=("Canis lupus",)), lambda r: False),
        (Criteria(description="(post) 100%"), lambda r: "(Post)" in r.get("SeriesDescription", "")),
        (Criteria(submitted=(date(2024, 2, 29), None)), lambda r: r["PatientID"] == "late"),
        (Criteria(submitted=(None, date(2024, 2, 28))), lambda r: r["PatientID"] != "late"),
        (
            Criteria(submitted=(date(2019, 2, 25), date(2019, 2, 25)), manufacturers=("acme",)),
            lambda r: r.get("Manufacturer") == "Acme" and r["PatientID"] != "late",
        ),
        (Criteria(dois=("10.7937/demo.nowhere",)), lambda r: False),
    ],
    ids=lambda value: "" if callable(value) else str(value),  # the same in each of the processes that test
)
async def test_what_is_found_is_what_matches(server, tmp_path, rows, criteria, has):
    async with nbia(server, tmp_path) as archive:
        found = await archive.search(criteria)
    expected = {uid: row for uid, row in rows.items() if has(row)}
    assert {one.series_instance_uid for one in found} == set(expected)
    for one in found:
        row = expected[one.series_instance_uid]
        assert (one.collection, one.patient_id) == (row["Collection"], row["PatientID"])
        assert (one.image_count, one.file_size) == (row["ImageCount"], row["FileSize"])
        assert one.study_instance_uid == row["StudyInstanceUID"]
        assert one.modality == row.get("Modality")


@pytest.mark.parametrize("prefix", ["", "doi:", "https://doi.org/", "http://dx.doi.org/", " DOI: "])
async def test_a_doi_is_found_however_it_is_written(server, tmp_path, rows, prefix):
    stored = next(row["DataDescriptionURI"] for row in rows.values() if row["Collection"] == "Mice")
    async with nbia(server, tmp_path) as archive:
        found = await archive.search(Criteria(dois=(prefix + stored.removeprefix("https://doi.org/"),)))
    assert {one.collection for one in found} == {"Mice"}
    assert spellings_of("weird") == ["https://doi.org/weird", "weird"]


async def test_patients_with_several_studies_are_found(server, tmp_path, rows):
    async with nbia(server, tmp_path) as archive:
        found = await archive.search(Criteria(min_studies=2))
    studies: dict[tuple[str, str], set[str]] = {}
    for row in rows.values():
        studies.setdefault((row["Collection"], row["PatientID"]), set()).add(row["StudyInstanceUID"])
    assert {(one.collection, one.patient_id) for one in found} == {
        patient for patient, uids in studies.items() if len(uids) > 1
    }


async def test_what_a_server_ignores_is_not_believed(server, tmp_path, archive, monkeypatch):
    """An older server knows no DescriptionCriteria, and returns everything."""
    monkeypatch.setattr("tciafs.archives.criteria.DESCRIPTION", "NobodyKnowsCriteria")
    async with nbia(server, tmp_path) as asked:
        found = await asked.search(Criteria(description="(post)"))
    assert {one.collection for one in found} == {"Mice"}
    assert "NobodyKnowsCriteria" in " ".join(archive.log())


async def test_many_series_take_several_questions(server, tmp_path, archive):
    archive.edit(
        synthetic={"collection": "Many", "patients": 1_100, "series": 2, "model_name": "M", "modality": "MG"}
    )
    async with nbia(server, tmp_path) as asked:
        assert len(await asked.search(Criteria(models=("m",)))) == 2_200
        assert archive.requests() == {"v4/getSeries": 1, SEARCH: 3, CART: 2}  # of two parts, and a page more
        archive.forget()
        assert len(await asked.search(selected(modalities=("mg",)))) == 2_200
        assert archive.requests() == {SEARCH: 2, CART: 2}


async def test_a_search_that_is_cut_short_is_an_error(server, tmp_path, archive):
    async with nbia(server, tmp_path) as asked:
        archive.faults(rules=[{"endpoint": SEARCH, "do": "short"}])
        with pytest.raises(BadAnswer, match="patients came instead of"):
            await asked.search(selected(collections=("Demo-CT",)))
        archive.faults(rules=[{"endpoint": CART, "do": "short"}])
        with pytest.raises(BadAnswer, match=r"of the .* series that were found"):
            await asked.search(selected(collections=("Demo-CT",)))


async def test_the_unversioned_cart_data_stand_in(server, tmp_path, archive):
    async with nbia(server, tmp_path) as asked:
        archive.faults(disabled=[CART])
        assert len(await asked.search(selected(patients=(ODD,)))) == 2
        archive.faults(disabled=[CART, "getCartData"])
        with pytest.raises(Unsupported, match="getCartData"):
            await asked.search(selected(patients=(ODD,)))
        archive.faults(rules=[{"endpoint": CART, "do": "status", "status": 500}])
        with pytest.raises(Failed, match="getCartData"):
            await asked.search(selected(patients=(ODD,)))


async def test_the_first_failure_ends_the_others(server, tmp_path, archive):
    archive.faults(rules=[{"endpoint": CART, "do": "stall"}, {"endpoint": SEARCH, "do": "status"}])
    async with nbia(server, tmp_path) as asked:
        with trio.fail_after(20), pytest.raises(Failed):
            await asked.search(selected(collections=("Demo-CT",)))


def test_criteria_are_told_as_they_were_given():
    criteria = Criteria(
        selection=Selection(modalities=("CT",)),
        manufacturers=("GE",),
        models=("X 1",),
        species=("Mus",),
        description="t1",
        submitted=(date(2020, 1, 2), None),
        min_studies=3,
        dois=("10.1/x",),
    )
    assert str(criteria) == (
        "--modality 'CT' --manufacturer 'GE' --model 'X 1' --species 'Mus' --doi '10.1/x'"
        " --description 't1' --date 2020-01-02.. --min-studies 3"
    )
    assert criteria
    assert not Criteria()
    assert Criteria(min_studies=2)
    assert Criteria().has(Series("c", "p", "1.2", "1.3"))
