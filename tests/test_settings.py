"""Options, documents and `Config` have the same settings; the nearest source wins; mistakes are told."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tciafs.cli import main
from tciafs.cli.failure import Failure
from tciafs.cli.mount import JsonLines, default_cache_dir
from tciafs.cli.settings import SETTINGS, Setting
from tciafs.cli.sources import Sources, located
from tciafs.config import Config
from tests.archive import EmbeddedArchive
from tests.drive import mounted
from tests.test_cli import tciafs

DOCUMENT = Path(__file__).parent.parent / "docs" / "configuration.md"
MOUNTPOINT = Path("/mnt/tcia")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a home of its own, with no settings."""
    for name in [name for name in os.environ if name.startswith(("TCIAFS_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def file(home: Path) -> Path:
    """Return where the configuration file is looked for."""
    path = home / ".config" / "tciafs" / "config.toml"
    path.parent.mkdir(parents=True)
    return path


def config(file: Path | None = None, **flags: object) -> Config:
    return Sources(file).config(MOUNTPOINT, flags)


def refused(file: Path | None = None, **flags: object) -> str:
    with pytest.raises(Failure) as caught:
        config(file, **flags)
    assert "\n" not in caught.value.message
    return caught.value.message


def row(setting: Setting) -> str:
    default = setting.default if setting.unset else f"`{setting.default}`"
    return f"| `{setting.flag}` | {setting.kind.takes} | {default} | {setting.help} |"


def test_settings_options_and_the_document_are_the_same():
    settings = {setting.name for setting in SETTINGS}
    assert settings == {field.name for field in fields(Config)} - {"mountpoint"}
    options = {parameter.name for parameter in main.commands["mount"].params}
    assert options == settings | {"mountpoint", "file", "daemon"}
    assert re.findall(r"^\| `--.*$", DOCUMENT.read_text(), re.MULTILINE) == [row(s) for s in SETTINGS]


def test_help_tells_every_option_with_its_default():
    said = re.sub(r"\s+", " ", tciafs("mount", "--help").stdout)
    for setting in SETTINGS:
        assert setting.flag in said
        assert f"{setting.help} [default: {setting.default}]" in said


def test_the_defaults_that_are_told_are_those_that_hold(home: Path):
    made = config()
    assert made == Config(mountpoint=MOUNTPOINT, cache_dir=home / ".cache" / "tciafs")
    for setting in SETTINGS:
        if not setting.unset:
            assert setting.kind.click.convert(setting.default, None, None) == getattr(made, setting.name)
    assert made.cache_dir == Path("~/.cache/tciafs").expanduser()


def test_the_nearest_source_wins(file: Path, monkeypatch: pytest.MonkeyPatch):
    file.write_text('cache_size = "1G"\nkeep-free = 1\ndeadline_bytes = 1.5\nallow_other = true\n')
    monkeypatch.setenv("TCIAFS_KEEP_FREE", "2")
    monkeypatch.setenv("TCIAFS_DEADLINE_BYTES", "2")
    monkeypatch.setenv("TCIAFS_CACHE_SIZE", "")
    made = config(deadline_bytes=3.0, allow_other=False)
    assert (made.cache_size, made.keep_free, made.deadline_bytes, made.allow_other) == (1 << 30, 2, 3, False)


def test_a_path_in_the_file_begins_there(file: Path, home: Path):
    file.write_text('manifest = "lists/mine.tcia"\n')
    assert config().manifest == file.parent / "lists" / "mine.tcia"
    assert config(manifest=Path("/x.tcia")).manifest == Path("/x.tcia")
    file.write_text('manifest = "~/mine.tcia"\n')
    assert config().manifest == home / "mine.tcia"


def test_every_setting_can_stand_in_the_file_and_in_the_environment(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    values = {
        "archive": "nlst",
        "api": "v1",
        "account": "alice",
        "share_restricted": "true",
        "collection": "A collection",
        "patient": "7",
        "modality": "CT",
        "body_part": "CHEST",
        "manifest": str(tmp_path / "m.tcia"),
        "shared_cart": "nbia-1",
        "layout": "uid",
        "cache_dir": str(tmp_path / "c"),
        "cache_size": "1M",
        "keep_free": "1.5",
        "sizes": "exact",
        "xattrs": "off",
        "ahead": "off",
        "verify": "size",
        **{name: "7" for name in Config.__dataclass_fields__ if name.startswith(("ttl_", "deadline_"))},
        "allow_other": "true",
        "uid": "7",
        "gid": "8",
        "umask": "027",
        "proxy": "http://p:3128",
        "log_format": "json",
        "accept_data_usage_policy": "true",
    }
    assert set(values) == {setting.name for setting in SETTINGS}
    quoted = {
        s.name: values[s.name] if s.kind.toml[0] in (float, bool) else f'"{values[s.name]}"' for s in SETTINGS
    }
    quoted |= {"uid": "7", "gid": "8", "keep_free": "1.5"}
    quoted |= {name: "7" for name in values if name.startswith(("ttl_", "deadline_"))}
    file.write_text("".join(f"{name} = {value}\n" for name, value in quoted.items()))
    of_the_file = config()
    file.unlink()
    for name, value in values.items():
        monkeypatch.setenv(f"TCIAFS_{name.upper()}", value)
    of_the_environment = config()
    assert of_the_file == of_the_environment
    assert (of_the_file.umask, of_the_file.layout, of_the_file.cache_size) == (0o27, "uid", 1 << 20)
    assert of_the_file != Config(mountpoint=MOUNTPOINT, cache_dir=tmp_path / "c")


def test_a_selection_has_several_names_in_each_source(file: Path, monkeypatch: pytest.MonkeyPatch):
    file.write_text('collection = ["A, B", "C"]\npatient = "1, 2"\nbody-part = []\n')
    made = config()
    assert (made.collection, made.patient, made.body_part) == (("A, B", "C"), ("1, 2",), ())
    monkeypatch.setenv("TCIAFS_COLLECTION", " A B , C\nD,\n")
    monkeypatch.setenv("TCIAFS_MODALITY", "ct")
    made = config(modality=("MR", "mr"), collection=())
    assert (made.collection, made.modality) == (("A B", "C", "D"), ("MR", "mr"))
    assert made.selection.modalities == ("MR",)
    assert not config(Path(os.devnull), modality=()).selection.patients


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--collection", " ", "takes a name as the archive spells it"),
        ("--patient", "a\nb", "takes a name as the archive spells it"),
        ("--modality", "C'T", "takes a code like CT or CHEST"),
        ("--body-part", "C%", "takes a code like CT or CHEST"),
    ],
)
def test_what_can_be_no_name_is_refused(tmp_path: Path, flag: str, value: str, said: str):
    done = tciafs("mount", tmp_path, flag, value)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tciafs: {flag} {value!r}: {said}\n"
    assert tciafs("mount", tmp_path, flag).returncode == 2


def test_an_archive_can_be_named_in_the_file(file: Path):
    file.write_text('archive = "lab"\n[archives.lab]\nurl = "http://h/nbia-api/services/"\n')
    made = config()
    assert made.url == "http://h/nbia-api/services"
    assert made.archive_name == config(archive="http://h/nbia-api/services").archive_name
    assert config(archive="tcia").archive_name == "tcia"
    assert refused(archive="lob").endswith("https://host/nbia-api/services; the file names lab")


def test_a_directory_begins_at_home_or_at_the_file(file: Path, home: Path):
    file.write_text('cache_dir = "~/scans"')
    assert config().cache_dir == home / "scans"
    file.write_text('cache_dir = "scans"')
    assert config().cache_dir == default_cache_dir() == file.parent / "scans"


def test_a_mount_point_is_what_the_kernel_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a" / "drive").mkdir(parents=True)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "a" / "other").symlink_to("drive")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path / "a")
    for given in ("drive", "../a/drive", "../link/drive", "other", f"{tmp_path}/link/other", "drive/."):
        assert Sources().config(Path(given), {}).mountpoint == tmp_path / "a" / "drive"
    assert located(Path("..")) == tmp_path
    assert located(Path("/proc")) == Path("/proc")
    assert located(tmp_path / "loop").name == "loop"
    with pytest.raises(Failure, match="overlap: give another --cache-dir"):
        Sources().config(Path("other"), {"cache_dir": tmp_path / "link" / "drive" / "cache"})


def test_an_archive_of_the_file_may_say_which_interface_it_has(file: Path, monkeypatch: pytest.MonkeyPatch):
    file.write_text('api = "v2"\n[archives.lab]\nurl = "http://h/x"\napi = "v1"\n')
    assert (config(archive="lab").api, config(archive="nlst").api) == ("v1", "v2")
    assert config(archive="lab", api="v4").api == "v4"
    monkeypatch.setenv("TCIAFS_API", "auto")
    assert config(archive="lab").api == "auto"


def test_another_file_is_read_instead(file: Path, tmp_path: Path):
    file.write_text("no TOML")
    other = tmp_path / "other.toml"
    other.write_text("uid = 7")
    assert config(other).uid == 7
    assert refused(tmp_path / "none") == (
        f"{tmp_path / 'none'}: no such file; --config takes a TOML file of settings"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = [", "line 1, column 6: Invalid value; see https://toml.io"),
        ("uid = 1\nb = 1 c = 2", "line 2, column 7: Expected newline"),
        ('uid = 1\narchive = "\udcff"', "line 2, column 12: not UTF-8"),
        (f"x = {'[' * 5000}", "not TOML that can be read ("),
        (f"x = {'9' * 5000}", "not TOML that can be read ("),
        ("#" * (1 << 20) + "#", "larger than 1 MiB"),
        ('cach_size = "2G"', "cach_size: no such setting; do you mean cache_size?"),
        ("[mount]", "mount: no such setting; 'tciafs mount --help' lists those that are"),
        ('"a\\nb" = 1', "'a\\nb': no such setting"),
        ("cache-size = 1\ncache_size = 2", "cache_size: given twice; remove one of the two"),
        ("cache_size = true", 'cache_size: true: takes a whole number of bytes or a size like "500M"'),
        ("cache_size = -1", "cache_size: -1: takes a whole number of bytes"),
        (f"cache_size = {2**63}", f"cache_size: {2**63}: takes a whole number of bytes"),
        ('uid = "7"', "uid: '7': takes a whole number"),
        ("uid = -1", "uid: takes a number from 0 to 4294967294"),
        ("[uid]", "uid: a table: takes a whole number"),
        ("deadline_bytes = 0", "deadline_bytes: must be more than 0 seconds"),
        ("deadline_bytes = -1", "deadline_bytes: -1: takes a number of seconds, 0 or more"),
        (f"deadline_bytes = {'9' * 400}", f"deadline_bytes: {'9' * 200}…: takes a number of seconds"),
        ("umask = 22", 'umask: 22: takes an octal number in quotes, like "022"'),
        ('umask = "9"', "umask: '9': takes an octal number in quotes"),
        ('layout = "flat"', 'layout: \'flat\': takes "descriptive" or "retriever" or "uid"'),
        ('log_format = "xml"', 'log_format: \'xml\': takes "text" or "json"'),
        ('cache_dir = "~nobody-here/x"', "cache_dir: '~nobody-here/x': takes the path of a directory"),
        ('cache_dir = "config.toml"', "config.toml': takes the path of a directory"),
        ('cache_dir = "/mnt/tcia/x"', "cache_dir: the cache /mnt/tcia/x and the mount point"),
        ('proxy = "p:3128"', "proxy: takes an address like http://host:3128"),
        ('archive = "lab"', "archive: 'lab': neither one of tcia, nlst nor an address"),
        ("collection = 3", "collection: 3: takes a name, or a list of names"),
        ('patient = ["a", 3]', "patient: ['a', 3]: takes a name, or a list of names"),
        ('modality = ""', "modality: '': takes a name as the archive spells it"),
        ('body_part = "a*"', "body_part: 'a*': takes a code like CT or CHEST"),
        ("archives = 3", "archives: takes tables: [archives.NAME] with url"),
        ("archives.lab = 3", "archives.lab: takes a table with url"),
        ("[archives.lab]", "archives.lab.url: takes an address like"),
        ('[archives.lab]\nurl = "x"', "archives.lab.url: 'x': takes an address like"),
        ('[archives.lab]\nurl = "http://h/x"\napi = "v3"', "archives.lab.api: 'v3': takes auto or v4 or v2"),
        ('[archives.lab]\nurl = "http://h/x"\napi = 1', "archives.lab.api: 1: takes auto or v4 or v2"),
        ('[archives.lab]\nurl = "http://h/x"\nkey = 1', "archives.lab.key: no such setting; an archive"),
        ('[archives."http://h"]\nurl = "http://h/x"', "archives.http://h: a name takes letters, digits"),
        ('[archives.tcia]\nurl = "http://h/x"', "archives.tcia: this archive is built in; choose another"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_with_its_place(file: Path, text: str, said: str):
    file.write_bytes(text.encode(errors="surrogateescape"))
    told = refused()
    assert told.startswith(f"{file}: ")
    assert said in told


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TCIAFS_DEADLINE_BYTES", "soon", "'soon': takes a number of seconds, 0 or more"),
        ("TCIAFS_DEADLINE_BYTES", "nan", "must be more than 0 seconds"),
        ("TCIAFS_CACHE_SIZE", "9" * 400 + "T", "…: takes a whole number of bytes"),
        ("TCIAFS_ALLOW_OTHER", "maybe", "'maybe': takes true or false"),
        ("TCIAFS_UMASK", "7777", "takes an octal number from 000 to 777"),
        ("TCIAFS_ARCHIVE", "\x1b\n", "neither one of tcia, nlst"),
        ("TCIAFS_CACHE_DRI", "/x", "no such setting; do you mean TCIAFS_CACHE_DIR?"),
        ("TCIAFS_ARCHIVES", "x", "no such setting; do you mean TCIAFS_ARCHIVE?"),
        ("TCIAFS_", "", "no such setting; "),
    ],
)
def test_a_mistake_in_the_environment_is_told_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
):
    monkeypatch.setenv(name, value)
    told = refused()
    assert told.startswith(f"{name}: ")
    assert said in told


def test_what_a_flag_says_is_not_told_as_the_files(file: Path):
    file.write_text("keep_free = 50")
    assert refused(keep_free=101.0) == "--keep-free takes a percentage from 0 to 100"


def test_the_variables_of_the_tests_are_no_mistakes(monkeypatch: pytest.MonkeyPatch):
    for name in ("TCIAFS_REQUIRE_FUSE", "TCIAFS_REQUIRE_TOOLS", "TCIAFS_CI_RUN"):
        monkeypatch.setenv(name, "1")
        assert f"`{name}`" in DOCUMENT.read_text()
    assert config().archive == "tcia"


def test_a_file_that_cannot_be_read_is_told(file: Path):
    file.mkdir()
    assert refused().startswith(f"{file}: cannot be read (Is a directory); ")


def test_the_program_reads_all_of_them(file: Path, tmp_path: Path, archive: EmbeddedArchive):
    file.write_text(
        f'archive = "lab"\nlayout = "uid"\numask = "077"\n[archives.lab]\nurl = "{archive.url}"\n'
    )
    assert tciafs("cache", "info").stderr.startswith(f"tciafs: {Path.home()}/.cache/tciafs: no cache")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TCIAFS_LAYOUT", "retriever")
        with mounted(tmp_path, "lab") as drive:
            told = drive.status()
            assert (told["archive"]["url"], told["mount"]["layout"]) == (archive.url, "retriever")
            assert drive.path.stat().st_mode & 0o777 == 0o500
        environment.setenv("TCIAFS_CACHE_DIR", str(tmp_path / "cache"))
        assert "0 files" in tciafs("cache", "info").stdout
        environment.setenv("TCIAFS_LAYOUT", "flat")
        done = tciafs("mount", drive.path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            'tciafs: TCIAFS_LAYOUT: \'flat\': takes "descriptive" or "retriever" or "uid"\n'
        )


def test_a_log_of_json_has_an_object_a_line(tmp_path: Path, archive: EmbeddedArchive):
    with mounted(tmp_path, archive.url, "--log-format", "json", expect="WARNING|ERROR") as drive:
        os.listdir(drive.path)
        assert drive.end() == 0
    lines = [json.loads(line) for line in drive.log.splitlines()]
    assert {"time", "level", "logger", "message"} == set(lines[0])
    assert "SIGTERM: the mount ends" in [line["message"] for line in lines]


def test_a_traceback_is_a_field_of_its_line():
    try:
        raise ValueError("of no use")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "", 0, "%s\n\udcff", ("x",), sys.exc_info())
    record.created = 0.25
    line = JsonLines().format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("exception").endswith("ValueError: of no use")
    time = "1970-01-01T00:00:00.250+00:00"
    assert told == {"time": time, "level": "ERROR", "logger": "a.b", "message": "x\n\udcff"}
    assert all(f"`{field}`" in DOCUMENT.read_text() for field in (*told, "exception"))
