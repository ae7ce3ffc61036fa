"""The embedded archive, empty, which also serves each series as plain files: `/files/<UID>/<name>`.

That is what peers mount that know HTTP and no NBIA, over the same line and from the same process.
"""

from __future__ import annotations

import re
from functools import partial

import trio
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tciafs.demo.dataset import Dataset
from tciafs.demo.delivery import send_body
from tciafs.demo.faults import Switches
from tciafs.demo.records import StoredSeries
from tciafs.demo.server import run
from tciafs.demo.service import Service

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_LONG_AGO = "Mon, 25 Feb 2019 00:00:00 GMT"


class Files:
    """The files of each series under the numbers of their slices, with ranges, as a web server has them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[BaseRoute]:
        """Return the paths below /files."""
        return [Route("/files/{uid}/{name:path}", _Asgi(self), methods=["GET", "HEAD"])]

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as slowly as an API request is answered."""
        request = Request(scope, receive)
        series = self._service.dataset.series[request.path_params["uid"]]
        manner = self._service.manner()
        await trio.sleep(manner.delay)
        status, head, body = _file(series, request) if request.path_params["name"] else _index(series)
        fields = {
            **head,
            "Content-Length": str(len(body)),
            "Last-Modified": _LONG_AGO,
            "Accept-Ranges": "bytes",
        }
        headers = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if request.method == "GET":
            await send_body(body, _end, manner, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Asgi:
    """An application of its own: starlette would take a method for a function that returns an answer."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._files.answer(scope, receive, send)


def _file(series: StoredSeries, request: Request) -> tuple[int, dict[str, str], bytes]:
    number = int(request.path_params["name"].removesuffix(".dcm"))
    body = series.instances[number - 1].read()
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    kind = {"Content-Type": "application/dicom"}
    if not found:
        return 200, kind, body
    first, last = int(found[1]), min(int(found[2] or len(body)), len(body) - 1)
    return 206, {**kind, "Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]


def _index(series: StoredSeries) -> tuple[int, dict[str, str], bytes]:
    names = [f"{number:04d}.dcm" for number in range(1, len(series.instances) + 1)]
    links = "\n".join(f'<a href="{name}">{name}</a>' for name in names)
    return 200, {"Content-Type": "text/html"}, f"<html><body>\n{links}\n</body></html>".encode()


async def _end() -> None:
    return None


def main() -> None:
    """Serve on any free port, and print the address of the API."""
    service = Service(Dataset(), Switches())
    trio.run(partial(run, service, "127.0.0.1", 0, Files(service).routes()))


if __name__ == "__main__":
    main()
