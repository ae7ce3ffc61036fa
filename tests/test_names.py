"""The naming rules: total, unique, safe and steady for every layout, whatever an archive says."""

import hashlib
import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tciafs.model import Collection, Instance, Kind, Patient, Record, Series, Study, key_of, kind_of
from tciafs.names import Layout, alias_of, clean, may_exist, names_of

UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001.298806137288633453246975630178"
HEX = hashlib.sha256(UID.encode()).hexdigest()[:8]
ALIKE = ("1.2.840.19382", "1.2.840.46135")  # SHA-256 of both begins 3dd89d58
RESERVED = {
    Kind.COLLECTION: {"data-usage-policy.txt", ".tciafs"},
    Kind.PATIENT: {"license.txt", "citation.txt", "citation.bib"},
}
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"
}
layouts = st.sampled_from(Layout)


def hex_of(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def study(uid: str = UID, day: date | None = None, description: str | None = None, number=None) -> Study:
    return Study("C", "P", uid, day, description, number)


def series(uid: str = UID, number=None, modality=None, description=None, submitted=None) -> Series:
    return Series("C", "P", "1.2", uid, modality, number, description, submitted=submitted)


def instance(uid: str, number: int | None = None, version: str = "") -> Instance:
    return Instance("1.2", uid, version, number)


def name_of(layout: Layout, record: Record) -> str:
    return names_of(layout, [record])[0]


# Few letters make clashes likely; the sampled texts are what file systems stumble over.
nasty = st.sampled_from(
    [
        *(
            "",
            " ",
            ".",
            "..",
            "...",
            "-",
            "_",
            "null",
            "NULL",
            "con",
            "CON",
            "Con.txt",
            "NUL.dcm",
            "com1",
            "LPT¹.a",
        ),
        *("LICENSE.txt", "license.TXT", "LICENSE.txt ", "CITATION.bib", "DATA-USAGE-POLICY.txt", ".tciafs"),
        *(
            "a",
            "A",
            " a",
            "a.",
            "a\0",
            "a_",
            "a/",
            "é",
            "e\u0301",
            "É",
            "ß",
            "ss",
            "SS",
            "\u017f",
            "\u212a",
            "k",
        ),
        *("\ud800", "\udc80", "\u202eabc", "\u2028", "\ufeff", "\xa0", "\u3000", "\ue000", "\uffff", "a\nb"),
        *(
            "x" * 255,
            "X" * 255,
            "x" * 300,
            "é" * 128,
            "\U0001f600" * 64,
            "CON" + " " * 300 + "x",
            "a" + "." * 300,
        ),
        *(
            "CON" + " " * 251 + "x",
            "CON." + "x" * 251,
            "NUL" + "." * 260 + "y",
            "1",
            "1.0",
            "1.dcm",
            ".dcm",
            *ALIKE,
        ),
    ]
)
anything = st.text(st.characters(exclude_categories=()), max_size=12)
long = st.text(st.sampled_from("aAé. \U0001f600"), min_size=80, max_size=300)
crafted = st.builds(lambda head, of: f"{head}-{hex_of(of)}", nasty, nasty)
crafted_twice = st.builds(lambda text: f"{text}-{hex_of(text)}", crafted)
texts = st.one_of(nasty, anything, long, crafted, crafted_twice, st.text("aA. é/", max_size=3))
optional_texts = st.none() | texts
days = st.none() | st.dates() | st.just(date(2000, 1, 1))
few_days = st.sampled_from([None, date(2000, 1, 1)])
records_of_a_kind = st.one_of(
    st.lists(st.builds(Collection, texts)),
    st.lists(st.builds(Patient, st.just("C"), texts)),
    st.lists(st.builds(study, texts, days, optional_texts, optional_texts)),
    st.lists(st.builds(series, texts, optional_texts, optional_texts, optional_texts, few_days)),
    st.lists(st.builds(instance, texts, st.none() | st.integers(-3, 12), st.sampled_from(["", "2"]))),
    st.lists(st.builds(instance, texts)),
)
thoroughly = settings(max_examples=300, deadline=None)


def is_safe(name: str) -> bool:
    hidden = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return (
        0 < len(name.encode()) <= 255
        and os.fsdecode(os.fsencode(name)) == name
        and not re.search(r'[/<>:"\\|?*]', name)
        and not any(unicodedata.category(character) in hidden for character in name)
        and name == name.strip(" .") == name.strip()
        and name.partition(".")[0].rstrip().lower() not in DEVICES
        and unicodedata.is_normalized("NFC", name)
    )


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


# What holds for every layout, kind and archive


@thoroughly
@given(layouts, records_of_a_kind)
def test_every_name_is_safe_on_linux_windows_and_samba(layout: Layout, records: Sequence[Record]) -> None:
    names = names_of(layout, records)
    assert len(names) == len(records)
    assert [name for name in names if not is_safe(name)] == []


@thoroughly
@given(layouts, records_of_a_kind)
def test_names_are_unique_ignoring_case_and_none_is_reserved(
    layout: Layout, records: Sequence[Record]
) -> None:
    by_key = dict(zip(map(key_of, records), names_of(layout, records), strict=True))
    distinct = {folded(name) for name in by_key.values()}
    assert len(distinct) == len(by_key)
    assert not records or distinct.isdisjoint(RESERVED.get(kind_of(records[0]), set()))


@thoroughly
@given(layouts, records_of_a_kind, st.randoms(use_true_random=False))
def test_names_do_not_depend_on_the_order_nor_on_repetition(layout, records, random) -> None:
    by_key = dict(zip(map(key_of, records), names_of(layout, records), strict=True))
    shuffled = records + records[:2]
    random.shuffle(shuffled)
    assert names_of(layout, shuffled) == [by_key[key_of(record)] for record in shuffled]


@thoroughly
@given(layouts, records_of_a_kind)
def test_every_shown_name_and_alias_may_exist(layout: Layout, records: Sequence[Record]) -> None:
    for record, name in zip(records, names_of(layout, records), strict=True):
        assert may_exist(kind_of(record), name)
        alias = alias_of(record)
        assert alias is None or (may_exist(kind_of(record), alias) and is_safe(alias))


@thoroughly
@given(layouts, records_of_a_kind)
def test_instances_and_only_they_are_named_as_dicom_files(layout, records) -> None:
    if records and isinstance(records[0], Instance):
        assert all(name.endswith(".dcm") for name in names_of(layout, records))


# clean


@thoroughly
@given(texts)
def test_clean_is_total_and_leaves_a_clean_name_as_it_is(text: str) -> None:
    assert is_safe(clean(text))
    assert clean(clean(text)) == clean(text)


def test_clean_makes_every_single_character_safe() -> None:
    for start in range(0, sys.maxunicode + 1, 32):
        name = clean("_" + "_".join(map(chr, range(start, start + 32))))
        assert is_safe(name)
        assert clean(name) == name


@pytest.mark.parametrize(
    "name",
    ["LIDC-IDRI", "RIDER Lung CT", "ZZ RIDER MR8 1", "4D-Lung", "a  b", "Ärzte µ²", "漢字", "x" * 255, UID],
)
def test_clean_keeps_what_is_a_good_name_already(name: str) -> None:
    assert clean(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("PET/CT WB", "PET_CT WB"),
        ('<>:"\\|?*', "________"),
        ("SliceInc-\x00_Recon\x01\x02", "SliceInc-__Recon__"),
        (".625 CHEST", "625 CHEST"),
        (" . a . ", "a"),
        ("a\xa0b\tc\u2028d", "a b c d"),
        ("e\u0301", "é"),
        ("a\u202eb\ud800c\ue000d", "a_b_c_d"),
        ("", "_"),
        ("..", "_"),
        ("con", "con_"),
        ("Nul.tar.gz", "Nul_.tar.gz"),
        ("COM1 .txt", "COM1_ .txt"),
        ("LPT³", "LPT³_"),
        ("CONTRAST", "CONTRAST"),
        ("COM10", "COM10"),
        ("x" * 256, "x" * 255),
        ("é" * 128, "é" * 127),
        ("x" * 253 + " . y", "x" * 253),
    ],
)
def test_clean_replaces_what_is_not_safe(text: str, name: str) -> None:
    assert clean(text) == name


# Collections and patients


@pytest.mark.parametrize("layout", Layout)
def test_a_collection_and_a_patient_have_their_own_names(layout: Layout) -> None:
    assert names_of(layout, [Collection("LIDC-IDRI"), Collection("RIDER Lung CT")]) == [
        "LIDC-IDRI",
        "RIDER Lung CT",
    ]
    assert name_of(layout, Patient("C", "LIDC-IDRI-0001")) == "LIDC-IDRI-0001"


def test_no_record_has_no_name() -> None:
    assert names_of(Layout.DESCRIPTIVE, []) == []


@pytest.mark.parametrize("ids", [("Abc", "aBC"), ("a/b", "a:b"), ("é", "E\u0301"), ("x", "x ")])
def test_ids_whose_names_clash_all_get_a_hash(ids: tuple[str, str]) -> None:
    names = names_of(Layout.DESCRIPTIVE, [Patient("C", "other"), *(Patient("C", text) for text in ids)])
    assert names == ["other", *(f"{clean(text)}-{hex_of(text)}" for text in ids)]


@pytest.mark.parametrize("text", ["LICENSE.txt", "license.TXT", "citation.txt", "CITATION.bib"])
def test_a_patient_named_like_a_control_file_gets_a_hash(text: str) -> None:
    assert name_of(Layout.DESCRIPTIVE, Patient("C", text)) == f"{text}-{hex_of(text)}"
    assert name_of(Layout.DESCRIPTIVE, Collection(text)) == text


def test_a_collection_named_like_a_control_file_gets_a_hash() -> None:
    text = "Data-Usage-Policy.txt"
    assert name_of(Layout.UID, Collection(text)) == f"{text}-{hex_of(text)}"
    assert name_of(Layout.UID, Patient("C", text)) == text
    assert name_of(Layout.UID, Collection(".tciafs")) == "tciafs"


def test_an_id_made_to_equal_the_hashed_name_of_another_displaces_nothing() -> None:
    crafted = f"A-{hex_of('A')}"
    names = names_of(Layout.DESCRIPTIVE, [Patient("C", text) for text in ("A", "a", crafted)])
    assert re.fullmatch(r"A-[0-9a-f]{64}", names[0])
    assert names[1] == f"a-{hex_of('a')}"
    assert names[2] == f"{crafted}-{hex_of(crafted)}"


def test_a_cut_name_keeps_its_hash() -> None:
    ids = ["x" * 300, "x" * 301]
    names = names_of(Layout.DESCRIPTIVE, [Patient("C", text) for text in ids])
    assert names == ["x" * 246 + f"-{hex_of(text)}" for text in ids]


# Studies and series: descriptive


@pytest.mark.parametrize(
    ("day", "description", "name"),
    [
        (date(2000, 1, 1), "PET/CT WB", f"2000-01-01-PET_CT WB-{HEX}"),
        (date(2000, 1, 1), None, f"2000-01-01-{HEX}"),
        (date(2000, 1, 1), "null", f"2000-01-01-{HEX}"),
        (None, " CT  CHEST ", f"CT  CHEST-{HEX}"),
        (None, "", HEX),
        (None, ".625 CHEST.", f"625 CHEST.-{HEX}"),
    ],
)
def test_a_descriptive_study_is_date_description_and_hash(day, description, name: str) -> None:
    assert name_of(Layout.DESCRIPTIVE, study(UID, day, description, "ignored")) == name


@pytest.mark.parametrize(
    ("number", "modality", "description", "name"),
    [
        ("3000566.000000", "CT", "Recon 2: LUNG", f"3000566-CT-Recon 2_ LUNG-{HEX}"),
        ("500.000000", "SEG", None, f"500-SEG-{HEX}"),
        ("1.5", "MR", "T1", f"1.5-MR-T1-{HEX}"),
        ("2", "CT", ".625 CHEST", f"2-CT-.625 CHEST-{HEX}"),
        (None, "CT", "null", f"CT-{HEX}"),
        ("null", None, None, HEX),
        ("-1.0", "null", "AUX", f"-1-AUX-{HEX}"),
    ],
)
def test_a_descriptive_series_is_number_modality_description_and_hash(
    number, modality, description, name: str
) -> None:
    assert name_of(Layout.DESCRIPTIVE, series(UID, number, modality, description)) == name


def test_two_studies_with_equal_hex_digits_both_take_the_whole_uid() -> None:
    names = names_of(Layout.DESCRIPTIVE, [study(ALIKE[0]), study(ALIKE[1], description="b"), study(UID)])
    assert names == [ALIKE[0], f"b-{ALIKE[1]}", HEX]


def test_two_versions_of_a_series_in_one_listing_have_two_names() -> None:
    names = names_of(Layout.UID, [series(), series(submitted=date(2000, 1, 1))])
    assert all(re.fullmatch(rf"{re.escape(UID)}-[0-9a-f]{{64}}", name) for name in names)


# Studies and series: retriever and uid


@pytest.mark.parametrize(
    ("day", "number", "description", "name"),
    [
        (date(2000, 1, 2), "30178", "CT/THORAX", "01-02-2000-30178-CT-THORAX-30178"),
        (date(2000, 1, 2), "null", None, "01-02-2000-30178"),
        (None, None, "d" * 52 + "/e", "d" * 52 + "--30178"),
        (None, None, "CT.", "CT.-30178"),
        (None, None, "null", "30178"),
        (None, "1/2", "a:b", "1_2-a_b-30178"),
    ],
)
def test_a_retriever_study_is_date_id_description_and_five_digits(day, number, description, name) -> None:
    assert name_of(Layout.RETRIEVER, study(UID, day, description, number)) == name


@pytest.mark.parametrize(
    ("number", "description", "name"),
    [
        ("3000566.000000", None, "3000566.000000-30178"),
        ("2", "PET/CT", "2-PET-CT-30178"),
        ("null", "null", "30178"),
    ],
)
def test_a_retriever_series_is_number_description_and_five_digits(number, description, name: str) -> None:
    assert name_of(Layout.RETRIEVER, series(UID, number, "CT", description)) == name


def test_retriever_names_keep_the_dots_of_uids_and_descriptions() -> None:
    assert name_of(Layout.RETRIEVER, series("1.2.3.4567", "1", None, "a.")) == "1-a.-.4567"


def test_retriever_directories_that_share_a_name_all_get_the_whole_uid() -> None:
    uids = ["1.2.12345", "1.3.12345", "1.4.54321"]
    names = names_of(
        Layout.RETRIEVER, [series(uid, "1", None, text) for uid, text in zip(uids, "Aaa", strict=True)]
    )
    assert names == ["1-A-12345-1.2.12345", "1-a-12345-1.3.12345", "1-a-54321"]


def test_a_retriever_name_that_is_too_long_keeps_its_digits() -> None:
    name = name_of(Layout.RETRIEVER, study(UID, None, "\U0001f600" * 60, "\U0001f600" * 60))
    assert len(name.encode()) > 250
    assert name.endswith("-30178")


def test_the_uid_layout_shows_uids() -> None:
    assert name_of(Layout.UID, study(UID, date(2000, 1, 1), "CT")) == UID
    assert name_of(Layout.UID, series(UID, "1", "CT", "x")) == UID


# Instances


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (Layout.DESCRIPTIVE, ["1-004.dcm", "1-002.dcm", "1-001.dcm", "1-003.dcm"]),
        (Layout.RETRIEVER, ["1-4.dcm", "1-2.dcm", "1-1.dcm", "1-3.dcm"]),
        (Layout.UID, ["1.1.dcm", "1.3.dcm", "1.2.dcm", "1.4.dcm"]),
    ],
)
def test_instances_rank_by_number_then_uid_with_nulls_last(layout: Layout, names: list[str]) -> None:
    records = [instance("1.1"), instance("1.3", 5), instance("1.2", 5), instance("1.4", 70)]
    assert names_of(layout, records) == names


@pytest.mark.parametrize("layout", Layout)
def test_instances_without_any_number_are_named_by_uid(layout: Layout) -> None:
    assert names_of(layout, [instance("1.1"), instance("1.2")]) == ["1.1.dcm", "1.2.dcm"]


@pytest.mark.parametrize("layout", [Layout.DESCRIPTIVE, Layout.RETRIEVER])
@pytest.mark.parametrize("count", [1, 9, 10, 999, 1000, 100_000])
def test_sorted_names_are_slice_order(layout: Layout, count: int) -> None:
    records = [instance(f"1.{count - number}", number) for number in range(count)]
    names = names_of(layout, records)
    assert names == sorted(names)
    width = len(str(count)) if layout is Layout.RETRIEVER else max(3, len(str(count)))
    assert {len(name) for name in names} == {len("1-.dcm") + width}


def test_a_cut_instance_name_keeps_its_extension() -> None:
    assert name_of(Layout.UID, instance("1" * 300)) == "1" * 251 + ".dcm"
    names = names_of(Layout.UID, [instance("1" * 300), instance("1" * 301)])
    assert names == ["1" * 242 + f"-{hex_of('1' * count)}.dcm" for count in (300, 301)]


# Aliases and lookups


def test_aliases_are_uids() -> None:
    assert alias_of(study(UID)) == UID
    assert alias_of(series(UID)) == UID
    assert alias_of(instance(UID, 1)) == f"{UID}.dcm"


def test_collections_and_patients_have_no_alias() -> None:
    assert alias_of(Collection("C")) is None
    assert alias_of(Patient("C", "P")) is None


@pytest.mark.parametrize(
    "uid", ["", ".", "..", "1/2", "1\0", " 1", "1.", "CON", "\ud800", "é" * 128, "e\u0301"]
)
def test_a_uid_that_is_no_safe_file_name_is_no_alias(uid: str) -> None:
    assert [alias_of(study(uid)), alias_of(series(uid)), alias_of(instance(uid))] == [None] * 3


def test_a_uid_too_long_for_its_extension_is_no_alias() -> None:
    assert alias_of(study("1" * 255)) == "1" * 255
    assert alias_of(instance("1" * 252)) is None


@pytest.mark.parametrize("kind", [Kind.COLLECTION, Kind.PATIENT, Kind.STUDY, Kind.SERIES, Kind.INSTANCE])
@pytest.mark.parametrize(
    "name", ["", ".", "..", ".git", ".1.dcm", "a/b.dcm", "a\0.dcm", "x" * 252 + ".dcm", "*.dcm", "\udcff.dcm"]
)
def test_names_that_no_record_can_have_need_no_request(kind: Kind, name: str) -> None:
    assert not may_exist(kind, name)


@pytest.mark.parametrize("name", ["DICOMDIR", "1-001", "1-001.DCM", "1-001.dcm.gz", "LICENSE.txt", "dcm"])
def test_only_names_of_dicom_files_may_exist_in_a_series(name: str) -> None:
    assert not may_exist(Kind.INSTANCE, name)
    assert may_exist(Kind.SERIES, name)
    assert may_exist(Kind.INSTANCE, f"{name}.dcm")
