"""One SQLite file: it survives crashes and company, and is begun anew where it cannot be used."""

import sqlite3
import sys
import threading
import time

import pytest
import trio

from tciafs.database import Database, Unwritable

SCHEMA = "CREATE TABLE things (name TEXT PRIMARY KEY);\nCREATE INDEX by_name ON things (name)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "things.sqlite"


@pytest.fixture
def database(path):
    database = Database.open(path, SCHEMA, 3)
    yield database
    database.close()


def insert(name):
    return lambda connection: connection.execute("INSERT INTO things VALUES (?)", (name,)).rowcount


def names(connection):
    return sorted(name for (name,) in connection.execute("SELECT name FROM things"))


def make(path, *statements):
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def set_aside(path):
    return sorted(path.parent.glob(f"{path.name}.damaged-*"))


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


async def test_work_is_done_in_another_thread_and_its_result_comes_back(database):
    def work(connection):
        assert threading.current_thread() is not threading.main_thread()
        return insert("a")(connection), names(connection)

    assert await database.run(work) == (1, ["a"])


async def test_the_journal_is_a_wal_so_that_readers_never_wait_for_a_writer(database, path):
    assert await database.run(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    await database.run(insert("a"))
    assert path.with_name(f"{path.name}-wal").stat().st_size > 0


async def test_what_was_written_survives_reopening(path):
    for nth, name in enumerate("ab"):
        database = Database.open(path, SCHEMA, 3)
        assert len(await database.run(names)) == nth
        await database.run(insert(name))
        database.close()
    assert set_aside(path) == []


async def test_what_was_written_survives_a_crash(path):
    code = (
        "import os, sys, trio; from pathlib import Path; from tciafs.database import Database\n"
        "d = Database.open(Path(sys.argv[1]), sys.argv[2], 3)\n"
        "trio.run(d.run, lambda c: c.execute(\"INSERT INTO things VALUES ('kept')\").rowcount)\n"
        "d._connection.execute(\"INSERT INTO things VALUES ('under way')\")\n"
        "os._exit(9)"
    )
    crash = await trio.run_process([sys.executable, "-c", code, path, SCHEMA], check=False)
    assert crash.returncode == 9
    database = Database.open(path, SCHEMA, 3)
    assert await database.run(names) == ["kept"]
    database.close()
    assert set_aside(path) == []


async def test_an_error_undoes_the_whole_work_and_nothing_else(database):
    await database.run(insert("before"))

    def work(connection):
        insert("undone")(connection)
        raise LookupError("why")

    with pytest.raises(LookupError, match="why"):
        await database.run(work)
    with pytest.raises(sqlite3.IntegrityError):
        await database.run(lambda c: (insert("undone too")(c), insert("before")(c)))
    await database.run(insert("after"))
    assert await database.run(names) == ["after", "before"]


async def test_a_full_disk_is_an_error_that_names_it_and_no_damage(database, path):
    await database.run(insert("before"))
    await database.run(lambda c: c.execute("PRAGMA max_page_count = 1").fetchall())
    with pytest.raises(Unwritable, match="disk is full"):
        await database.run(lambda c: [insert(f"{number:0500}")(c) for number in range(100)])
    assert await database.run(names) == ["before"]
    assert set_aside(path) == []


async def test_work_runs_one_at_a_time(database):
    at_once, high_water = [0], [0]

    def work(connection):
        at_once[0] += 1
        high_water[0] = max(high_water[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(database.run, work)
    assert high_water == [1]


async def test_a_cancelled_caller_does_not_break_the_work_under_way(database):
    begun, may_end = threading.Event(), threading.Event()

    def work(connection):
        insert("whole")(connection)
        begun.set()
        assert may_end.wait(5)
        insert("work")(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.run, work)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
        may_end.set()
    assert await database.run(names) == ["whole", "work"]


async def test_two_databases_share_one_file(database, path):
    other = Database.open(path, SCHEMA, 3)
    async with trio.open_nursery() as nursery:
        for nth in range(20):
            nursery.start_soon((database, other)[nth % 2].run, insert(f"{nth:02d}"))
    assert await database.run(names) == await other.run(names) == [f"{nth:02d}" for nth in range(20)]
    other.close()


async def test_a_reader_on_the_same_file_sees_all_of_a_work_or_nothing(database, path):
    other, seen = Database.open(path, SCHEMA, 3), []

    def work(connection):
        insert("a")(connection)
        seen.append(trio.from_thread.run(other.run, names))
        insert("b")(connection)

    await database.run(work)
    assert seen == [[]]
    assert await other.run(names) == ["a", "b"]
    other.close()


def test_many_mounts_may_begin_the_same_file_at_once(path, caplog):
    errors, barrier = [], threading.Barrier(8)

    def begin():
        barrier.wait()
        try:
            Database.open(path, SCHEMA, 3).close()
        except sqlite3.Error as exc:
            errors.append(exc)

    for _ in range(50):
        threads = [threading.Thread(target=begin) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        path.unlink()
    assert errors == []
    assert set_aside(path) == []


def damaged(path):
    path.write_bytes(b"this is not what SQLite writes" * 200)


def cut(path):
    Database.open(path, SCHEMA, 3).close()
    path.write_bytes(path.read_bytes()[:5000])


def of_a_format_to_come(path):
    Database.open(path, SCHEMA, 3).close()
    content = bytearray(path.read_bytes())
    content[47] = 99  # the schema format number
    path.write_bytes(content)


def garbled_so_that_its_error_is_no_text(path):
    Database.open(path, SCHEMA, 3).close()
    content = path.read_bytes()
    assert content.count(b"CREATE TABLE things") == 1
    path.write_bytes(content.replace(b"CREATE TABLE things", b"CREATE TABLE\xff\xd3 \xa7!!!"))


def foreign(path):
    make(path, "CREATE TABLE songs (title)", "INSERT INTO songs VALUES ('kept')")


def foreign_with_our_number(path):
    make(path, "CREATE TABLE songs (title)", "PRAGMA user_version = 3")


def of_an_older_layout(path):
    Database.open(path, "CREATE TABLE things (old_name TEXT)", 2).close()


def of_a_newer_layout(path):
    Database.open(path, "CREATE TABLE things (new_name TEXT)", 4).close()


@pytest.mark.alarming
@pytest.mark.parametrize(
    "spoil",
    [
        damaged,
        cut,
        of_a_format_to_come,
        garbled_so_that_its_error_is_no_text,
        foreign,
        foreign_with_our_number,
        of_an_older_layout,
        of_a_newer_layout,
    ],
    ids=lambda spoil: spoil.__name__,
)
async def test_a_file_that_cannot_be_used_is_set_aside_whole_and_begun_anew(path, caplog, spoil):
    spoil(path)
    content = path.read_bytes()
    database = Database.open(path, SCHEMA, 3)
    await database.run(insert("new"))
    assert await database.run(names) == ["new"]
    database.close()
    [aside] = set_aside(path)
    assert aside.read_bytes() == content
    [warning] = warnings(caplog)
    assert str(path) in warning
    assert aside.name in warning
    assert "\n" not in warning
    Database.open(path, SCHEMA, 3).close()
    assert len(set_aside(path)) == 1


@pytest.mark.alarming
async def test_nothing_of_a_damaged_file_s_journal_gets_into_the_new_one(path):
    before = Database.open(path, SCHEMA, 3)
    await before.run(insert("old"))
    wal = path.with_name(f"{path.name}-wal")
    left_behind = wal.read_bytes()
    before.close()
    damaged(path)
    wal.write_bytes(left_behind)
    database = Database.open(path, SCHEMA, 3)
    assert await database.run(names) == []
    database.close()


async def test_an_empty_file_is_filled_without_a_word(path):
    path.touch()
    database = Database.open(path, SCHEMA, 3)
    assert await database.run(names) == []
    database.close()
    assert set_aside(path) == []


@pytest.mark.parametrize(
    "lock",
    [
        ["BEGIN IMMEDIATE"],
        # What a mount that starts at the same time does to one that is about to switch to the WAL.
        ["PRAGMA journal_mode = DELETE", "BEGIN", "SELECT * FROM things"],
    ],
    ids=["by a writer", "by a reader before there is a WAL"],
)
async def test_a_file_that_is_locked_for_a_moment_is_waited_for(path, lock):
    Database.open(path, SCHEMA, 3).close()
    other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    for statement in lock:
        other.execute(statement).fetchall()
    threading.Timer(0.2, other.rollback).start()
    began = time.monotonic()
    database = Database.open(path, SCHEMA, 3)
    assert time.monotonic() - began > 0.1
    assert await database.run(names) == []
    assert await database.run(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    database.close()
    other.close()
    assert set_aside(path) == []


def test_a_file_that_stays_locked_is_an_error_and_no_damage(path):
    Database.open(path, SCHEMA, 3).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):  # after 5 s
        Database.open(path, SCHEMA, 3)
    other.rollback()
    other.close()
    assert set_aside(path) == []
    Database.open(path, SCHEMA, 3).close()


def test_a_folder_that_is_not_there_is_an_error_and_no_damage(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        Database.open(tmp_path / "no such folder" / "things.sqlite", SCHEMA, 3)
