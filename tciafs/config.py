"""The settings of one mount: defaults once, checked once, no I/O."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tciafs.names import Layout
from tciafs.selection import Selection

PROFILES = {
    "tcia": "https://nbia.cancerimagingarchive.net/nbia-api/services",
    "nlst": "https://nlst.cancerimagingarchive.net/nbia-api/services",
}


NOWHERE = Path("/dev/null")  # the mount point of a command that mounts nothing
API = ("auto", "v4", "v2", "v1")
VERIFY = ("md5", "size")
SIZES = ("estimate", "exact")
XATTRS = ("on", "off")
AHEAD = ("on", "off")
LOG_FORMATS = ("text", "json")
GUEST = "guest"
_SELECTED = ("collection", "patient", "modality", "body_part")
_CODE = re.compile(r"[^'\"\\%*]{1,64}")  # the others mean something to NBIA's search
_LARGEST_ID = 2**32 - 2  # the next one means "nobody was named" to chown(2)


class WrongSetting(ValueError):
    """A setting cannot be used; the message says why, and what would do."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name  # of the field of `Config`


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that `tciafs mount` can be told: seconds, bytes, and `keep_free` in percent."""

    mountpoint: Path
    cache_dir: Path
    archive: str = "tcia"
    api: str = "auto"
    account: str | None = None
    collection: tuple[str, ...] = ()
    patient: tuple[str, ...] = ()
    modality: tuple[str, ...] = ()
    body_part: tuple[str, ...] = ()
    manifest: Path | None = None
    shared_cart: str | None = None
    layout: Layout = Layout.DESCRIPTIVE
    cache_size: int = 20 << 30
    keep_free: float = 10.0
    verify: str = "md5"
    sizes: str = "estimate"
    xattrs: str = "on"
    ahead: str = "on"
    ttl_collections: float = 24 * 3600.0
    ttl_listings: float = 6 * 3600.0
    ttl_instances: float = 30 * 24 * 3600.0
    deadline_metadata: float = 15.0
    deadline_bytes: float = 30.0
    allow_other: bool = False
    share_restricted: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    proxy: str | None = None
    log_format: str = "text"
    accept_data_usage_policy: bool = False

    def __post_init__(self) -> None:
        _ = self.url
        self._check_words()
        self._check_selection()
        self._check_numbers()
        self._check_places()

    def _check_words(self) -> None:
        choices = {
            "api": API,
            "verify": VERIFY,
            "sizes": SIZES,
            "xattrs": XATTRS,
            "ahead": AHEAD,
            "log_format": LOG_FORMATS,
        }
        for name, values in choices.items():
            if (value := getattr(self, name)) not in values:
                raise WrongSetting(name, f"--{name.replace('_', '-')} {value}: takes {' or '.join(values)}")
        if self.account is not None and not (self.account.strip() and self.account.isprintable()):
            raise WrongSetting("account", f"--account {self.account!r}: takes a name, or guest")
        if self.proxy is not None and not is_base_address(self.proxy):
            # What was given is not told: it may hold a password.
            raise WrongSetting("proxy", "--proxy takes an address like http://host:3128")

    def _check_selection(self) -> None:
        for name in _SELECTED:
            for value in getattr(self, name):
                flag = f"--{name.replace('_', '-')}"
                if not value.strip() or not value.isprintable():
                    raise WrongSetting(name, f"{flag} {value!r}: takes a name as the archive spells it")
                if name in ("modality", "body_part") and not _CODE.fullmatch(value):
                    raise WrongSetting(name, f"{flag} {value!r}: takes a code like CT or CHEST")
        cart = self.shared_cart
        if cart is not None and not (cart_name(cart) and cart.isprintable()):
            raise WrongSetting(
                "shared_cart", f"--shared-cart {cart!r}: takes a name like nbia-123, or its link"
            )

    def _check_numbers(self) -> None:
        for name in ("deadline_metadata", "deadline_bytes"):
            if not getattr(self, name) > 0:  # "nan" is a number, too
                raise WrongSetting(name, f"--{name.replace('_', '-')} must be more than 0 seconds")
        for name in ("ttl_collections", "ttl_listings", "ttl_instances"):
            if not getattr(self, name) >= 0:
                raise WrongSetting(name, f"--{name.replace('_', '-')} must not be negative")
        if not 0 <= self.keep_free <= 100:
            raise WrongSetting("keep_free", "--keep-free takes a percentage from 0 to 100")
        if not 0 <= self.umask <= 0o777:
            raise WrongSetting("umask", "--umask takes an octal number from 000 to 777")
        for name in ("uid", "gid"):
            if not 0 <= (getattr(self, name) or 0) <= _LARGEST_ID:
                raise WrongSetting(name, f"--{name} takes a number from 0 to {_LARGEST_ID}")

    def _check_places(self) -> None:
        """Raise where the mount would cover the cache: reading it would wait for the mount itself."""
        kept = self.archive_dir
        if kept.is_relative_to(self.mountpoint) or self.mountpoint.is_relative_to(kept):
            raise WrongSetting(
                "cache_dir",
                f"the cache {self.cache_dir} and the mount point {self.mountpoint} overlap:"
                " give another --cache-dir",
            )

    @property
    def url(self) -> str:
        """Return the base address of the archive's services."""
        if url := PROFILES.get(self.archive):
            return url
        if is_base_address(self.archive):
            return self.archive.rstrip("/")
        raise WrongSetting(
            "archive",
            f"--archive {self.archive!r}: neither one of {', '.join(PROFILES)} nor an address like"
            " https://host/nbia-api/services",
        )

    @property
    def selection(self) -> Selection:
        """Return which part of the archive is shown, as far as it takes no look at the manifest."""
        cart = None if self.shared_cart is None else cart_name(self.shared_cart)
        return Selection(self.collection, self.patient, self.modality, self.body_part, shared_cart=cart)

    @property
    def archive_name(self) -> str:
        """Return a name of the archive that can stand in a path and in the list of mounts."""
        if self.archive in PROFILES:
            return self.archive
        host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(self.url).netloc.rpartition("@")[2])
        return f"{host}-{hashlib.sha256(self.url.encode()).hexdigest()[:8]}"

    @property
    def is_loopback(self) -> bool:
        """Tell whether the archive runs on this machine, as the demo does, by the look of its address."""
        host = urlsplit(self.url).hostname or ""
        if host == "localhost" or host.endswith(".localhost"):  # RFC 6761: these never lead elsewhere
            return True
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return False

    @property
    def archive_dir(self) -> Path:
        """Return the directory of what is kept of this archive for the account, and for no other."""
        return self.cache_dir / self.archive_name / self._account_name

    @property
    def login_account(self) -> str | None:
        """Return the account whose login is used, None of a guest."""
        return None if self.account == GUEST else self.account

    @property
    def _account_name(self) -> str:
        """Return a name of the account that can stand in a path; of two accounts never the same."""
        if self.login_account is None:
            return GUEST
        name = re.sub(r"[^A-Za-z0-9.-]", "_", self.login_account)[:64]
        return f"{name}-{hashlib.sha256(self.login_account.encode()).hexdigest()[:16]}"


def without_password(address: str) -> str:
    """Return an address as it may be shown; what is no address is returned as it is."""
    return re.sub(r"^([a-z]+://[^/@]*?):[^/]*@", r"\1@", address, count=1, flags=re.IGNORECASE)


def cart_name(text: str) -> str:
    """Return the name of a shared cart, which may be given as the link to it; "" where that has none."""
    link = re.fullmatch(r"https?://[^?#]*\?([^#]*)(?:#.*)?", text.strip(), re.IGNORECASE)
    return parse_qs(link[1]).get("saved-cart", [""])[0] if link else text.strip()


def is_base_address(text: str) -> bool:
    """Tell whether paths can be appended to `text` to ask a web server."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:  # of an address that is none, or of a port beyond 65535
        return False
    is_plain = text.isprintable() and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and is_plain
