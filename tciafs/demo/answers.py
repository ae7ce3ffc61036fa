"""What the archive answers, before any of it is sent: questions, answers, and how NBIA spells errors.

An answer's body is bytes, or makes its pieces while it is being sent. Who sends it, how fast and how
much of it is `delivery`'s business.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from tciafs.demo.dataset import Dataset
from tciafs.demo.records import StoredSeries

Value = str | int | bool | date | None

JSON = "application/json"
FORMATS = ("application/xml", JSON, "text/html", "text/csv")
COMPLAINT = "Server was not able to process your request"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `shorter` makes one like it that lacks files, where text cannot just be cut."""

    status: int
    body: bytes | Callable[[], Iterator[bytes]] = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    shorter: Callable[[], Answer] | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, made as it goes when it is a stream."""
        if callable(self.body):
            yield from self.body()
        else:
            yield self.body

    def content(self) -> bytes:
        """Return the whole body."""
        return b"".join(self.chunks())


class Refusal(Exception):
    """Ends a request with an answer other than the one asked for."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Question:
    """A request as an endpoint sees it: `parameters` come from the query, or from the form of a POST.

    `closed` are the collections that whoever asks may not see.
    """

    dataset: Dataset
    version: str
    parameters: Sequence[tuple[str, str]]
    lacking_columns: Sequence[str] = ()
    closed: frozenset[str] = frozenset()

    def get(self, name: str) -> str | None:
        """Return the first value of the parameter, None when absent or empty."""
        return next((value for key, value in self.parameters if key == name and value), None)

    def get_all(self, name: str) -> list[str]:
        """Return every value of the parameter."""
        return [value for key, value in self.parameters if key == name]

    def may_read(self, series: StoredSeries) -> bool:
        """Tell whether whoever asks may read a series that they know of."""
        return series.collection not in self.closed

    def sees(self, series: StoredSeries) -> bool:
        """Tell whether a series is listed for whoever asks."""
        return not series.hidden and self.may_read(series)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint of one version; `allowed` is the whitelist that v4 enforces and the others lack.

    `complaint` is the text that answers a request without all of `required`.
    """

    answer: Callable[[Question], Answer]
    method: str = "GET"
    allowed: tuple[str, ...] | None = None
    required: tuple[str, ...] = ()
    complaint: str = ""
    produces: tuple[str, ...] = FORMATS


@dataclass(frozen=True, slots=True)
class Table:
    """Rows to be shown; `columns` gives their order on the wire."""

    columns: Sequence[str]
    rows: Iterable[Mapping[str, Value]] = field(default_factory=list)

    def render(self, version: str, wanted: str | None) -> Answer:
        """Return the answer in the format that is `wanted`; only JSON and CSV are built."""
        rows = [self._spell(row, version) for row in self.rows]
        if not rows:
            return Answer(200)  # nbia-api: an empty result has no body and no type
        match (wanted or "json").upper():
            case "JSON":
                return json_answer(rows)
            case "CSV":
                return Answer(200, self._csv(rows).encode(), "text/csv")
        raise server_error("null")

    def _spell(self, row: Mapping[str, Value], version: str) -> dict[str, Value]:
        """Pick the columns in order, without nulls, dates as this version of the API spells them."""
        return {
            column: spell_date(value, version) if isinstance(value, date) else value
            for column in self.columns
            if (value := row.get(column)) is not None
        }

    def _csv(self, rows: Iterable[Mapping[str, Value]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(
            text,
            self.columns,
            quoting=csv.QUOTE_ALL if len(self.columns) > 1 else csv.QUOTE_MINIMAL,
            lineterminator="\n",
        )
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def spell_date(value: date, version: str) -> str:
    """Spell a date: `MM-DD-YYYY` in v4, a Java timestamp before it."""
    return value.strftime("%m-%d-%Y") if version == "v4" else f"{value.isoformat()} 00:00:00.0"


def json_answer(content: object) -> Answer:
    """Answer with JSON, spelled as compactly as NBIA does."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Answer(200, text.encode(), JSON)


def server_error(message: str) -> Refusal:
    """Say what NBIA says of every failure, 404, 405 and 406 included (nbia-api: rules common to all)."""
    return Refusal(Answer(500, f"{COMPLAINT}\n{message}".encode(), "text/plain"))


def bad_request(text: str, content_type: str = JSON) -> Refusal:
    """Refuse with plain text under a content type that says otherwise."""
    return Refusal(Answer(400, text.encode(), content_type))
