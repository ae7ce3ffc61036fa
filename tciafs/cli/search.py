"""`tciafs search`: which series of an archive match, without a mount."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import click

from tciafs.cli.failure import Failure
from tciafs.cli.login import with_account
from tciafs.cli.places import printable
from tciafs.cli.policy import require
from tciafs.cli.settings import config_option, some_options
from tciafs.cli.sources import Sources
from tciafs.cli.totals import Total, by_collection, table
from tciafs.config import NOWHERE, Config
from tciafs.criteria import Criteria
from tciafs.manifest import manifest_text
from tciafs.model import Series
from tciafs.service.search import CannotSearch, Found, count_patients
from tciafs.service.search import search as search_archive

T = TypeVar("T")

_SELECTED = ("collection", "patient", "modality", "body_part")
_OTHERS = ("layout", "cache_dir", "proxy", "accept_data_usage_policy")
_SETTINGS = ("archive", "api", "account", *_SELECTED, *_OTHERS)


class Nothing(Failure):
    """Print one line on stderr and exit with 1: nothing matches."""


class CannotTell(Failure):
    """Print one line on stderr and exit with 2: whether anything matches is not known."""

    exit_code = 2


class Days(click.ParamType[tuple[date | None, date | None]]):
    """A day, or the first and the last of several: one of the ends may be left out."""

    name = "days"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[date | None, date | None]:
        """Return the first and the last day."""
        first, dots, last = str(value).partition("..")
        try:
            days = [date.fromisoformat(text) if text else None for text in (first, last if dots else first)]
        except ValueError:
            days = []  # which is refused
        given = [day for day in days if day]
        if not given or given != sorted(given):
            self.fail(f"{value!r} is no range of days like 2019-01-01..2019-12-31", param, ctx)
        return days[0], days[1]


@click.command()
@some_options(*_SETTINGS)
@click.option("--manufacturer", multiple=True, metavar="NAME", help="Manufacturer, as a whole; any case.")
@click.option("--model", multiple=True, metavar="NAME", help="ManufacturerModelName, as a whole; any case.")
@click.option("--species", multiple=True, metavar="NAME", help="Like 'Mus musculus', or its code; any case.")
@click.option("--description", default="", metavar="TEXT", help="What stands in a SeriesDescription.")
@click.option(
    "--date", "submitted", type=Days(), metavar="FROM..TO", help="When images were submitted (2019-03-01..)."
)
@click.option(
    "--min-studies", type=click.IntRange(1), default=1, metavar="N", help="Of patients with so many studies."
)
@click.option("--doi", multiple=True, help="DOI of a collection or analysis result, or its link.")
@click.option("--paths", "output", flag_value="paths", help="Print the series' paths in a drive.")
@click.option("--count", "output", flag_value="count", help="Print how many series there are.")
@click.option("--json", "output", flag_value="json", help="Print all that is known, as a JSON object.")
@click.option("--tcia", "output", flag_value="tcia", help="Print a .tcia manifest of the series.")
@config_option
def search(file: Path | None, output: str | None, **given: Any) -> None:
    """Tell which series of an archive match, by collection; nothing is mounted.

    Options may be repeated: values of one are alternatives, different options must all hold. Without
    any, the collections are listed with their numbers of patients.

    \b
    Exit code: 0 if anything matches, 1 if nothing does, 2 if that could not be
    found out, 3 if the Data Usage Policy was not agreed to.
    """
    try:
        config = with_account(Sources(file).config(NOWHERE, {name: given.pop(name) for name in _SETTINGS}))
        require(config)
        _run(config, _criteria(config, **given), output)
    except Failure as exc:
        if exc.exit_code == 1 and not isinstance(exc, Nothing):
            raise CannotTell(exc.message) from exc
        raise


def _criteria(config: Config, **given: Any) -> Criteria:
    return Criteria(
        # A cart that the file of settings names is a matter of mounts.
        selection=replace(config.selection, shared_cart=None),
        manufacturers=given["manufacturer"],
        models=given["model"],
        species=given["species"],
        description=given["description"].strip(),
        submitted=given["submitted"],
        min_studies=given["min_studies"],
        dois=given["doi"],
    )


def _run(config: Config, criteria: Criteria, output: str | None) -> None:
    if criteria:
        found = _asked(search_archive, config, criteria, output == "paths")
        if not found.series:
            _say_nothing(criteria, found, output)
        _OUTPUTS[output](config, found)
    elif output in (None, "json"):
        _show_collections(config, _asked(count_patients, config), output)
    else:
        raise click.UsageError(f"--{output} takes a criterion like --collection; all series are too many")


def _asked(ask: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    import trio
    from rich.console import Console

    try:
        with Console(stderr=True).status("asking the archive"):  # which shows on a terminal alone
            return trio.run(ask, *arguments)
    except CannotSearch as exc:
        raise Failure(printable(str(exc))) from exc


def _say_nothing(criteria: Criteria, found: Found, output: str | None) -> None:
    if output == "count":
        click.echo(0)
    why = "; ".join(found.why)
    raise Nothing(printable(f"nothing matches {criteria}{why and f': {why}'}"))


def _show_collections(config: Config, patients: dict[str, int], output: str | None) -> None:
    totals = {name: Total(patients[name]) for name in sorted(patients)}
    total = Total(sum(patients.values()))
    _tell(config, totals, total, []) if output == "json" else click.echo(table(totals, total))


def _show_table(config: Config, found: Found) -> None:
    click.echo(table(by_collection(found.series), Total.of(found.series)))


def _show_paths(config: Config, found: Found) -> None:
    for path in sorted(found.paths.values()):
        click.echo(path)
    if missing := len(found.series) - len(found.paths):
        click.echo(f"tciafs: {missing:,} series that were found are in no listing of the archive", err=True)


def _show_count(config: Config, found: Found) -> None:
    click.echo(len(found.series))


def _show_json(config: Config, found: Found) -> None:
    _tell(config, by_collection(found.series), Total.of(found.series), found.series)


def _show_manifest(config: Config, found: Found) -> None:
    click.echo(manifest_text(sorted(one.series_instance_uid for one in found.series)), nl=False)


def _tell(config: Config, totals: dict[str, Total], total: Total, series: Sequence[Series]) -> None:
    told: dict[str, Any] = {
        "archive": config.archive_name,
        "total": total.as_dict(),
        "collections": [{"collection": name, **each.as_dict()} for name, each in totals.items()],
    }
    if series:
        told["series"] = [_told(one) for one in sorted(series, key=_place)]
    click.echo(json.dumps(told, indent=2))


def _place(series: Series) -> tuple[str, ...]:
    uids = (series.study_instance_uid, series.series_instance_uid)
    return (series.collection, series.patient_id, *uids)


def _told(series: Series) -> dict[str, Any]:
    return {
        "collection": series.collection,
        "patient_id": series.patient_id,
        "study_uid": series.study_instance_uid,
        "series_uid": series.series_instance_uid,
        "modality": series.modality,
        "body_part": series.body_part,
        "description": series.series_description,
        "images": series.image_count,
        "bytes": series.file_size,
    }


_OUTPUTS: dict[str | None, Callable[[Config, Found], None]] = {
    None: _show_table,
    "paths": _show_paths,
    "count": _show_count,
    "json": _show_json,
    "tcia": _show_manifest,
}
