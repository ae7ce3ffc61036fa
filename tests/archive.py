"""The embedded archive as tests use it: a real server in its own process, watched and steered over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx

_PROJECT = Path(__file__).parent.parent


class EmbeddedArchive:
    """A running embedded archive; `url` is the base of its API."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self._control = httpx.Client(base_url=url.partition("/nbia-api")[0], trust_env=False, timeout=30)

    def requests(self) -> dict[str, int]:
        """Return the number of requests per "version/endpoint" since the last reset."""
        return cast(dict[str, int], self._ask("GET", "/control/requests"))

    def reset(self) -> None:
        """Forget the requests, switch all faults off, and give accounts back their rights."""
        self.forget()
        self.faults()
        self.realm()

    def forget(self) -> None:
        """Forget the requests."""
        self._ask("DELETE", "/control/requests")

    def faults(self, **switches: Any) -> None:
        """Replace the switches (tciafs.demo.faults); none at all switches every fault off."""
        self._ask("PUT", "/control/faults", switches)

    def edit(self, **change: Any) -> list[str]:
        """Change what the archive holds (tciafs.demo.control); return the SeriesInstanceUIDs concerned."""
        return cast(list[str], self._ask("PUT", "/control/edit", change)["series"])

    def log(self) -> list[str]:
        """Return the requests in order: path and query, and after a blank the form of a POST."""
        return cast(list[str], self._ask("GET", "/control/log")["requests"])

    def high_water(self) -> dict[str, int]:
        """Return how many requests of each "version/endpoint", and of all ("*"), were open at once."""
        return cast(dict[str, int], self._ask("GET", "/control/log")["high_water"])

    def realm(self, **realm: Any) -> None:
        """Replace how tokens are given and what accounts may see (tciafs.demo.tokens.Realm)."""
        self._ask("PUT", "/control/realm", realm)

    def tokens(self) -> list[str]:
        """Return every token that was given out."""
        return cast(list[str], self._ask("GET", "/control/tokens"))

    def expire_tokens(self) -> None:
        """Let no access token be worth anything any more, whatever its life was to be."""
        self._ask("DELETE", "/control/tokens?access")

    def end_sessions(self) -> None:
        """Let no token be worth anything any more, as an administrator does."""
        self._ask("DELETE", "/control/tokens")

    def stop(self) -> int:
        """End the archive as a user would, and return its exit status."""
        self._control.close()
        self.process.terminate()
        try:
            return self.process.wait(timeout=5)
        finally:
            self.process.kill()
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        answer = self._control.request(method, path, json=body)
        if answer.is_error:
            raise ValueError(answer.text)
        return answer.json()


@contextmanager
def start_archive(*args: str | Path, module: str = "tciafs.demo") -> Iterator[EmbeddedArchive]:
    """Run `python -m tciafs.demo`, or another such `module`, with these arguments until the block ends."""
    command = [sys.executable, "-m", module, *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_PROJECT)
    assert process.stdout is not None
    archive = EmbeddedArchive(process, process.stdout.readline().strip())
    try:
        if not archive.url:
            raise RuntimeError("the embedded archive did not start; see its standard error")
        yield archive
    finally:
        archive.stop()
