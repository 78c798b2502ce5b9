"""Services under measurement, each in processes of its own, and what they use."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks import fill
from benchmarks.databases import ROOT

WORKERS = str(os.cpu_count())
THREADS = "4"  # as config/server.py has it


@dataclass(frozen=True)
class Service:
    name: str
    port: int
    process: psutil.Process
    database: psutil.Process | None  # where it is one of its own
    first_answer: float  # seconds from its start

    def cpu_seconds(self) -> tuple[float, float]:
        """What its processes and the database's have used so far."""
        return _cpu_seconds(self.process), _cpu_seconds(self.database) if self.database else 0.0

    def rest(self) -> None:
        """Wait, a minute at most, until it is done with requests whose clients are gone."""
        for _ in range(300):
            before = sum(self.cpu_seconds())
            time.sleep(0.2)
            if sum(self.cpu_seconds()) - before < 0.02:
                return

    def worker_memory(self) -> list[float]:
        """The resident memory of each worker, in MB; workers are the processes without children."""
        descendants = self.process.children(recursive=True)
        return [process.memory_info().rss / 1e6 for process in descendants if not process.children()]

    def get(self, path: str, user: int) -> Any:
        headers = {"Authorization": f"Token {fill.token(user)}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def _cpu_seconds(root: psutil.Process) -> float:
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
        if process == root:  # and those of its children that have ended
            seconds += times.children_user + times.children_system
    return seconds


def commands(name: str, port: int) -> list[str]:
    """How to start a service: the project's as anybody does, the others under the same kind of server.

    `granian` is the project's service as well, under the other server that was considered for it.
    """
    python = [sys.executable, "-m"]
    if name == "service":
        return ["make", "serve"]
    if name == "granian":
        options = ["--interface", "wsgi", "--workers", WORKERS, "--blocking-threads", THREADS, "--port", str(port)]
        options += ["--backpressure", "64", "--respawn-failed-workers", "--workers-kill-timeout", "30", "--no-log"]
        return [*python, "granian", *options, "config.wsgi:application"]
    options = ["--worker-class", "gthread", "--workers", WORKERS, "--threads", THREADS, "--keep-alive", "15"]
    options += ["--backlog", "2048", "--no-control-socket", "--log-level", "warning", "--bind", f"127.0.0.1:{port}"]
    application = {"ordinary": "benchmarks.ordinary.wsgi:application", "floor": "benchmarks.floor:application"}[name]
    return [*python, "gunicorn", *options, application]


@contextmanager
def running(name: str, port: int, database: psutil.Process | None, **environment: str) -> Iterator[Service]:
    logs = tempfile.mkdtemp()
    began = time.monotonic()
    process = psutil.Popen(
        commands(name, port),
        cwd=ROOT,
        env={**os.environ, "PORT": str(port), "LOG_DIR": logs, **environment},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for_answer(name, port, process)
        yield Service(name, port, process, database, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(logs)


def wait_for_answer(name: str, port: int, process: psutil.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5)
        except urllib.error.HTTPError:
            return  # a yardstick has no such path
        except OSError:
            time.sleep(0.02)
        else:
            return
    sys.exit(f"{name} does not answer on port {port}")
