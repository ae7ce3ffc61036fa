"""Which part of an archive a mount shows: names and codes to match, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tciafs.model import Series

NOT_SPECIFIED = "NOT SPECIFIED"  # NBIA's word for a series without a body part


@dataclass(frozen=True, slots=True)
class Manifest:
    """Series by their UIDs; `name` is where they were listed."""

    name: str
    uids: frozenset[str]

    @property
    def digest(self) -> str:
        """Return what stands for the series, wherever they were listed."""
        return hashlib.sha256(",".join(sorted(self.uids)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Selection:
    """Values of one kind are alternatives, kinds must all hold; no value at all lets everything through.

    Names are those that the archive spells; codes are compared ignoring case and outer blanks. The values
    are kept sorted and once each, so that equal selections are equal.
    """

    collections: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    body_parts: tuple[str, ...] = ()
    manifest: Manifest | None = None
    shared_cart: str | None = None

    def __post_init__(self) -> None:
        for name, values in (
            ("collections", self.collections),
            ("patients", self.patients),
            ("modalities", map(code, self.modalities)),
            ("body_parts", map(code, self.body_parts)),
        ):
            object.__setattr__(self, name, _once(values))

    def __bool__(self) -> bool:
        """Tell whether anything is left out."""
        return any((self.collections, self.patients, self.concerns_series))

    @property
    def is_listed(self) -> bool:
        """Tell whether series are selected by a list of them."""
        return self.manifest is not None or self.shared_cart is not None

    @property
    def concerns_series(self) -> bool:
        """Tell whether only the series can say what is selected."""
        return bool(self.modalities or self.body_parts or self.is_listed)

    def within(self, *collections: str) -> Selection:
        """Return the same selection of these collections alone, of all where there is none."""
        return replace(self, collections=collections)

    def has_collection(self, name: str) -> bool:
        """Tell whether a collection of that name may be selected."""
        return not self.collections or name in self.collections

    def has_patient(self, patient_id: str) -> bool:
        """Tell whether a patient of that id may be selected."""
        return not self.patients or patient_id in self.patients

    def has_series(self, series: Series) -> bool:
        """Tell whether the series has one of the modalities and one of the body parts."""
        return self.has_codes(series.modality, series.body_part)

    def has_codes(self, modality: str | None, body_part: str | None) -> bool:
        """Tell whether these are one of the modalities and one of the body parts."""
        return (not self.modalities or code(modality or "") in self.modalities) and (
            not self.body_parts or (code(body_part or "") or NOT_SPECIFIED) in self.body_parts
        )

    def as_dict(self) -> dict[str, list[str]]:
        """Return the values by the name of their setting, without those that say nothing."""
        values = {
            "collection": self.collections,
            "patient": self.patients,
            "modality": self.modalities,
            "body_part": self.body_parts,
            "manifest": (self.manifest.name,) if self.manifest else (),
            "shared_cart": (self.shared_cart,) if self.shared_cart else (),
        }
        return {name: list(chosen) for name, chosen in values.items() if chosen}

    def __str__(self) -> str:
        """Return the selection as it is written on a command line."""
        return " ".join(
            f"--{name.replace('_', '-')} {value!r}"
            for name, values in self.as_dict().items()
            for value in values
        )


def code(text: str) -> str:
    """Return a modality or a body part as codes are compared: archives spell them in any case."""
    return text.strip().upper()


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))
