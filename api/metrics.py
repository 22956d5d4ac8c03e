"""Metrics for Prometheus: what the parts counted, and what the database knows at this moment."""

from collections.abc import Iterator
from dataclasses import dataclass

from flask import Blueprint, Response, current_app
from prometheus_client.core import GaugeMetricFamily, Metric

from api.routes import Routes
from api.schemas import NoQuery
from api.wiring import Ports
from shared import disk, metrics
from shared.database.engine import AWAY

TEXT = "text/plain; version=0.0.4; charset=utf-8"

routes = Routes(Blueprint("metrics", __name__))


@routes.add("GET", "/metrics", {200: "text/plain"}, query=NoQuery, problems=("unknown_field",))
def show_metrics() -> Response:
    """Metrics for Prometheus."""
    ports: Ports = current_app.extensions["lacuna"]()
    return Response(metrics.collect(ports.settings.metrics, _Now(ports)), content_type=TEXT)


@dataclass(frozen=True)
class _Now:
    """How things stand. Without the database only that it is away, and the disk."""

    ports: Ports

    def collect(self) -> Iterator[Metric]:
        """See Prometheus' collectors."""
        yield GaugeMetricFamily("lacuna_disk_free_bytes", "free where pictures are kept", disk.free(self.ports.settings))
        try:
            lanes, workers = self.ports.jobs.backlog(), self.ports.workers.list()
        except AWAY:
            yield GaugeMetricFamily("lacuna_database_up", "whether the database answers", 0)
            return
        yield GaugeMetricFamily("lacuna_database_up", "whether the database answers", 1)
        waiting = GaugeMetricFamily("lacuna_waiting_jobs", "queued jobs", labels=["lane"])
        pixels = GaugeMetricFamily("lacuna_waiting_megapixels", "their size", labels=["lane"])
        age = GaugeMetricFamily("lacuna_oldest_waiting_seconds", "since when the oldest of them waits", labels=["lane"])
        backlog = GaugeMetricFamily("lacuna_backlog_seconds", "until they are done, at the rates of their models", labels=["lane"])
        living = GaugeMetricFamily("lacuna_workers", "workers heard of within a lease", labels=["lane"])
        for lane in lanes:
            heard = sum(lane.lane in worker.lanes for worker in workers)
            living.add_metric([lane.lane], heard)
            waiting.add_metric([lane.lane], lane.jobs)
            pixels.add_metric([lane.lane], lane.pixels / 1e6)
            age.add_metric([lane.lane], lane.oldest_seconds)
            if lane.seconds is not None:
                backlog.add_metric([lane.lane], lane.seconds / max(1, heard))
        yield from (waiting, pixels, age, backlog, living)
