"""Manifests of series as they are found in the wild, and as the NBIA Data Retriever takes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tciafs.manifest import BrokenManifest, is_uid, manifest_text, read_manifest

A, B = "1.3.6.1.4.1.14519.5.2.1.1", "1.3.6.1.4.1.14519.5.2.1.20"
HEAD = manifest_text([])

uids = st.lists(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: ".".join(map(str, parts))),
    min_size=1,
    unique=True,
)
strays = st.lists(st.sampled_from(["", "  ", "Series ID", "includeAnnotation=false", "# x", "1..2", "a.b"]))


def test_a_manifest_is_what_the_data_retriever_takes():
    assert manifest_text([A, B], "mine.tcia") == (
        "downloadServerUrl=https://nbia.cancerimagingarchive.net/nbia-download/servlet/DownloadServlet\n"
        "includeAnnotation=true\nnoOfrRetry=4\ndatabasketId=mine.tcia\nmanifestVersion=3.0\n"
        f"ListOfSeriesToDownload=\n{A}\n{B}\n"
    )


@pytest.mark.says(
    "A manifest is read whatever its line ends, and whatever stands in it beside its series.",
)
@given(
    uids,
    strays,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["", HEAD]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_series_are_read_whatever_stands_beside_them(
    listed: list[str], stray: list[str], end: str, head: str, mark: bytes
):
    between = end + end.join(stray) + end
    text = head.replace("\n", end) + between + between.join(listed) + between
    assert read_manifest(mark + text.encode()) == listed


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("name", ["SeriesInstanceUID", "Series Instance UID", "series_instance_uid"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_table_is_read_by_its_column(separator: str, name: str, encoding: str):
    """Its other columns have UIDs as well."""
    rows = [["StudyInstanceUID", name, "x"], ["1.2", A, ""], ["1.2", f'"{B}"', "é"], ["1.2"], ["1.2", A, ""]]
    text = "\r\n".join(separator.join(row) for row in rows)
    assert read_manifest(text.encode(encoding)) == [A, B]


def test_a_table_of_one_column_is_read():
    assert read_manifest(f'SeriesInstanceUID\n"{A}"\n{B}\n'.encode()) == [A, B]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no SeriesInstanceUID; takes"),
        (HEAD.encode(), "has no SeriesInstanceUID; takes"),
        (b"SeriesInstanceUID,x\nno,1\n", "has no SeriesInstanceUID; takes"),
        (b"a,b\n1.2,1.3\n", "has no SeriesInstanceUID; takes"),
        (b"PK\x03\x04\xff\xfe\x00", "is no text; takes"),
        (b"\x00\x001.2", "is no text; takes"),
        (b"\xff\xfe1", "is no text; takes"),
    ],
)
def test_a_broken_manifest_is_told_in_one_line(content: bytes, said: str):
    with pytest.raises(BrokenManifest, match=said) as told:
        read_manifest(content)
    assert str(told.value).isprintable()


@given(st.binary(max_size=200))
def test_whatever_is_read_are_uids_or_an_error(content: bytes):
    with contextlib.suppress(BrokenManifest):
        assert all(map(is_uid, read_manifest(content)))
