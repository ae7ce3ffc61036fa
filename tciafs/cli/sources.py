"""Where settings come from: the configuration file, then `TCIAFS_*` variables, then flags, the last one wins.

What is wrong in the file or a variable ends the command with one line that names it.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import click
import platformdirs

from tciafs.cli.failure import Failure
from tciafs.cli.settings import DIRECTORY, FILE, SETTINGS, Setting
from tciafs.config import API, PROFILES, Config, WrongSetting, is_base_address
from tciafs.service.mountinfo import mount_at

# Of our tests and of CI; no settings, so no mistakes either.
_NOT_SETTINGS = {"TCIAFS_REQUIRE_FUSE", "TCIAFS_REQUIRE_TOOLS", "TCIAFS_CI_RUN"}

_LARGEST_FILE = 1 << 20
_LIKE = 0.7  # of 1: what is spelled this much like a setting was meant for it; "mount" is no "account"


class Sources:
    """What the file and the environment say: values by name of the setting, and where each was found."""

    def __init__(self, file: Path | None = None) -> None:
        self.values: dict[str, Any] = {"cache_dir": platformdirs.user_cache_path("tciafs")}
        self.archives: dict[str, dict[str, str]] = {}
        self._places: dict[str, str] = {}
        self._read_file(file)
        self._read_environment()

    def config(self, mountpoint: Path, flags: dict[str, Any]) -> Config:
        """Return the settings of a mount; flags that are None were not given."""
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        chosen = self.values | given
        if archive := self.archives.get(chosen.get("archive", "")):
            chosen["archive"] = archive["url"]
            is_nearer = "api" in given or self._places.get("api") == "TCIAFS_API"
            if "api" in archive and not is_nearer:
                chosen["api"] = archive["api"]
        chosen["cache_dir"] = Path(os.path.realpath(chosen["cache_dir"]))
        try:
            return Config(mountpoint=located(mountpoint), **chosen)
        except WrongSetting as exc:
            what = str(exc)
            if exc.name == "archive" and self.archives:
                what += f"; the file names {', '.join(self.archives)}"
            place = None if exc.name in given else self._places.get(exc.name)
            if place is None:
                raise Failure(what) from exc
            _refuse(place, what.removeprefix(f"--{exc.name.replace('_', '-')} "))

    def _read_environment(self) -> None:
        known = {setting.variable: setting for setting in SETTINGS}
        for variable, value in os.environ.items():
            if not variable.startswith("TCIAFS_") or variable in _NOT_SETTINGS:
                continue
            if variable not in known:
                _refuse(variable, f"no such setting; {_remedy(variable, known)}")
            if value:  # an empty one is how a unit or a container unsets it
                self._take(known[variable], known[variable].in_environment(value), variable)

    def _read_file(self, file: Path | None) -> None:
        path = file or platformdirs.user_config_path("tciafs") / "config.toml"
        tables = read_toml(path, must_exist=file is not None)
        known = {setting.name: setting for setting in SETTINGS}
        self.archives = _archives(path, tables.pop("archives", {}))
        taken: set[str] = set()
        for key, value in tables.items():
            name, place = key.replace("-", "_"), f"{path}: {_name(key)}"
            if name not in known:
                _refuse(place, f"no such setting; {_remedy(name, known)}")
            if name in taken:
                _refuse(place, "given twice; remove one of the two")
            taken.add(name)
            kind = known[name].kind
            if type(value) not in kind.toml:  # not isinstance(): true is no number
                _refuse(place, f"{_shown(value)}: takes {kind.takes}")
            if kind in (DIRECTORY, FILE) and not value.startswith("~"):
                value = str(path.absolute().parent / value)
            self._take(known[name], value, place)

    def _take(self, setting: Setting, value: object, place: str) -> None:
        try:
            self.values[setting.name] = setting.kind.click.convert(value, None, None)
        except (click.BadParameter, OverflowError) as exc:
            raise Failure(f"{place}: {_shown(value)}: takes {setting.kind.takes}") from exc
        self._places[setting.name] = place


def located(mountpoint: Path) -> Path:
    """Return a mount point as the kernel's table has it, without ".." or links; a mount is not touched."""
    beside = Path(os.path.realpath(mountpoint.parent), mountpoint.name)
    return beside if mount_at(beside) else Path(os.path.realpath(mountpoint))


def read_toml(path: Path, must_exist: bool) -> dict[str, Any]:
    """Return what a file says; nothing where it is not there and need not be."""
    try:
        with path.open("rb") as file:
            read = file.read(_LARGEST_FILE + 1)
    except (FileNotFoundError, NotADirectoryError) as exc:
        if must_exist:
            raise Failure(f"{path}: no such file; --config takes a TOML file of settings") from exc
        return {}
    except OSError as exc:
        raise Failure(
            f"{path}: cannot be read ({exc.strerror}); mend that or name another with --config"
        ) from exc
    if len(read) > _LARGEST_FILE:
        _refuse(str(path), "larger than 1 MiB, which is no file of settings")
    try:
        text = read.decode()
    except UnicodeDecodeError as exc:
        lines = read[: exc.start].split(b"\n")
        _refuse(f"{path}: line {len(lines)}, column {len(lines[-1]) + 1}", "not UTF-8; save it so")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        _refuse_toml(path, text, str(exc))
    except (ValueError, RecursionError) as exc:  # of a number of thousands of digits; of brackets in brackets
        raise Failure(f"{path}: not TOML that can be read ({exc}); mend it") from exc


def _refuse_toml(path: Path, text: str, said: str) -> NoReturn:
    what, _, where = said.rpartition(" (at ")
    found = re.fullmatch(r"line (\d+), column (\d+)\)", where)
    lines = text.split("\n")
    line, column = (int(found[1]), int(found[2])) if found else (len(lines), len(lines[-1]) + 1)
    _refuse(f"{path}: line {line}, column {column}", f"{what}; see https://toml.io")


def _archives(path: Path, tables: object) -> dict[str, dict[str, str]]:
    """Return the settings of each archive that the file names."""
    if not isinstance(tables, dict):
        _refuse(
            f"{path}: archives", 'takes tables: [archives.NAME] with url = "https://host/nbia-api/services"'
        )
    found: dict[str, dict[str, str]] = {}
    for name, table in tables.items():
        place = f"{path}: archives.{_name(name)}"
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            _refuse(place, "a name takes letters, digits, '.', '_' and '-'")
        if name in PROFILES:
            _refuse(place, "this archive is built in; choose another name")
        if not isinstance(table, dict):
            _refuse(place, 'takes a table with url = "https://host/nbia-api/services"')
        for key in table:
            if key not in ("url", "api"):
                _refuse(f"{place}.{_name(key)}", "no such setting; an archive takes url and api")
        url = table.get("url")
        if not isinstance(url, str) or not is_base_address(url):
            said = "takes an address like https://host/nbia-api/services"
            _refuse(f"{place}.url", said if url is None else f"{_shown(url)}: {said}")
        if table.get("api", "auto") not in API:
            _refuse(f"{place}.api", f"{_shown(table['api'])}: takes {' or '.join(API)}")
        found[name] = table
    return found


def _remedy(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, _LIKE)
    return f"do you mean {close[0]}?" if close else "'tciafs mount --help' lists those that are"


def _name(key: str) -> str:
    return key if key.isprintable() else ascii(key)


def _shown(value: object) -> str:
    """Return a value that was refused, in one short line."""
    if isinstance(value, dict):
        return "a table"
    shown = str(value).lower() if isinstance(value, bool) else ascii(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}…"


def _refuse(place: str, what: str) -> NoReturn:
    raise Failure(f"{place}: {what}")
