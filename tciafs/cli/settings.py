"""The one table of a mount's settings: how each is given as a flag, in the file and in the environment.

Their defaults, and what values of a right type are refused, are `Config`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from tciafs.config import AHEAD, API, LOG_FORMATS, PROFILES, SIZES, VERIFY, XATTRS, Config
from tciafs.names import Layout

F = TypeVar("F", bound=Callable[..., Any])

_LARGEST = 2**63 - 1


class Umask(click.ParamType[int]):
    """An octal number."""

    name = "octal"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        try:
            return int(str(value), 8)
        except ValueError:
            self.fail(f"{value} is no octal number like 022", param, ctx)


class ByteSize(click.ParamType[int]):
    """A number of bytes, or of K, M, G or T of 1024."""

    name = "bytes"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", str(value).upper().replace("IB", "B"))
        size = float(match[1]) * 1024 ** " KMGT".index(match[2] or " ") if match else _LARGEST
        if size >= _LARGEST:
            self.fail(f"{value} is no size like 500M or 20G", param, ctx)
        return int(size)


class Place(click.Path):
    """A path of what may not be there yet; `~` is the user's own."""

    def __init__(self, **kinds: bool) -> None:
        super().__init__(path_type=Path, **kinds)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return its absolute path."""
        try:
            path = Path(str(value)).expanduser().absolute()
        except RuntimeError:
            self.fail(f"nobody's home directory is {value}", param, ctx)
        super().convert(path, param, ctx)
        return path


class Several(click.ParamType[tuple[str, ...]]):
    """Names: one text, or a list of them."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names."""
        given = [value] if isinstance(value, str) else value
        if not all(isinstance(text, str) for text in given):
            self.fail("not all of these are texts", param, ctx)
        return tuple(given)


class LayoutName(click.Choice[str]):
    """The name of a layout."""

    def __init__(self) -> None:
        super().__init__([str(layout) for layout in Layout])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Layout:
        """Return the layout."""
        return Layout(super().convert(value, param, ctx))


@dataclass(frozen=True)
class Kind:
    """What a setting takes: its type for click, the types of its values in TOML, and both in words."""

    click: click.ParamType[Any]
    toml: tuple[type, ...]
    takes: str
    metavar: str | None = None

    @classmethod
    def choice(cls, values: tuple[str, ...]) -> Kind:
        """Make a kind that takes one of several words."""
        return cls(click.Choice(values), (str,), " or ".join(f'"{value}"' for value in values))


def text(takes: str, metavar: str) -> Kind:
    """Make a kind that takes any text."""
    return Kind(click.STRING, (str,), takes, metavar)


SECONDS = Kind(click.FloatRange(min=0), (int, float), "a number of seconds, 0 or more", "SECONDS")
PERCENT = Kind(click.FLOAT, (int, float), "a percentage from 0 to 100", "PERCENT")
NUMBER = Kind(click.INT, (int,), "a whole number")
SWITCH = Kind(click.BOOL, (bool,), "true or false")
SIZE = Kind(ByteSize(), (int, str), 'a whole number of bytes or a size like "500M" or "20G"')
PERMISSIONS = Kind(Umask(), (str,), 'an octal number in quotes, like "022"')
DIRECTORY = Kind(Place(file_okay=False), (str,), "the path of a directory")
FILE = Kind(Place(dir_okay=False), (str,), "the path of a file", "FILE")
LAYOUT = Kind(LayoutName(), (str,), " or ".join(f'"{layout}"' for layout in Layout))
NAMES = Kind(Several(), (str, list), "a name, or a list of names", "NAME")
ARCHIVE = text(f"{', '.join(PROFILES)}, a name from [archives.NAME] or an address", "NAME|URL")
CART = text("a name like nbia-123, or its link", "NAME")
ACCOUNT = text('the name of an account, or "guest"', "NAME")
ADDRESS = text("an address like http://host:3128", "URL")


@dataclass(frozen=True)
class Setting:
    """A field of `Config` that a user can set; `unset` says what holds where it has no default."""

    name: str
    kind: Kind
    help: str
    unset: str = ""

    @property
    def flag(self) -> str:
        """Return the name of its option."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Return the name of its variable in the environment."""
        return f"TCIAFS_{self.name.upper()}"

    def in_environment(self, value: str) -> str | list[str]:
        """Return what a variable says: names in it are parted by commas or ends of line."""
        if self.kind is not NAMES:
            return value
        return [name.strip() for name in re.split(r"[,\n]", value) if name.strip()]

    @property
    def default(self) -> str:
        """Return its default as a user would write it."""
        value: Any = Config.__dataclass_fields__[self.name].default
        if self.unset:
            return self.unset
        if self.kind is SIZE:
            return f"{value >> 30}G"
        if self.kind is PERMISSIONS:
            return f"{value:03o}"
        if self.kind is SWITCH:
            return str(value).lower()
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)

    def option(self) -> Callable[[F], F]:
        """Make its option, whose value is None unless it is given."""
        shown = f"{self.help}  [default: {self.default}]"
        if self.kind is SWITCH:
            return click.option(f"{self.flag}/--no-{self.flag[2:]}", self.name, default=None, help=shown)
        many = self.kind is NAMES
        kind = click.STRING if many else self.kind.click
        metavar = self.kind.metavar
        return click.option(
            self.flag, self.name, type=kind, metavar=metavar, multiple=many, default=None, help=shown
        )


SETTINGS = (
    Setting(
        "archive",
        ARCHIVE,
        f"{', '.join(PROFILES)}, a name from the configuration file,"
        " or the address of an NBIA service (http://host:port/nbia-api/services).",
    ),
    Setting(
        "api",
        Kind.choice(API),
        "Which of NBIA's interfaces to ask; 'auto' asks the newest that the archive has.",
    ),
    Setting(
        "account",
        ACCOUNT,
        "Whose login must be there ('tciafs login'), or 'guest' to use none.",
        "that of the login, if there is one",
    ),
    Setting("collection", NAMES, "Show this collection; give the option again to show others, too.", "all"),
    Setting(
        "patient", NAMES, "Show the patient with this PatientID, in whatever collection; repeatable.", "all"
    ),
    Setting("modality", NAMES, "Show series of this modality, like CT or RTSTRUCT; repeatable.", "all"),
    Setting("body_part", NAMES, "Show series of this BodyPartExamined, like CHEST; repeatable.", "all"),
    Setting(
        "manifest",
        FILE,
        "Show the series of this .tcia manifest, or of a CSV or TSV with a SeriesInstanceUID column.",
        "none",
    ),
    Setting("shared_cart", CART, "Show the series of the shared cart of this name, or at this link.", "none"),
    Setting("layout", LAYOUT, "How studies, series and files are named."),
    Setting("cache_dir", DIRECTORY, "Where listings and images are kept.", "~/.cache/tciafs"),
    Setting(
        "cache_size",
        SIZE,
        "How many bytes are kept of all archives together; what was used least goes first.",
    ),
    Setting("keep_free", PERCENT, "How many percent of the disk the cache leaves free, whatever its size."),
    Setting(
        "sizes",
        Kind.choice(SIZES),
        "Where an archive tells no sizes: estimate them until a file is opened, or fetch it for its size.",
    ),
    Setting(
        "xattrs",
        Kind.choice(XATTRS),
        "Whether user.tcia.* attributes are there; 'off' leaves nothing for 'cp -a' or 'rsync -X' to copy.",
    ),
    Setting(
        "ahead",
        Kind.choice(AHEAD),
        "Whether what follows is fetched, and verified on disk, ahead of who reads a series in order.",
    ),
    Setting(
        "verify",
        Kind.choice(VERIFY),
        "What an image must match before it can be read; 'size' saves a request an image.",
    ),
    Setting("ttl_collections", SECONDS, "How many seconds the list of collections is believed."),
    Setting("ttl_listings", SECONDS, "How many seconds lists of patients, studies and series are."),
    Setting(
        "ttl_instances",
        SECONDS,
        "How many seconds the list of a series' files is; up to three times that while it is told unchanged.",
    ),
    Setting("deadline_metadata", SECONDS, "How many seconds a reader waits for a listing."),
    Setting("deadline_bytes", SECONDS, "How many seconds a reader waits while no bytes come."),
    Setting("allow_other", SWITCH, "Let other users read the drive."),
    Setting(
        "share_restricted",
        SWITCH,
        "Let --allow-other share what only your login may see.",
    ),
    Setting("uid", NUMBER, "Whom everything belongs to, by number.", "you"),
    Setting("gid", NUMBER, "Which group everything belongs to, by number.", "yours"),
    Setting("umask", PERMISSIONS, "Permissions to take away, in octal."),
    Setting("proxy", ADDRESS, "HTTP proxy to ask the archive through.", "none"),
    Setting("log_format", Kind.choice(LOG_FORMATS), "How the log is written: lines of text, or of JSON."),
    Setting(
        "accept_data_usage_policy",
        SWITCH,
        "Agree to the archive's Data Usage Policy; that is remembered, and needed once an archive.",
    ),
)


def options(command: F) -> F:
    """Give a command one option a setting."""
    return some_options(*(setting.name for setting in SETTINGS))(command)


def some_options(*names: str) -> Callable[[F], F]:
    """Give a command the options of some settings."""

    def give(command: F) -> F:
        for setting in reversed([setting for setting in SETTINGS if setting.name in names]):
            command = setting.option()(command)
        return command

    return give


config_option = click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read settings from here.  [default: ~/.config/tciafs/config.toml, if it is there]",
)
