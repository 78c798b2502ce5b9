"""What a proof starts and kills: the service, and PostgreSQL servers in folders and on ports of their own."""

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from config.testing.http_client import free_port
from config.testing.service import ROOT, Service

USER = "postgres"
WORKERS = 2
OWN_NETWORK_AND_MOUNTS = 0x40000000 | 0x00020000  # CLONE_NEWNET and CLONE_NEWNS of <sched.h>
SETTINGS = {
    "SECRET_KEY": "of all nodes of a proof, on databases that are thrown away",
    "ALLOWED_HOSTS": "*",
    "WEB_CONCURRENCY": str(WORKERS),
    "LIMIT_LOGIN": "off",
    "LIMIT_SIGNUP": "off",
    "LIMIT_SEND": "off",
}


class Node(Service):
    """The service without limits. `environment` has its other settings."""

    def __init__(self, folder: Path, database_url: str, **environment: str) -> None:
        logs = Path(tempfile.mkdtemp(prefix="logs-", dir=folder))
        settings = {**SETTINGS, "DATABASE_URL": database_url, **environment}
        super().__init__(logs, output=(logs / "output").open("a+"), **settings)

    def start(self) -> None:
        try:
            super().start()
        except TimeoutError as error:
            sys.exit(f"{self.url}: {error} {self.read_output()}")

    def read_output(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def kill(self) -> None:
        """End all of its processes at once, with SIGKILL, if it runs."""
        with suppress(AttributeError, ProcessLookupError):
            super().kill()

    def workers(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children()
        return []

    def memory(self) -> int:
        """Return the resident memory of its largest worker, in MB."""
        return round(max(worker.memory_info().rss for worker in self.workers()) / 1e6)

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of requests.log, activity.log or debug.log."""
        file = self.log_folder / f"{name}.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def manage(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `manage.py` with this node's settings."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True)

    def get(self, path: str, token: str | None = None) -> Any:
        return self.call("GET", path, token=token)

    def post(self, path: str, body: Any = None, token: str | None = None) -> Any:
        return self.call("POST", path, body, token)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """Return the JSON of the response. Ends the proof if it is an error."""
        status, content = self.request(method, path, body, token)
        expect(status < 400, f"{method} {self.url}{path}: {status} {content}")
        return content


@contextmanager
def running(node: Node) -> Iterator[Node]:
    """Make the node's tables, and run it during the block."""
    migrated = node.manage("migrate", "--verbosity", "0")
    expect(migrated.returncode == 0, f"manage.py migrate: {migrated.stderr}")
    node.start()
    try:
        yield node
    finally:
        node.kill()


class Cluster:
    """A PostgreSQL server with an empty database."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.data = folder / f"postgresql-{self.port}"
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self.make()
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n")
        self.start()

    def make(self) -> None:
        self.run("initdb", "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8")

    def start(self) -> None:
        """Return when the server accepts connections, after crash recovery if it was killed."""
        self.run("pg_ctl", "start", "--wait", "--silent", "-l", f"{self.data}.log")

    def run(self, name: str, *arguments: str) -> None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        command = without_root(program(name, "postgresql", *folders[-1:]), *arguments, "-D", str(self.data))
        result = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        expect(result.returncode == 0, f"{name}: {result.stdout}")

    def suspend_main_process(self) -> list[psutil.Process]:
        """Suspend the main process, so that it starts no other. Returns all processes of the server."""
        main = psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))
        main.suspend()
        return [*main.children(recursive=True), main]

    def kill(self) -> None:
        """Kill all of its processes at the same moment, as when the machine fails."""
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            kill_all(self.suspend_main_process())

    def frozen(self) -> AbstractContextManager:
        return frozen(self.suspend_main_process())


class Standby(Cluster):
    """A hot standby, which begins as a copy of the primary and follows it."""

    def __init__(self, primary: Cluster) -> None:
        self.primary = primary
        super().__init__(primary.folder)

    def make(self) -> None:
        self.run("pg_basebackup", "--dbname", self.primary.url, "--write-recovery-conf", "--checkpoint", "fast")


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a server in a temporary folder, in which the proof can put other files too."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        cluster = Cluster(Path(folder))
        try:
            yield cluster
        finally:
            cluster.kill()


@contextmanager
def frozen(processes: Iterable[psutil.Process]) -> Iterator[None]:
    """Suspend the processes during the block. Connections stay open, and the kernel accepts new connections."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


def kill_all(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)


def without_root(*command: str) -> list[str]:
    """Return the command as the user of PostgreSQL if this user is root, for a program that does not run as root."""
    return ["runuser", "-u", USER, "--", *command] if os.geteuid() == 0 else [*command]


def enter_own_network() -> None:
    """Move this process into a network of its own, without connection to others, and give it mounts of its own."""
    unshared = ctypes.CDLL(None, use_errno=True).unshare(OWN_NETWORK_AND_MOUNTS)
    expect(unshared == 0, f"Namespaces are not allowed here: {os.strerror(ctypes.get_errno())}")
    shell("mount", "--make-rprivate", "/")
    shell("ip", "link", "set", "lo", "up")


def shell(*command: str, **options: Any) -> str:
    """Return what the command prints. Ends the proof if it fails."""
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    expect(result.returncode == 0, f"{shlex.join(command)} failed: {result.stdout[-2000:]}")
    return result.stdout


def program(name: str, package: str, *folders: Path) -> str:
    """Return the path of a program. If it is missing, ends the proof and prints how to install it."""
    found = shutil.which(name, path=":".join([os.environ["PATH"], "/usr/sbin", *map(str, folders)]))
    return found or sys.exit(f"{name} is missing; on Debian and Ubuntu: sudo apt install {package}")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until the condition holds, and return the seconds that it took. Ends the proof after `seconds`."""
    began = time.monotonic()
    while not condition():
        expect(time.monotonic() - began < seconds, f"Not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def expect(holds: bool, what: str) -> None:
    """End the proof and print `what` if the condition does not hold."""
    if not holds:
        sys.exit(what[:3000])


def check(finding: str, *conditions: bool) -> None:
    """Print the finding, and end the proof if one of the conditions does not hold."""
    print(f"- {finding}", flush=True)
    expect(all(conditions), "That is not what is promised.")
