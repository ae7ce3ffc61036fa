"""Runs the archive on a socket until it is told to end: by a signal, or by the death of its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncIterable, Sequence
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from tciafs.demo.control import Control
from tciafs.demo.service import Service

_PARENT_INTERVAL = 0.5
_LAST_GRACE = 1.0
_A_YEAR = 365 * 24 * 3600


def application(service: Service, others: Sequence[BaseRoute] = ()) -> Starlette:
    """Return the ASGI application: the API, its control, and what `others` there are."""
    return Starlette(routes=[*Control(service).routes(), Mount("/nbia-api", app=service), *others])


def configuration(host: str, port: int) -> Config:
    """Return hypercorn's settings: silent, and connections stay open as long as clients like."""
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.loglevel = "WARNING"
    config.accesslog = None
    config.include_server_header = False
    config.backlog = 1024
    config.keep_alive_timeout = _A_YEAR
    config.keep_alive_max_requests = sys.maxsize
    return config


async def run(service: Service, host: str, port: int, others: Sequence[BaseRoute] = ()) -> None:
    """Serve, print the base URL as the only line of output, and end on SIGTERM, SIGINT or orphanage."""
    parent = os.getppid()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            nursery.start_soon(_cancel_when_orphaned, parent, nursery.cancel_scope)
            urls = await nursery.start(_serve, application(service, others), configuration(host, port))
            print(f"{urls[0]}/nbia-api/services", flush=True)


async def _serve(
    app: Starlette, config: Config, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    # Starlette and hypercorn each have types of their own for the same ASGI.
    await serve(cast(Any, app), config, task_status=task_status)


async def _cancel_on_signal(signals: AsyncIterable[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        _end(scope)


async def _cancel_when_orphaned(parent: int, scope: trio.CancelScope) -> None:
    # Not prctl(PR_SET_PDEATHSIG): that one fires when the *thread* that started us ends.
    while os.getppid() == parent:  # noqa: ASYNC110 (nothing else tells)
        await trio.sleep(_PARENT_INTERVAL)
    _end(scope)


def _end(scope: trio.CancelScope) -> None:
    """Cancel everything; hypercorn shields its writes, so a client that does not read is not waited for."""
    last = threading.Timer(_LAST_GRACE, os._exit, (0,))
    last.daemon = True
    last.start()
    scope.cancel()
