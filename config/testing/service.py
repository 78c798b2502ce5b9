"""Runs the service in separate processes, as `make serve` does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from config.testing.http_client import free_port, send_request

ROOT = Path(__file__).resolve().parent.parent.parent


def test_database_url() -> str:
    """Return the DATABASE_URL of the database that the running tests use."""
    from django.db import connection  # proofs and benchmarks use this module without Django

    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()


class Service:
    """The service in separate processes, on the tests' database unless `environment` names another, whose tables must exist.

    `environment` has its other settings. The processes print into the file `output`, if it is given.
    """

    command = (sys.executable, "-m", "config.server")

    def __init__(self, log_folder: Path, *, output: IO | None = None, **environment: str) -> None:
        self.log_folder, self.output = log_folder, output
        self.environment = {
            **os.environ,
            "DATABASE_URL": environment.get("DATABASE_URL") or test_database_url(),
            "LOG_DIR": str(log_folder),
            "PORT": str(free_port()),
            "WEB_CONCURRENCY": "4",
            **environment,
        }
        self.host, self.port = self.environment.get("HOST", "127.0.0.1"), int(self.environment["PORT"])
        self.url = f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Return when the service is ready."""
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=self.environment,
            stdout=self.output or subprocess.DEVNULL,
            stderr=self.output,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
        if self.process.poll() is None:
            self.kill()
        raise TimeoutError("The service ended immediately, or did not start within 30 seconds.")

    def stop(self) -> None:
        """Stop the service as SIGTERM does, and wait until its main process has ended."""
        self.process.terminate()
        self.process.wait(timeout=40)

    def kill(self) -> None:
        """End all of its processes with SIGKILL."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def request(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> tuple[int, Any]:
        """Return status and JSON of the response. Raises OSError if there is none."""
        return send_request(self.url + path, method, body, token, seconds=30, **headers)


@contextmanager
def run_service(log_folder: Path, *, output: IO | None = None, **environment: str) -> Iterator[Service]:
    """Run the service in the block, with the arguments of `Service`."""
    service = Service(log_folder, output=output, **environment)
    service.start()
    try:
        yield service
    finally:
        service.stop()
