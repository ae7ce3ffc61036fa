"""What tests use to watch and to steer the archive, below /control; no client of NBIA knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tciafs.demo.dataset import Dataset
from tciafs.demo.records import StoredSeries
from tciafs.demo.service import Service
from tciafs.demo.synthetic import Wanted, add_images, make_up


class Control:
    """Watches and steers one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the paths below /control."""
        return [
            Route("/control/requests", self.requests, methods=["GET", "DELETE"]),
            Route("/control/log", self.log),
            Route("/control/faults", self.faults, methods=["PUT"]),
            Route("/control/edit", self.edit, methods=["PUT"]),
            Route("/control/realm", self.realm, methods=["PUT"]),
            Route("/control/tokens", self.tokens, methods=["GET", "DELETE"]),
        ]

    async def requests(self, request: Request) -> Response:
        """GET: the number of requests per "version/endpoint". DELETE: forget them, and the log."""
        if request.method == "DELETE":
            self._service.journal.reset()
        return JSONResponse(self._service.journal.counts)

    async def log(self, request: Request) -> Response:
        """GET: the requests in order, and how many of each endpoint were open at once at most."""
        journal = self._service.journal
        return JSONResponse({"requests": list(journal.requests), "high_water": journal.high_water})

    async def faults(self, request: Request) -> Response:
        """PUT: replace the switches (see `faults`); `{}` brings back those of the command line."""
        try:
            self._service.switch(self._service.usual.changed(await request.json()))
        except (TypeError, ValueError) as exc:
            return _refused(exc)
        return JSONResponse({})

    async def edit(self, request: Request) -> Response:
        """PUT: change what the archive holds (see `_edit_series`, `_share_cart` and `synthetic.Wanted`).

        What is submitted, released, hidden, shown or added is what an update brings; `more_images` adds to a
        series.
        """
        try:
            changed = self._edit(await request.json())
        except (KeyError, TypeError, ValueError) as exc:
            return _refused(exc)
        return JSONResponse({"series": [series.series_instance_uid for series in changed]})

    async def realm(self, request: Request) -> Response:
        """PUT: replace how tokens are given and what accounts may see (see `tokens.Realm`)."""
        try:
            self._service.tokens.change(await request.json())
        except (TypeError, ValueError) as exc:
            return _refused(exc)
        return JSONResponse({})

    async def tokens(self, request: Request) -> Response:
        """GET: every token that was given out. DELETE: end all sessions; with ?access, only access tokens."""
        if request.method == "DELETE":
            tokens = self._service.tokens
            (tokens.expire if "access" in request.query_params else tokens.end_sessions)()
        return JSONResponse(self._service.tokens.issued)

    def _edit(self, wanted: Mapping[str, Any]) -> list[StoredSeries]:
        dataset = self._service.dataset
        match wanted:
            case {"synthetic": made_up, **rest} if not rest:
                return make_up(dataset, Wanted(**made_up))
            case {"hide_series": uid, **rest} if not rest:
                return [_edit_series(dataset.series[uid], {"hidden": True})]
            case {"show_series": uid, **rest} if not rest:
                return [_edit_series(dataset.series[uid], {"hidden": False})]
            case {"cart": str(name), "series": list(uids), **rest} if not rest:
                return _share_cart(dataset, name, uids)
            case {"series": uid, **change}:
                series = dataset.series[uid]
                more = int(change.pop("more_images", 0))
                add_images(dataset, series, more)
                return [_edit_series(series, change)]
        raise ValueError(f"no such edit: {', '.join(wanted)}")


def _share_cart(dataset: Dataset, name: str, uids: list[str]) -> list[StoredSeries]:
    """Give a shared cart these series alone."""
    series = [dataset.series[uid] for uid in uids]
    dataset.carts[name] = uids
    return series


def _edit_series(series: StoredSeries, change: Mapping[str, Any]) -> StoredSeries:
    """Change a series' stamps (`submitted`, `released`), its files, or what the database says of these."""
    for name, value in change.items():
        match name:
            case "submitted" | "released":
                setattr(series, name, date.fromisoformat(value))
            case "hidden" | "null_sizes" | "null_instance_numbers":
                setattr(series, name, bool(value))
            case "rewritten" if value is True:
                for instance in series.instances:
                    instance.rewrite()
            case "promised_size_delta":
                series.promised_size_delta = int(value)
            case _:
                raise ValueError(f"no such edit of a series: {name}")
    return series


def _refused(exc: Exception) -> Response:
    return JSONResponse({"error": f"{type(exc).__name__}: {exc}"}, status_code=400)
