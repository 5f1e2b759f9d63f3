"""The hook server's own metrics, for Prometheus."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OTHER = "other"  # a label for every path that is asked for would be a leak


class HookMetrics:
    """Counters of one server; ``paths`` are those that exist."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "trimton_hooks_requests",
            "Requests by path and status.",
            ("path", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "trimton_hooks_request_duration_seconds",
            "Time until a request was answered.",
            ("path",),
            registry=self._registry,
        )
        self._rulings = Counter(
            "trimton_hooks_rulings",
            "Rulings by hook and outcome.",
            ("hook", "outcome"),
            registry=self._registry,
        )

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count a request that was answered or refused."""
        known = path if path in self._paths else _OTHER
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def ruling(self, hook: str, outcome: str) -> None:
        """Count what a hook said."""
        self._rulings.labels(hook, outcome).inc()

    def text(self) -> bytes:
        """All of them in Prometheus' text format 0.0.4."""
        return generate_latest(self._registry)
