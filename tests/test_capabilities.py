"""What a server said it lacks is remembered for a week, and nothing kept on disk can stop a mount."""

import json
import time

import pytest

from tciafs.archives.capabilities import Capabilities

DAY = 24 * 3600


@pytest.fixture
def path(tmp_path):
    return tmp_path / "capabilities.json"


def test_nothing_is_lacking_before_the_server_says_so(path):
    assert not Capabilities(path).lacks("v4/a")
    assert not path.exists()


def test_what_is_lacking_is_known_to_the_next_mount(path):
    Capabilities(path).note_lacking("v4/a")
    again = Capabilities(path)
    assert again.lacks("v4/a")
    assert not again.lacks("v4/b")
    again.note_lacking("v4/b")
    third = Capabilities(path)
    assert third.lacks("v4/a")
    assert third.lacks("v4/b")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("age", "lacks"), [(6.9 * DAY, True), (7.1 * DAY, False), (-DAY, False)])
def test_it_is_believed_for_a_week_and_never_from_a_time_to_come(path, age, lacks):
    path.write_text(json.dumps({"v4/a": time.time() - age}))
    assert Capabilities(path).lacks("v4/a") is lacks


def test_what_is_said_again_is_believed_for_another_week(path):
    path.write_text(json.dumps({"v4/a": time.time() - 8 * DAY}))
    capabilities = Capabilities(path)
    capabilities.note_lacking("v4/a")
    assert capabilities.lacks("v4/a")
    assert Capabilities(path).lacks("v4/a")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"7",
        b'"v4/a"',
        b'{"v4/a": null}',
        b'{"v4/a": "yesterday"}',
        b'{"v4/a": [1]}',
        b'{"v4/a": NaN}',
        b'{"v4/a": Infinity}',
        b'{"v4/a": 1' + b"0" * 400 + b"}",
        b"[" * 100_000,
    ],
    ids=lambda content: content[:20].decode("ascii", "replace"),
)
def test_a_broken_file_is_nothing_known_and_is_written_anew(path, content):
    path.write_bytes(content)
    capabilities = Capabilities(path)
    assert not capabilities.lacks("v4/a")
    capabilities.note_lacking("v4/b")
    assert Capabilities(path).lacks("v4/b")
    assert not Capabilities(path).lacks("v4/a")


def test_a_folder_in_its_place_is_nothing_known_and_what_is_noted_holds_in_this_mount(path):
    path.mkdir()
    capabilities = Capabilities(path)
    capabilities.note_lacking("v4/a")
    assert capabilities.lacks("v4/a")
    assert path.is_dir()


def test_a_disk_that_takes_nothing_costs_only_the_memory(tmp_path):
    capabilities = Capabilities(tmp_path / "no such folder" / "capabilities.json")
    capabilities.note_lacking("v4/a")
    assert capabilities.lacks("v4/a")
