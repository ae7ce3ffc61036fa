"""What is known of each object stays known, whether or not its file does."""

import random
from contextlib import closing
from dataclasses import replace

import pytest
import trio

from tciafs.content.index import Index, Stored, object_key
from tciafs.database import Lost
from tciafs.model import Instance

STORED = Stored("1.2@2019-02-25", "1.1", 2**40, "0" * 32, b"digests", on_disk=True)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "content.sqlite"


def test_a_series_submitted_again_has_other_objects():
    first, again = Instance("1.1", "1.2", "2019-02-25"), Instance("1.1", "1.2", "2019-02-26")
    assert object_key(first) == "1.2@2019-02-25"
    assert object_key(again) != object_key(first)
    assert object_key(replace(first, instance_number=7, size=9, estimate=9)) == object_key(first)


async def test_an_object_is_known_with_every_field_after_reopening(path):
    gone = Stored("é@", "1.1", 0, "f" * 32, b"", on_disk=False)
    with closing(Index.open(path)) as index:
        assert await index.get(STORED.key) is None
        await index.put(STORED)
        await index.put(gone)
    with closing(Index.open(path)) as index:
        assert await index.get(STORED.key) == STORED
        assert await index.get(gone.key) == gone


async def test_the_objects_of_a_series_come_by_their_keys(path):
    with closing(Index.open(path)) as index:
        mine = [replace(STORED, key=str(n)) for n in range(3)]
        for stored in (*mine, replace(STORED, key="4", series="1.9")):
            await index.put(stored)
        assert await index.of_series("1.1") == {stored.key: stored for stored in mine}
        assert await index.of_series("nobody") == {}


async def test_totals_count_each_object_once_and_only_what_is_on_disk(path):
    with closing(Index.open(path)) as index:
        assert await index.totals() == (0, 0)
        await index.put(STORED)
        await index.put(replace(STORED, size=5))
        await index.put(replace(STORED, key="other", size=7))
        await index.put(replace(STORED, key="gone", size=100, on_disk=False))
        assert await index.totals() == (2, 12)


@pytest.mark.alarming
def test_a_bit_that_flips_on_disk_never_changes_what_is_known(tmp_path, path):
    many = [replace(STORED, key=f"1.2.{n}@") for n in range(25)]
    trio.run(put_all, path, many)
    whole = path.read_bytes()
    for number, place in enumerate(random.Random(1).sample(range(len(whole)), 100)):
        flipped = tmp_path / f"{number}.sqlite"
        flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :])
        for stored, found in zip(many, trio.run(get_all, flipped, many), strict=True):
            # Its file may stay unused, or be looked for in vain; then it is fetched again.
            assert found is None or replace(found, on_disk=True) == stored


async def put_all(path, many):
    with closing(Index.open(path)) as index:
        for stored in many:
            await index.put(stored)


async def get_all(path, many):
    found = []
    with closing(Index.open(path)) as index:
        for stored in many:
            try:
                found.append(await index.get(stored.key))
            except Lost:
                found.append(None)
    return found
