"""PostgreSQL servers that a proof may kill: each in a folder and on a port of its own, gone at the end."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

USER = "postgres"
HOST = "127.0.0.1"
DATABASE = "messages"


class Cluster:
    """One PostgreSQL server, as Debian installs its programs. It refuses to run as root: then it runs as `postgres`."""

    def __init__(self, folder: Path, port: int) -> None:
        self.data = folder / f"postgresql-{port}"
        self.port = port
        self.url = f"postgresql://{USER}@{HOST}:{port}/{DATABASE}"

    def make(self, **settings: str) -> None:
        """A new and empty cluster with the settings that postgresql.conf takes, and in it the database, once started."""
        self.run(
            "initdb", "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "-D", str(self.data)
        )
        self.configure(listen_addresses=HOST, port=str(self.port), unix_socket_directories="", **settings)

    def make_standby_of(self, primary: "Cluster", **settings: str) -> None:
        """A copy of the running primary that follows it."""
        quickly = ("--checkpoint=fast", "--no-sync")  # it is processes that are killed, no machine
        self.run("pg_basebackup", "--dbname", self.connection_to(primary), *quickly, "-D", str(self.data))
        self.configure(port=str(self.port), **settings)
        self.follow(primary)

    def follow(self, primary: "Cluster") -> None:
        """From its next start on, be a standby of the primary, which has all that this server holds."""
        self.configure(primary_conninfo=self.connection_to(primary))
        (self.data / "standby.signal").touch()

    def connection_to(self, primary: "Cluster") -> str:
        return f"host={HOST} port={primary.port} user={USER} application_name=standby_{self.port}"

    def configure(self, **settings: str) -> None:
        """Set what holds from the next start or reload on."""
        with (self.data / "postgresql.conf").open("a") as out:
            out.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Returns once it answers; crash recovery included."""
        self.run("pg_ctl", "start", "--wait", "--silent", "--timeout", "60", "-D", str(self.data), "-l", f"{self.data}.log")

    def create_database(self) -> None:
        with psycopg.connect(f"postgresql://{USER}@{HOST}:{self.port}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "--wait", "--silent", "-D", str(self.data))

    def reload(self) -> None:
        self.run("pg_ctl", "reload", "--silent", "-D", str(self.data))

    def main_process(self) -> psutil.Process:
        """Whose children are all its others; raises FileNotFoundError or NoSuchProcess where it does not run."""
        return psutil.Process(int((self.data / "postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """SIGKILL to all of its processes at the same moment, as when the machine goes."""
        main = self.main_process()
        processes = [main, *main.children(recursive=True)]
        main.suspend()  # so that it starts no other one meanwhile
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def stop(self) -> None:
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            process = self.main_process()
            process.send_signal(signal.SIGINT)  # a fast shutdown: it ends the connections
            try:
                process.wait(timeout=30)
            except psutil.TimeoutExpired:
                self.kill()

    @staticmethod
    def run(program: str, *arguments: str) -> None:
        command = without_root(str(programs() / program), *arguments)
        result = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if result.returncode:
            sys.exit(f"{program}: {result.stdout}")


def without_root(*command: str) -> list[str]:
    """The command for a program that refuses to run as root."""
    return ["runuser", "-u", USER, "--", *command] if os.geteuid() == 0 else [*command]


def programs() -> Path:
    """The folder of the newest PostgreSQL server's programs."""
    on_path = shutil.which("initdb")  # Debian keeps them off the path
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not on_path and not installed:
        sys.exit("A PostgreSQL server is missing; on Debian and Ubuntu: sudo apt install postgresql")
    return Path(on_path).resolve().parent if on_path else installed[-1]


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A temporary folder in which the user of the clusters may write."""
    folder = Path(tempfile.mkdtemp())
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, USER)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_cluster(folder: Path, port: int, **settings: str) -> Iterator[Cluster]:
    """A server with the empty database DATABASE."""
    cluster = Cluster(folder, port)
    try:
        cluster.make(**settings)
        cluster.start()
        cluster.create_database()
        yield cluster
    finally:
        cluster.stop()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until the condition held; ends the proof where it does not in time."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            sys.exit(f"Not within {seconds:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began
