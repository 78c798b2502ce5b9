"""What a proof starts and kills: the service, and PostgreSQL servers in folders and on ports of their own."""

import ctypes
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.proofs.checks import expect, program, shell, wait_until
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
        super().__init__(logs, output=(logs / "output").open("a"), **settings)

    def start(self) -> None:
        try:
            super().start()
        except TimeoutError as error:
            sys.exit(f"{self.url}: {error} {(self.log_folder / 'output').read_text()}")

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def memory(self) -> int:
        """Return the resident memory of its largest worker now, in MB."""
        return round(max(worker.memory_info().rss for worker in self.workers()) / 1e6)

    def reset_peak_memory(self) -> None:
        for worker in self.workers():
            Path(f"/proc/{worker.pid}/clear_refs").write_text("5")

    def peak_memory(self) -> int:
        """Return the most memory that one of its workers has used since the reset, in MB."""
        statuses = [Path(f"/proc/{worker.pid}/status").read_text() for worker in self.workers()]
        return round(max(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) for status in statuses) * 1024 / 1e6)

    def log_lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of requests.log, activity.log or debug.log."""
        file = self.log_folder / f"{name}.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def manage(self, *arguments: str) -> str:
        """Run `manage.py` with this node's settings, and return what it prints. Ends the proof if it fails."""
        return shell(sys.executable, "manage.py", *arguments, cwd=ROOT, env=self.environment)

    def get(self, path: str, token: str | None = None) -> Any:
        return self.call("GET", path, token=token)

    def post(self, path: str, body: Any = None, token: str | None = None) -> Any:
        return self.call("POST", path, body, token)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Any:
        """Return the JSON of the response. Ends the proof if it is an error."""
        status, content = self.request(method, path, body, token)
        expect(status < 400, f"{method} {self.url}{path}: {status} {content}")
        return content


def running_node(folder: Path, database_url: str, **environment: str) -> AbstractContextManager[Node]:
    """Make the tables of the database, and run a node during the block."""
    node = Node(folder, database_url, **environment)
    node.manage("migrate", "--verbosity", "0")
    return running(node)


@contextmanager
def running(process: Any) -> Iterator[Any]:
    """Start a node, a server or anything else with these two methods, and kill it at the end of the block."""
    process.start()
    try:
        yield process
    finally:
        process.kill()


class Cluster:
    """A PostgreSQL server with an empty database, or a hot standby that begins as a copy of the primary."""

    def __init__(self, folder: Path, primary: "Cluster | None" = None) -> None:
        self.folder, self.port = folder, free_port()
        self.data = folder / f"postgresql-{self.port}"
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        if primary:
            self.run("pg_basebackup", "--dbname", primary.url, "--write-recovery-conf", "--checkpoint", "fast")
        else:
            self.run("initdb", "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\nunix_socket_directories = ''\n")

    def start(self) -> None:
        """Return when the server accepts connections, after crash recovery if it was killed."""
        self.run("pg_ctl", "start", "--wait", "--silent", "-l", f"{self.data}.log")

    def run(self, name: str, *arguments: str) -> None:
        folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        shell(*without_root(program(name, "postgresql", *folders[-1:]), *arguments, "-D", str(self.data)), cwd="/")

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


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a server in a temporary folder, in which the proof can put other files too."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        with running(Cluster(Path(folder))) as cluster:
            yield cluster


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


class Program:
    """A program that does not run as root, and that listens on a port of 127.0.0.1."""

    def __init__(self, port: int, *command: str) -> None:
        self.port, self.command = port, command

    def start(self) -> None:
        self.process = psutil.Popen(without_root(*self.command), cwd="/")
        wait_until(self.listens, 10, f"{self.command[0]} listens")

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        kill_all([self.process, *self.process.children(recursive=True)])


def without_root(*command: str) -> list[str]:
    """Return the command as the user of PostgreSQL if this user is root, for a program that does not run as root."""
    return ["runuser", "-u", USER, "--", *command] if os.geteuid() == 0 else [*command]


def enter_own_network() -> None:
    """Move this process into a network of its own, without connection to others, and give it mounts of its own."""
    unshared = ctypes.CDLL(None, use_errno=True).unshare(OWN_NETWORK_AND_MOUNTS)
    expect(unshared == 0, f"Namespaces are not allowed here: {os.strerror(ctypes.get_errno())}")
    shell("mount", "--make-rprivate", "/")
    shell("ip", "link", "set", "lo", "up")
