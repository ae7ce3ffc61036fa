"""The status of a mount as Prometheus reads it: `.tciafs/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

_CACHE = {
    "files": "Images on disk, of all archives in the cache directory.",
    "bytes": "Bytes on disk, of all archives in the cache directory.",
    "limit_bytes": "How many bytes the cache directory may hold.",
}
_CACHE_COUNTS = {
    "hits": "Files opened that were on disk.",
    "misses": "Files opened that were not on disk.",
    "evictions": "Images removed to make room.",
}
_TRANSFERS = {
    "completed": "Images fetched and verified.",
    "failed": "Fetches that failed.",
    "bytes": "Bytes of images that came from the archive.",
}


def metrics(status: Mapping[str, Any]) -> bytes:
    """Return a status in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Told(status))
    return generate_latest(registry)


class _Told(Collector):
    def __init__(self, status: Mapping[str, Any]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        status = self._status
        archive, mount, cache = status["archive"], status["mount"], status["cache"]
        info = {"version": status["version"], "archive": archive["name"], "api": archive["api"]}
        yield InfoMetricFamily(
            "tciafs", "Which drive this is.", value={**info, "mountpoint": mount["mountpoint"]}
        )
        yield _gauge(
            "archive_up", "Whether the archive answered last; 0 before it was asked.", _is_up(archive)
        )
        yield _gauge("uptime_seconds", "For how long the drive has been mounted.", mount["uptime_s"])
        yield _counts("requests", "Requests to the archive.", "endpoint", status["requests"])
        yield from (_gauge(f"cache_{name}", help, cache[name]) for name, help in _CACHE.items())
        yield from (_counter(f"cache_{name}", help, cache[name]) for name, help in _CACHE_COUNTS.items())
        yield from self._transfers()
        yield _counts("fuse_operations", "The kernel's requests.", "operation", status["fuse"])

    def _transfers(self) -> Iterable[Metric]:
        transfers = self._status["transfers"]
        yield _gauge("transfers_active", "Images that are being fetched.", transfers["active"])
        for name, help in _TRANSFERS.items():
            yield _counter(f"transfers_{name}", help, transfers[name])


def _is_up(archive: Mapping[str, Any]) -> int:
    return int(archive["state"] == "up")


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tciafs_{name}", documentation, value=value)


def _counter(name: str, documentation: str, value: float) -> Metric:
    return CounterMetricFamily(f"tciafs_{name}", documentation, value=value)


def _counts(name: str, documentation: str, label: str, counts: Mapping[str, int]) -> Metric:
    metric = CounterMetricFamily(f"tciafs_{name}", documentation, labels=[label])
    for key, count in counts.items():
        metric.add_metric([key], count)
    return metric
