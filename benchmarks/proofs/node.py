"""The service in processes of its own, to be called, stopped and killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.databases import ROOT
from benchmarks.proofs.cluster import wait_until
from config.testing.http_client import call

SECRET_KEY = "of all nodes of a proof, on databases that are thrown away"  # noqa: S105
WITHOUT_LIMITS = {"LIMIT_LOGIN": "off", "LIMIT_SIGNUP": "off", "LIMIT_SEND": "off"}


class Node:
    """The service as `make serve` starts it, on an address of its own; `environment` holds its settings."""

    def __init__(self, folder: Path, database_url: str, *, host: str = "127.0.0.1", port: int, **environment: str) -> None:
        self.host, self.port = host, port
        self.url = f"http://{host}:{port}"
        self.logs = folder / f"logs-{host}-{port}"
        self.errors = folder / f"errors-{host}-{port}"  # what it prints on standard error
        self.environment = {
            "DATABASE_URL": database_url,
            "HOST": host,
            "PORT": str(port),
            "LOG_DIR": str(self.logs),
            "SECRET_KEY": SECRET_KEY,
            "ALLOWED_HOSTS": "*",
            **WITHOUT_LIMITS,
            **environment,
        }
        self.process: psutil.Popen | None = None

    def start(self) -> float:
        """Seconds until it was ready to answer."""
        self.process = psutil.Popen(
            ["make", "serve"],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=self.errors.open("ab"),
            start_new_session=True,
        )
        return wait_until(self.is_ready, 60, f"{self.url} is ready")

    def is_ready(self) -> bool:
        if self.process.poll() is not None:
            sys.exit(f"The service at {self.url} has ended: {self.errors.read_text()}")
        with suppress(OSError):
            return self.request("GET", "/readyz")[0] == 200
        return False

    def stop(self) -> int:
        """SIGTERM, as a service manager does; its exit status once it has ended."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def kill(self) -> None:
        """SIGKILL to all of its processes at once; nothing where it was never started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def workers(self) -> list[psutil.Process]:
        """Its worker processes: those without children."""
        workers = []
        for process in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended just now
                if not process.children():
                    workers.append(process)
        return workers

    def memory(self) -> list[float]:
        """The resident memory of each worker, in MB."""
        return [worker.memory_info().rss / 1e6 for worker in self.workers()]

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of requests.log, activity.log or debug.log."""
        file = self.logs / f"{name}.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def manage(self, *arguments: str) -> subprocess.CompletedProcess:
        """`manage.py` with this node's settings."""
        command = [sys.executable, "manage.py", *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    def request(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON of the answer; raises OSError where there is none within ten seconds."""
        return call(self.url + path, method, body, token, seconds=10, **headers)

    def answer(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        """The JSON of a good answer; ends the proof where it is another one."""
        status, content = self.request(method, path, body, token, **headers)
        if status >= 400:
            sys.exit(f"{method} {self.url}{path}: {status} {content}")
        return content


@contextmanager
def running_node(folder: Path, database_url: str, *, port: int, **environment: str) -> Iterator[Node]:
    node = Node(folder, database_url, port=port, **environment)
    try:
        node.start()
        yield node
    finally:
        node.kill()


def need(program: str, package: str) -> None:
    """End the proof where a program is missing, and say how to get it."""
    if not shutil.which(program):
        sys.exit(f"{program} is missing; on Debian and Ubuntu: sudo apt install {package}")
