"""Shows that nothing acknowledged is lost and nothing is half-written, whatever is killed, frozen or stopped under load.

On PostgreSQL and on SQLite a worker is killed, then all processes of the service, and the service is stopped by SIGTERM; the
PostgreSQL server is killed, restarted and frozen. Clients send all the while, each message until it is acknowledged. After
each deed every message acknowledged since the begin is stored once, and the counters of all mailboxes agree with their
messages. Without a database clients are told so in time, and the service finds it again by itself. A request of which the
first byte was sent before SIGTERM is answered, and no answer is cut.
"""

import http.client
import json
import random
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg

from benchmarks.proofs.clients import PASSWORD, Client, Load, as_text, discrepancies, load, register
from benchmarks.proofs.cluster import Cluster, cluster_folder, running_cluster, wait_until
from benchmarks.proofs.node import Node, running_node
from config.testing.http_client import free_port

WORKERS = 2
CLIENTS = 6
CROWD = 24  # clients, more than the service has threads: some of them always wait
EXTRA = 4  # connections that wait to be accepted, and as many that are kept without use, when SIGTERM comes
WORKER_KILLS = 5
AWAY = 4  # seconds without a database
FROZEN = 12  # seconds with one that does not answer, in which several try again
REFUSED_WITHIN = 5  # seconds until a client is told that the database is gone, or that it does not answer
ANSWERED_WITHIN = 20  # seconds; generous, as nothing but a busy machine delays these answers
WENT_WRONG = {"detail": "Something went wrong"}
HUNG_UP = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")  # before any byte of an answer


class Call(NamedTuple):
    name: str
    method: str
    path: str
    body: dict[str, str] | None = None
    status: int = 503


class Request(NamedTuple):
    """What a recording client sent."""

    began: float  # when its connection was there, and none of it sent
    ended: float
    outcome: int | str  # the status of the answer, or what came in its place


class RecordingClient(Client):
    """Makes a new connection for every other request or so, and remembers when it sent each."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.requests: list[Request] = []

    def post(self, body: dict[str, str], key: str) -> tuple[int, Any]:
        if self.connection is None or self.connection.sock is None or random.random() < 0.5:  # noqa: S311 - no secret
            self.connect()
        began = time.monotonic()
        outcome: int | str = "nothing"
        try:
            outcome, answer = super().post(body, key)
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
            raise
        finally:
            self.requests.append(Request(began, time.monotonic(), outcome))
        return outcome, answer

    def connect(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=30)
        self.connection.connect()


class Trial:
    """A running service, and all clients that it had so far; `locked` keeps every send waiting."""

    def __init__(self, node: Node, locked: Callable[[], AbstractContextManager]) -> None:
        self.node, self.locked = node, locked
        self.so_far = Load([], {}, threading.Event())

    @contextmanager
    def load(
        self, name: str, *, clients: int = CLIENTS, kind: type[Client] = Client, refused: bool = False
    ) -> Iterator[Load]:
        """Clients at work during the block, and until each was acknowledged once more after it; then all is compared.

        A client may be told that there is no database where it may be `refused`.
        """
        tokens = register(self.node, [f"{name}-{number}" for number in range(clients)])
        with load(self.node.url, tokens, kind) as at_work:
            at_work.until_all_go_on(5)
            yield at_work
            at_work.until_all_go_on()
        self.verify(at_work, {201, 503} if refused else {201})

    def verify(self, at_work: Load, expected: set[int]) -> None:
        self.so_far.clients += at_work.clients
        self.so_far.tokens |= at_work.tokens
        found = discrepancies(self.node, self.so_far)
        if not {status for status in at_work.answers() if isinstance(status, int)} <= expected:
            found.append(f"Answers were {as_text(at_work.answers())}")
        if found:
            sys.exit("\n".join(found[:20]))

    def kill_workers(self) -> None:
        undisturbed, times = [], []
        with self.load("worker") as at_work:
            for _ in range(WORKER_KILLS):
                before = {client: failures(client.ledger.answers) for client in at_work.clients}
                times.append(self.kill_worker())
                at_work.until_all_go_on(5)
                undisturbed.append(sum(failures(client.ledger.answers) == count for client, count in before.items()))
        tell(
            f"killed one of {WORKERS} workers, {WORKER_KILLS} times: replaced within {max(times):.2f} s; "
            f"{failures(at_work.answers())} requests had no answer and were sent again, "
            f"of {CLIENTS} clients {min(undisturbed)} or more noticed nothing each time",
            at_work,
        )

    def kill_worker(self) -> float:
        """Seconds until it was replaced."""
        before = self.node.workers()
        random.choice(before).kill()  # noqa: S311 - no secret
        known = {worker.pid for worker in before}
        return wait_until(
            lambda: any(worker.pid not in known for worker in self.node.workers()), 30, "a killed worker is replaced"
        )

    def kill_service(self) -> None:
        with self.load("service") as at_work:
            self.node.kill()
            ready = self.node.start()
            later = at_work.until_all_go_on()
        tell(
            f"killed all processes of the service, and started it: ready after {ready:.1f} s, all clients went on "
            f"{later:.2f} s later",
            at_work,
        )

    def stop_service(self) -> None:
        with self.load("stop", clients=CROWD, kind=RecordingClient) as at_work:
            stops = []
            for busy in (True, False):
                stops.append(self.stop(busy))
                self.node.start()
                at_work.until_all_go_on(5)
        requests = [request for client in at_work.clients for request in client.requests]
        in_flight = [request for began, _ in stops for request in requests if request.began <= began < request.ended]
        later = [request for began, ended in stops for request in requests if began < request.began <= ended]
        lost = [request for request in in_flight if request.outcome != 201]
        hung_up = [request for request in later if request.outcome != 201]
        tell(
            f"stopped the service by SIGTERM, {len(stops)} times, in {max(ended - began for began, ended in stops):.1f} s: "
            f"{len(in_flight) - len(lost)} of {len(in_flight)} requests in flight were answered; of {len(later)} sent after "
            f"it over connections that were there {len(hung_up)} were not; then connections were refused",
            at_work,
        )
        if lost:
            sys.exit(f"Sent before SIGTERM, and not answered: {lost}")
        if len(hung_up) > len(stops) * CROWD / 4:
            sys.exit("Connections were accepted, and their requests were not answered, after SIGTERM")
        cut = {request.outcome for request in requests} - {201, *HUNG_UP}
        if cut:
            sys.exit(f"Answers were cut: {cut}")

    def stop(self, busy: bool) -> tuple[float, float]:
        """When it got SIGTERM, and when it had ended. While it is `busy` no thread is free, and nobody is accepted."""
        with ExitStack() as stack:
            idle = [stack.enter_context(closing(self.connection_with_request())) for _ in range(EXTRA)]
            for connection in idle:
                connection.getresponse().read()
            with self.locked() if busy else nullcontext():
                time.sleep(0.5)
                waiting = [stack.enter_context(closing(self.connection_with_request())) for _ in range(EXTRA)]
                began = time.monotonic()
                self.node.process.terminate()
                time.sleep(0.5)
            try:
                for connection in waiting:
                    connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                sys.exit(f"Who waited to be accepted when SIGTERM came had no answer: {error!r}")
            self.node.process.wait(timeout=60)
            ended = time.monotonic()
            try:
                for connection in idle:
                    connection.sock.recv(1)
            except OSError as error:
                sys.exit(f"A kept connection was not closed in order: {error!r}")
        return began, ended

    def connection_with_request(self) -> http.client.HTTPConnection:
        """A connection to the service, whose request needs no database."""
        connection = http.client.HTTPConnection(self.node.host, self.node.port, timeout=30)
        connection.request("GET", "/healthz")
        return connection

    def kill_database(self, cluster: Cluster) -> None:
        with self.load("database", refused=True) as at_work:
            cluster.kill()
            slowest = self.answers_without_database(at_work, AWAY)
            cluster.start()
            later = at_work.until_all_go_on()
        tell(f"killed the PostgreSQL server: {slowest}; all clients went on {later:.2f} s after it was back", at_work)

    def restart_database(self, cluster: Cluster) -> None:
        with self.load("restart", refused=True) as at_work:
            began = time.monotonic()
            log = f"{cluster.data}.log"
            cluster.run("pg_ctl", "restart", "--mode", "immediate", "--wait", "--silent", "-D", str(cluster.data), "-l", log)
            ready = time.monotonic() - began
            later = at_work.until_all_go_on()
        tell(
            f"restarted the PostgreSQL server in mode immediate: back in {ready:.1f} s, all clients went on {later:.2f} s "
            "later",
            at_work,
        )

    def restart_database_of_idle_service(self, cluster: Cluster) -> None:
        """Each thread of the service then holds a connection that the server has closed."""
        cluster.kill()
        cluster.start()
        with self.load("idle") as at_work:
            pass
        tell("killed and started the PostgreSQL server while no client was there: who came later met no error", at_work)

    def freeze_database(self, cluster: Cluster) -> None:
        with self.load("freeze", clients=CROWD, refused=True) as at_work:
            with frozen(cluster):
                slowest = self.answers_without_database(at_work, FROZEN)
            later = at_work.until_all_go_on()
        tell(
            f"froze the PostgreSQL server: {slowest}; all clients went on {later:.2f} s after it did",
            at_work,
            REFUSED_WITHIN,
        )

    def answers_without_database(self, at_work: Load, seconds: float) -> str:
        """Tries all kinds of calls again and again; ends the proof where an answer is wrong or late. How long they took."""
        username, token = next(iter(at_work.tokens.items()))
        calls = [
            Call("a read", "GET", "/api/message"),
            Call("a send", "POST", "/api/message", {"receiver": username, "content": "into the void"}),
            Call("a log-in", "POST", "/api/auth/login", {"username": username, "password": PASSWORD}),
            Call("/readyz", "GET", "/readyz"),
            Call("/healthz", "GET", "/healthz", status=200),
        ]
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(len(calls)) as pool:
            slowest = pool.map(lambda call: self.slowest_answer(call, token, until), calls)
            return ", ".join(
                f"{call.status} to {call.name} in {took:.2f} s" for call, took in zip(calls, slowest, strict=True)
            )

    def slowest_answer(self, call: Call, token: str, until: float) -> float:
        slowest = 0.0
        while time.monotonic() < until:
            slowest = max(slowest, self.time_of_answer(call, token))
            time.sleep(0.1)
        return slowest

    def time_of_answer(self, call: Call, token: str) -> float:
        headers = {"Content-Type": "application/json", "Authorization": f"Token {token}"}
        began = time.monotonic()
        with closing(http.client.HTTPConnection(self.node.host, self.node.port, timeout=REFUSED_WITHIN)) as connection:
            try:
                connection.request(call.method, call.path, call.body and json.dumps(call.body), headers)
                response = connection.getresponse()
                answer = response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                sys.exit(f"Without a database {call.name} had no answer in JSON within {REFUSED_WITHIN} s: {error!r}")
        expected = (200, {"status": "ok"}) if call.status == 200 else (call.status, WENT_WRONG)
        if answer != expected or (call.status == 503 and not response.headers.get("Retry-After", "").isdecimal()):
            sys.exit(f"Without a database {call.name} was answered with {answer}, {dict(response.headers)}")
        return time.monotonic() - began


def failures(answers: Counter) -> int:
    """How many requests had no answer."""
    return sum(count for status, count in dict(answers).items() if not isinstance(status, int))


def tell(finding: str, at_work: Load, bound: float = ANSWERED_WITHIN) -> None:
    print(f"- {finding}")
    print(
        f"  {as_text(at_work.answers())}; slowest answer {at_work.slowest():.2f} s, longest pause {at_work.pause():.2f} s",
        flush=True,
    )
    if at_work.slowest() > bound:
        sys.exit(f"A client waited for {at_work.slowest():.1f} s, more than {bound} s")


@contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    """None of its processes runs during the block; connections to it stay open, and the kernel goes on to take new ones."""
    main = cluster.main_process()
    main.suspend()  # so that it starts no other one meanwhile
    processes = [*main.children(recursive=True), main]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@contextmanager
def locked_mailboxes(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("LOCK TABLE messageservice_mailbox IN EXCLUSIVE MODE")
        yield


@contextmanager
def locked_file(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, timeout=20, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def trial(folder: Path, url: str, locked: Callable[[], AbstractContextManager]) -> Iterator[Trial]:
    with running_node(folder, url, port=free_port(), WEB_CONCURRENCY=str(WORKERS)) as node:
        on = Trial(node, locked)
        yield on
        logged = len(node.log_lines("requests"))  # it reads each of them as JSON
        print(
            f"  all {on.so_far.acknowledged():,} acknowledged messages are stored once; {logged:,} lines logged, none torn"
        )


def main() -> None:
    with cluster_folder() as folder:
        print("On PostgreSQL:", flush=True)
        with (
            running_cluster(folder, free_port()) as cluster,
            trial(folder, cluster.url, partial(locked_mailboxes, cluster.url)) as on,
        ):
            on.kill_workers()
            on.kill_service()
            on.kill_database(cluster)
            on.restart_database(cluster)
            on.restart_database_of_idle_service(cluster)
            on.stop_service()
            on.freeze_database(cluster)

        print("On SQLite:", flush=True)
        file = folder / "messages.sqlite3"
        with trial(folder, f"sqlite:///{file}", partial(locked_file, file)) as on:
            on.kill_workers()
            on.kill_service()
            on.stop_service()
        with closing(sqlite3.connect(file)) as database:
            [(damage,)] = database.execute("PRAGMA integrity_check").fetchall()
        if damage != "ok":
            sys.exit(f"SQLite's file is damaged: {damage}")


if __name__ == "__main__":
    main()
