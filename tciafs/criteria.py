"""What series are searched for, beyond what a drive can select: values to match, no I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date

from tciafs.model import Series
from tciafs.selection import Selection, code


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Values of one kind are alternatives, kinds must all hold; what says nothing lets everything through.

    `submitted` are the first and the last day, either of which may be left open.
    """

    selection: Selection = field(default_factory=Selection)
    manufacturers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    species: tuple[str, ...] = ()
    description: str = ""
    submitted: tuple[date | None, date | None] | None = None
    min_studies: int = 1
    dois: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything is left out."""
        others = (self.manufacturers, self.models, self.species, self.description, self.submitted, self.dois)
        return bool(self.selection) or any(others) or self.min_studies > 1

    def has(self, series: Series) -> bool:
        """Tell whether a series has what its record tells of: a server ignores criteria it does not know."""
        selection = self.selection
        return (
            selection.has_collection(series.collection)
            and selection.has_patient(series.patient_id)
            and selection.has_series(series)
            and self.description.casefold() in (series.series_description or "").casefold()
        )

    def __str__(self) -> str:
        """Return the criteria as they are written on a command line."""
        several = {"manufacturer": self.manufacturers, "model": self.models, "species": self.species}
        several |= {"doi": self.dois, "description": (self.description,) if self.description else ()}
        told = [str(self.selection)] if self.selection else []
        told += [f"--{name} {value!r}" for name, values in several.items() for value in values]
        if self.submitted:
            told.append("--date " + "..".join(str(day or "") for day in self.submitted))
        if self.min_studies > 1:
            told.append(f"--min-studies {self.min_studies}")
        return " ".join(told)


def same(value: str, known: list[str]) -> list[str]:
    """Return how an archive spells a value: ignoring case and outer blanks, in as many ways as it does."""
    return [each for each in known if code(each) == code(value)]


def spellings_of(doi: str) -> list[str]:
    """Return how an archive may have stored a DOI: as the link of today, or as it was given."""
    name = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)\s*", "", doi.strip(), flags=re.IGNORECASE)
    return list(dict.fromkeys([f"https://doi.org/{name}", doi.strip()]))
