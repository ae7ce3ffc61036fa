"""Object files: whole or not there, whatever happens to the process, the disk or the file."""

import os
import subprocess
import sys
from hashlib import md5

import pytest

from tciafs.content.cache import Cache, NotOurs, Part, claim, is_ours

BYTES = bytes(range(256)) * 10

WRITER = """
import sys, time
from pathlib import Path
from tciafs.content.cache import Cache
part = Cache(Path(sys.argv[1])).begin("written by another")
part.write(b"half")
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path)


def put(cache, key="key", content=BYTES):
    part = cache.begin(key)
    part.write(content)
    cache.commit(part, key)
    part.close()


def read(cache, key="key", size=2560):
    fd = cache.open(key, size)
    if fd is None:
        return None
    try:
        return os.pread(fd, size + 1, 0)
    finally:
        os.close(fd)


def files(directory):
    return [path for path in directory.rglob("*") if path.is_file()]


def test_what_is_committed_is_read_back_and_survives_reopening(tmp_path, cache):
    put(cache)
    assert read(cache) == BYTES
    assert read(Cache(tmp_path)) == BYTES
    assert len(files(tmp_path / "objects")) == 1
    assert files(tmp_path / "parts") == []


def test_what_was_never_put_is_not_there(cache):
    assert cache.open("key", 0) is None


def test_a_part_knows_its_size_and_digest_and_cannot_be_read_before_it_is_committed(tmp_path, cache):
    part = cache.begin("key")
    assert (part.size, part.md5) == (0, md5(b"").hexdigest())
    part.write(BYTES)
    part.write(b"")
    part.write(b"more")
    assert (part.size, part.md5) == (len(BYTES) + 4, md5(BYTES + b"more").hexdigest())
    assert read(cache, size=part.size) is None
    part.close()
    assert files(tmp_path / "parts") == files(tmp_path / "objects") == []


def test_two_parts_at_once_do_not_touch_each_other(cache):
    one, other = cache.begin("one"), cache.begin("other")
    one.write(b"one")
    other.write(b"other")
    cache.commit(other, "other")
    cache.commit(one, "one")
    one.close()
    other.close()
    assert (read(cache, "one", 3), read(cache, "other", 5)) == (b"one", b"other")


def test_an_object_committed_again_replaces_the_first_and_open_files_keep_their_bytes(cache):
    put(cache, content=b"first")
    fd = cache.open("key", 5)
    put(cache, content=b"second")
    assert os.pread(fd, 10, 0) == b"first"
    os.close(fd)
    assert read(cache, size=6) == b"second"


def test_any_key_names_one_file_inside_the_cache(tmp_path, cache):
    keys = ["../../../etc/passwd", "/", "", "\x00", "\ud800", "k" * 5000, "K" * 5000]
    for number, key in enumerate(keys):
        put(cache, key, bytes([number]))
    assert [read(cache, key, 1) for key in keys] == [bytes([number]) for number in range(len(keys))]
    assert len(files(tmp_path / "objects")) == len(keys)


def test_nobody_else_may_look_into_the_cache(tmp_path, cache):
    put(cache)
    for path in (tmp_path / "objects", tmp_path / "parts", *(tmp_path / "objects").iterdir()):
        assert path.stat().st_mode & 0o777 == 0o700
    assert files(tmp_path / "objects")[0].stat().st_mode & 0o777 == 0o600


def test_a_descriptor_is_not_passed_on_to_other_programs(cache):
    put(cache)
    fd = cache.open("key", len(BYTES))
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_directory_is_claimed_once_and_marked_for_backup_programs(tmp_path):
    directory = tmp_path / "new" / "cache"
    claim(directory)
    tag = directory / "CACHEDIR.TAG"
    assert tag.read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    before = tag.stat()
    (directory / "something").touch()
    claim(directory)
    assert is_ours(directory)
    assert tag.stat().st_mtime_ns == before.st_mtime_ns  # a full disk keeps nobody from what is there


@pytest.mark.parametrize(
    "tag", [None, "", "Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n", "\xff"]
)
def test_a_directory_of_somebody_elses_is_refused_and_left_alone(tmp_path, tag):
    (tmp_path / "thesis.txt").write_text("all of it")
    if tag is not None:
        (tmp_path / "CACHEDIR.TAG").write_text(tag, encoding="latin-1")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(NotOurs, match="neither empty nor a cache of tciafs: give another --cache-dir"):
        claim(tmp_path)
    assert not is_ours(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.alarming
@pytest.mark.parametrize("content", [BYTES[:-1], BYTES + b"x", b""])
def test_a_file_of_another_length_is_set_aside_and_told(tmp_path, cache, caplog, content):
    put(cache)
    (path,) = files(tmp_path / "objects")
    path.write_bytes(content)
    assert read(cache) is None
    assert not path.exists()
    (aside,) = files(tmp_path / "damaged")
    assert aside.read_bytes() == content
    (message,) = caplog.messages
    assert message.startswith(
        f"the cached file of key is damaged (it has {len(content)} bytes instead of 2560)"
    )


def test_parts_of_processes_that_are_gone_are_removed_and_those_of_the_living_are_not(tmp_path, cache):
    mine = cache.begin("key")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == b"written\n"
        parts = tmp_path / "parts"
        (parts / "4194399-0").write_bytes(b"of an older version")
        assert len(files(parts)) == 3
        assert Cache(tmp_path).remove_leftovers() == 1
        assert len(files(parts)) == 2
        assert cache.begin("written by another") is None
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert len(files(parts)) == 2
    assert Cache(tmp_path).remove_leftovers() == 1
    assert len(files(parts)) == 1
    mine.write(BYTES)
    cache.commit(mine, "key")
    mine.close()
    assert read(cache) == BYTES


def test_what_is_no_part_does_not_keep_a_cache_from_opening(tmp_path, cache):
    (tmp_path / "parts" / "a directory").mkdir()
    (tmp_path / "parts" / "nowhere").symlink_to(tmp_path / "nowhere else")
    assert Cache(tmp_path).remove_leftovers() == 0
    put(Cache(tmp_path))
    assert read(cache) == BYTES


def test_a_part_without_a_name_leaves_nothing(tmp_path, cache):
    for part in (cache.begin_nameless(), Part.in_memory("key")):
        part.write(BYTES)
        assert not part.is_on_disk
        assert os.pread(part.fd, 10, 0) == BYTES[:10]
        part.close()
    assert files(tmp_path) == []
