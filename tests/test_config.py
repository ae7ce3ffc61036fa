"""Settings are checked once, and what is wrong with one is told in one line."""

from pathlib import Path

import pytest

from tciafs.config import PROFILES, Config, WrongSetting

KNOWN = "neither one of tcia, nlst nor an address like https://host/nbia-api/services"


def config(mountpoint="/mnt/tcia", cache_dir="/var/cache/tciafs", **settings):
    return Config(mountpoint=Path(mountpoint), cache_dir=Path(cache_dir), **settings)


def test_the_defaults_are_those_of_the_design():
    made = config()
    assert (made.archive, made.layout, made.verify) == ("tcia", "descriptive", "md5")
    assert (made.ttl_collections, made.ttl_listings, made.ttl_instances) == (86_400, 21_600, 2_592_000)
    assert (made.deadline_metadata, made.deadline_bytes, made.umask) == (15, 30, 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"deadline_metadata": 0}, "--deadline-metadata must be more than 0 seconds"),
        ({"deadline_metadata": float("nan")}, "--deadline-metadata must be more than 0 seconds"),
        ({"deadline_bytes": -1}, "--deadline-bytes must be more than 0 seconds"),
        ({"ttl_collections": -1}, "--ttl-collections must not be negative"),
        ({"ttl_listings": -0.5}, "--ttl-listings must not be negative"),
        ({"ttl_instances": float("nan")}, "--ttl-instances must not be negative"),
        ({"umask": 0o1000}, "--umask takes an octal number from 000 to 777"),
        ({"umask": -1}, "--umask takes an octal number from 000 to 777"),
        ({"uid": -1}, "--uid takes a number from 0 to 4294967294"),
        ({"gid": 2**32 - 1}, "--gid takes a number from 0 to 4294967294"),
        ({"verify": "sha1"}, "--verify sha1: takes md5 or size"),
        ({"log_format": "xml"}, "--log-format xml: takes text or json"),
        ({"account": " "}, "--account ' ': takes a name, or guest"),
        ({"proxy": "user:secret@p:3128"}, "--proxy takes an address like http://host:3128"),
        ({"proxy": "socks5://p:1080"}, "--proxy takes an address like http://host:3128"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_name_of_its_option(settings, said):
    with pytest.raises(WrongSetting) as caught:
        config(**settings)
    assert str(caught.value) == said
    assert caught.value.name in settings


def test_numbers_at_the_edge_of_their_range_are_taken():
    config(deadline_bytes=0.001, ttl_collections=0, ttl_listings=0, ttl_instances=0, umask=0o777)
    config(uid=0, gid=2**32 - 2, verify="size", deadline_metadata=float("inf"))


@pytest.mark.parametrize(
    ("mountpoint", "cache_dir"),
    [
        ("/a", "/a"),
        ("/a", "/a/b/c"),
        ("/", "/a"),
        ("/a/tcia", "/a"),
        ("/a/tcia/guest", "/a"),
        ("/a/tcia/guest/objects", "/a"),
    ],
)
def test_a_mount_that_would_cover_its_own_cache_is_refused(mountpoint, cache_dir):
    with pytest.raises(WrongSetting) as caught:
        config(mountpoint, cache_dir)
    assert str(caught.value) == (
        f"the cache {cache_dir} and the mount point {mountpoint} overlap: give another --cache-dir"
    )


@pytest.mark.parametrize(("mountpoint", "cache_dir"), [("/ab", "/a"), ("/a", "/ab"), ("/a/mnt", "/a")])
def test_a_mount_beside_its_cache_is_taken(mountpoint, cache_dir):
    config(mountpoint, cache_dir)


@pytest.mark.parametrize("name", ["tcia", "nlst"])
def test_a_profile_has_an_address_and_lends_its_name_to_the_directory(name):
    made = config(archive=name)
    assert made.url == PROFILES[name]
    assert made.archive_name == name
    assert made.archive_dir == Path("/var/cache/tciafs", name, "guest")


@pytest.mark.parametrize(
    ("archive", "name"),
    [
        ("http://127.0.0.1:8042/nbia-api/services", "127.0.0.1_8042-d50d9000"),
        ("https://[::1]:8443/nbia-api/services", "___1__8443-749c89bd"),
        ("https://user:secret@nbia.example.org/nbia-api/services", "nbia.example.org-dd7414b2"),
        ("https://nbiä.example.org/nbia-api/services/", "nbi_.example.org-df8e913a"),
    ],
)
def test_an_address_has_a_name_that_can_stand_in_a_path(archive, name):
    made = config(archive=archive)
    assert made.archive_name == name
    assert made.url == archive.rstrip("/")
    assert made.archive_dir == Path("/var/cache/tciafs", name, "guest")


def test_a_trailing_slash_makes_no_other_archive():
    assert config(archive="http://h/api/").archive_name == config(archive="http://h/api").archive_name
    assert config(archive="http://h/api").archive_name != config(archive="http://h/other").archive_name


@pytest.mark.parametrize(
    "archive",
    [
        "",
        "TCIA",
        "nbia.example.org",
        "ftp://host/nbia-api",
        "http://",
        "http:///nbia-api",
        "http://[::1/nbia-api",
        "http://host:99999/nbia-api",
        "http://host:port/nbia-api",
        "http://host:0/nbia-api",
        "http://host/nbia-api?collection=x",
        "http://host/nbia-api#top",
        "http://host/nbia\n-api",
    ],
)
def test_an_archive_that_is_neither_known_nor_an_address_is_refused(archive):
    with pytest.raises(WrongSetting) as caught:
        config(archive=archive)
    assert str(caught.value) == f"--archive {archive!r}: {KNOWN}"


@pytest.mark.parametrize(
    "given",
    [
        "nbia-12",
        " nbia-12 ",
        "https://h/nbia-search/?saved-cart=nbia-12",
        "http://[?a=b&saved-cart=nbia-12#x",
    ],
)
def test_a_cart_has_a_name_or_a_link(given):
    assert config(shared_cart=given).selection.shared_cart == "nbia-12"


@pytest.mark.parametrize("given", ["", " ", "a\nb", "https://h/nbia-search/?saved-cart=", "https://h/?x=y"])
def test_a_cart_without_a_name_is_refused(given):
    with pytest.raises(WrongSetting, match="takes a name like nbia-123, or its link"):
        config(shared_cart=given)


def test_what_is_kept_of_two_accounts_is_never_in_one_directory():
    names = [None, "alice", "Alice", "a/b", "a_b", "..", ".", "guest ", "é", "x" * 5000, "x" * 5001]
    made = [config(archive="nlst", account=name).archive_dir for name in names]
    assert len(set(made)) == len(names)
    assert {path.parent for path in made} == {Path("/var/cache/tciafs/nlst")}
    assert all(len(path.name) < 100 and path.name.isascii() for path in made)
    assert made[0] == config(archive="nlst", account="guest").archive_dir == made[0].with_name("guest")
