"""What the service manager is told of a mount: that it answers, and that it ends (sd_notify(3))."""

from __future__ import annotations

import logging
import os
import socket

import trio

from tciafs.config import Config

logger = logging.getLogger(__name__)

_ADDRESS = "NOTIFY_SOCKET"
_SEND_SECONDS = 1.0
_LOOK_SECONDS = 30.0


def notify(**states: object) -> None:
    """Send states, as READY="1", to the service manager that started this process, if one did."""
    address = os.environ.get(_ADDRESS)
    if not address:
        return
    if address.startswith("@"):  # a name of Linux's own, which no file has
        address = "\0" + address[1:]
    lines = [f"{name}={str(value).replace(chr(10), ' ')}" for name, value in states.items()]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.settimeout(_SEND_SECONDS)
            sending.connect(address)
            sending.send(os.fsencode("\n".join(lines)))
    except OSError as exc:
        logger.warning("the service manager cannot be told %s: %s", " ".join(states), exc)


async def tell_when_ready(config: Config) -> None:
    """Tell that the mount answers once it does; a child asks it, since its own process may not."""
    if not os.environ.get(_ADDRESS):
        return
    command = ["stat", "--file-system", "--", str(config.mountpoint)]
    with trio.move_on_after(_LOOK_SECONDS):
        done = await trio.run_process(command, check=False, capture_stdout=True, capture_stderr=True)
        if done.returncode == 0:
            notify(READY=1, STATUS=f"{config.archive_name} is mounted at {config.mountpoint}")
            return
    logger.warning("%s does not answer: the service manager is not told that it is ready", config.mountpoint)
