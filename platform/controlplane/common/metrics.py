"""Remit's own Prometheus metrics. What a process counts itself, and gauges read from the database when scraped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from controlplane.common.deadlines import answers

log = structlog.get_logger(__name__)

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
GAUGE_SECONDS: Final = 3.0
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

DECISIONS: Final = Counter(
    "remit_decisions_total", "Decisions of the gate, by verdict.", ["verdict"], registry=REGISTRY
)
GATE_STAGE_SECONDS: Final = Histogram(
    "remit_gate_stage_seconds",
    "Time one stage of the gate took.",
    ["stage"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0),
    registry=REGISTRY,
)
SOCKETS: Final = Gauge("remit_live_sockets", "Open websockets of this process.", registry=REGISTRY)
_REQUESTS: Final = Counter(
    "remit_http_requests_total",
    "Requests answered, by edge, method and status.",
    ["edge", "method", "status"],
    registry=REGISTRY,
)
_REQUEST_SECONDS: Final = Histogram(
    "remit_http_request_seconds",
    "Time to answer a request, by edge.",
    ["edge"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0),
    registry=REGISTRY,
)


@dataclass(frozen=True)
class Sample:
    """One value of one gauge. `name` begins with `remit_`; `labels` are few and closed (states, not ids of objects)."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


Gauges = Callable[[], Iterable[Sample]]
_GAUGES: Final[dict[str, Gauges]] = {}


def register_gauges(name: str, gauges: Gauges) -> None:
    """Gauges that a few aggregate queries answer at each scrape; `name` is the app's. Called by `AppConfig.ready()`."""
    _GAUGES[name] = gauges


def count_request(edge: str, method: str, status: int, seconds: float) -> None:
    """Count one answered request of an edge ("pages", "api", "mcp", "probes")."""
    _REQUESTS.labels(edge, method if method in _METHODS else "other", str(status)).inc()
    _REQUEST_SECONDS.labels(edge).observe(seconds)


def render() -> bytes:
    """The exposition. Gauges that fail or take longer than three seconds are left out and counted as failed."""
    return generate_latest(_Scrape())


class _Scrape(CollectorRegistry):
    """The process's registry and the registered gauges, collected together."""

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()
        yield from _database_gauges()


def _database_gauges() -> Iterator[Metric]:
    started = time.perf_counter()
    failed = GaugeMetricFamily("remit_gauges_failed", "1 where these gauges could not be read.", labels=["gauges"])
    families: dict[str, GaugeMetricFamily] = {}
    calls = {name: _listed(gauges) for name, gauges in _GAUGES.items()}
    for name, answer in answers(calls, seconds=GAUGE_SECONDS).items():
        broken = isinstance(answer, Exception)
        failed.add_metric([name], float(broken))
        if isinstance(answer, Exception):
            log.warning("metrics.gauges_failed", gauges=name, error=f"{type(answer).__name__}: {answer}")
            continue
        for sample in answer:
            family = families.setdefault(
                sample.name, GaugeMetricFamily(sample.name, sample.help, labels=list(sample.labels))
            )
            family.add_metric(list(sample.labels.values()), sample.value)
    yield from families.values()
    yield failed
    yield GaugeMetricFamily(
        "remit_gauges_seconds", "Time the database gauges of this scrape took.", time.perf_counter() - started
    )


def _listed(gauges: Gauges) -> Callable[[], list[Sample]]:
    return lambda: list(gauges())
