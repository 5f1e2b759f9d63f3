"""What the server's Prometheus metrics say of a window: counters, and gauges sampled during it.

A thread fetches the text twice a second and keeps it as it is; it is read after the window, so
that next to no time of the load generator goes into it. Counters are taken just before and just
after the window, like every other probe's.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimton.perf.load.tally import Tally
from trimton.perf.measure.probes import Probe
from trimton.perf.measure.prometheus import Reading, Series, increase, parse_metrics
from trimton.perf.results import GaugeUse, ServerMetrics
from trimton.perf.targets.address import Address

SAMPLE_INTERVAL_S = 0.5
# The server reads a GPU's energy counter every 2 s only (--metrics-interval-ms), so that over a
# short window its growth would be off by as much.
GPU_ENERGY_WINDOW_MIN_S = 10.0

_TIMEOUT_S = 5.0
# Beyond, every other text is dropped and the interval doubled: a long window needs no more memory.
_TEXTS_MAX = 512
_MODEL_COUNTERS = frozenset(
    {
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_cache_num_hits_per_model",
        "nv_cache_num_misses_per_model",
    }
)
_GAUGES = frozenset(
    {
        "nv_inference_pending_request_count",
        "nv_cpu_utilization",
        "nv_cpu_memory_used_bytes",
        "nv_pinned_memory_pool_used_bytes",
        "nv_gpu_utilization",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_usage",
    }
)
_GPU_ENERGY = "nv_energy_consumption"

Fetch = Callable[[], str]


@dataclass(frozen=True)
class MetricsPage:
    """Fetches the text at ``host:port/metrics``; raises OSError where it is not served."""

    url: str

    def __call__(self) -> str:
        address = Address.parse(self.url.removesuffix("/metrics"))
        connection = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer ({error})") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise OSError(f"HTTP {answer.status}")
        return text


class MetricsProbe(Probe):
    """Metrics of ``model`` and of the machine under the server.

    A page that cannot be fetched is named in the result under ``missing``.
    """

    def __init__(self, fetch: Fetch, model: str, interval_s: float = SAMPLE_INTERVAL_S) -> None:
        self._fetch = fetch
        self._model = model
        self._interval_s = interval_s
        self._texts: list[str] = []
        self._fault: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def before(self) -> None:
        self._texts = []
        self._fault = None
        self._stop.clear()
        if self._sample():
            self._thread = threading.Thread(target=self._run, daemon=True, name="metrics")
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def after(self, window: Tally) -> Mapping[str, Any]:
        self.close()
        if self._fault is None:
            self._sample()
        if self._fault is not None:
            return {"missing": {"metrics": f"the server's metrics cannot be read: {self._fault}"}}
        readings = [parse_metrics(text) for text in self._texts]
        return {"metrics": self._metrics(readings), **_gpu_energy(readings, window.duration_s)}

    def _run(self) -> None:
        interval_s = self._interval_s
        while not self._stop.wait(interval_s) and self._sample():
            if len(self._texts) >= _TEXTS_MAX:
                del self._texts[1::2]  # the first was read before the window
                interval_s *= 2

    def _sample(self) -> bool:
        try:
            self._texts.append(self._fetch())
        except OSError as error:
            self._fault = error.strerror or str(error)
        return self._fault is None

    def _metrics(self, readings: Sequence[Reading]) -> ServerMetrics:
        grown = increase(readings[0], readings[-1])
        counters: dict[str, float] = {}
        for series, growth in grown.items():
            if series.name in _MODEL_COUNTERS and series.label("model") == self._model:
                key = _without_model(series)
                counters[key] = counters.get(key, 0.0) + growth  # over the model's versions
        # The first and the last reading stand outside the load; they are all there is of a
        # window that is shorter than the interval.
        inside = readings[1:-1] or readings
        gauges: dict[str, list[float]] = {}
        for reading in inside:
            for series, value in reading.items():
                if series.name in _GAUGES and series.label("model") in (None, self._model):
                    gauges.setdefault(_without_model(series), []).append(value)
        return ServerMetrics(
            counters=counters,
            gauges={
                name: GaugeUse(mean=sum(v) / len(v), highest=max(v), samples=len(v))
                for name, v in gauges.items()
            },
        )


def _without_model(series: Series) -> str:
    """The series' name, with the labels that tell it from others of the same model."""
    labels = [f'{k}="{v}"' for k, v in series.labels if k not in ("model", "version")]
    return f"{series.name}{{{','.join(labels)}}}" if labels else series.name


def _gpu_energy(readings: Sequence[Reading], duration_s: float) -> dict[str, Any]:
    joules = {
        f"gpu {series.label('gpu_uuid') or ''}".strip(): growth
        for series, growth in increase(readings[0], readings[-1]).items()
        if series.name == _GPU_ENERGY
    }
    if not joules:
        return {"missing": {"gpu": "the server reports no GPU"}}
    if duration_s < GPU_ENERGY_WINDOW_MIN_S:
        short = f"needs windows of {GPU_ENERGY_WINDOW_MIN_S:g} s or more, this one has "
        return {"missing": {"gpu energy": f"{short}{duration_s:.1f} s"}}
    return {"energy_j": joules}
