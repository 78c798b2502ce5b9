"""Serves the metrics of all worker processes from the main process."""

import errno
import sys

import psutil
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from config.environment import abort


class Workers(Collector):
    def collect(self):
        yield GaugeMetricFamily("messaging_workers", "How many worker processes run?", len(psutil.Process().children()))


def serve_metrics(host: str, port: int) -> None:
    """Serve the metrics from a thread. If the port is in use, the service prints that and runs without metrics."""
    registry = CollectorRegistry()  # read from the workers' files, so that no lock of theirs is held while one is forked
    registry.register(Workers())
    MultiProcessCollector(registry)
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        reason = f"cannot listen on {host} at port {port} ({error.strerror})"
        if error.errno != errno.EADDRINUSE:
            abort("METRICS", reason)
        sys.stderr.write(f"METRICS: {reason}; no metrics are served\n")
