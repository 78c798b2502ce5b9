"""Shows that nothing acknowledged is lost, whatever is killed, frozen or stopped under load, on PostgreSQL and on SQLite.

A worker is killed, then all processes of the service. The service is stopped by SIGTERM. The PostgreSQL server is killed and
frozen. Clients send all the time, each message until it is acknowledged.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg

from benchmarks.proofs.checks import check, expect, wait_until
from benchmarks.proofs.clients import PASSWORD, Load
from benchmarks.proofs.processes import Cluster, Node, running_cluster, running_node

CLIENTS = 16  # more than the service has threads: some of them always wait
APART = 7  # seconds between two kills: the service ends if a worker dies within seconds of its start
REPLACED_WITHIN = 5  # seconds
BACK_WITHIN = 5  # seconds until all clients go on once everything runs again
AWAY = 6  # seconds without a database
RESPONSE_WITHIN = 5  # seconds until a request gets a response while the database does not run or respond
UNAVAILABLE = {"detail": "The service is unavailable. Try again in a moment."}


class Proof:
    """A running service under load. `connect` connects to its database, and the statement `lock` keeps all sends waiting."""

    def __init__(self, node: Node, load: Load, connect: Callable[[], Any], lock: str) -> None:
        self.node, self.load, self.connect, self.lock = node, load, connect, lock

    def kill_worker(self) -> None:
        time.sleep(APART)
        began, before = time.monotonic(), self.node.workers()
        victim = max(before, key=self.connections)
        held = self.connections(victim)
        victim.kill()
        took = wait_until(lambda: self.listens({*self.node.workers()} - {*before}), 30, "a killed worker is replaced")
        self.load.wait_until_all_go_on(5)
        lost = self.load.outcomes(began).total() - self.load.outcomes(began)[201]
        check(
            f"killed a worker with {held} connections: replaced within {took:.2f} s, {lost} requests without a response",
            took <= REPLACED_WITHIN,
            lost <= held,
        )

    def connections(self, worker: psutil.Process) -> int:
        return sum(end.laddr.port == self.node.port and bool(end.raddr) for end in worker.net_connections("tcp"))

    @staticmethod
    def listens(workers: set[psutil.Process]) -> bool:
        return any(end.status == "LISTEN" for worker in workers for end in worker.net_connections("tcp"))

    def kill_service(self) -> None:
        self.node.kill()
        self.node.start()
        took = self.load.wait_until_all_go_on()
        check(f"killed all processes and started the service: all clients went on {took:.2f} s later", took <= BACK_WITHIN)

    def stop_service(self) -> None:
        """Stop the service by SIGTERM while all clients wait for their response."""
        with closing(self.connect()) as connection:
            connection.execute(self.lock)
            time.sleep(1)
            signalled = time.monotonic()
            self.node.process.terminate()
            time.sleep(1)
        status = self.node.process.wait(timeout=60)
        ended = time.monotonic() - signalled
        waiting = [request for request in self.load.requests if request.began < signalled < request.ended]
        stored = sum(request.outcome == 201 for request in waiting)
        self.node.start()
        self.load.wait_until_all_go_on()
        check(
            f"SIGTERM: {stored} of {len(waiting)} requests in flight got their 201; the service ended with {status} after "
            f"{ended:.1f} s",
            stored == len(waiting) == CLIENTS,
            status == 0,
        )

    def kill_database(self, cluster: Cluster) -> None:
        cluster.kill()
        responses = self.request_without_database()
        cluster.start()
        took = self.load.wait_until_all_go_on()
        check(
            f"killed the PostgreSQL server: {responses}; all clients went on {took:.2f} s after it was back",
            took <= BACK_WITHIN,
        )

    def freeze_database(self, cluster: Cluster) -> None:
        began = time.monotonic()
        with cluster.frozen():
            responses = self.request_without_database()
        took, slowest = self.load.wait_until_all_go_on(), self.load.slowest(began)
        check(
            f"froze the PostgreSQL server: {responses}, a response to all within {slowest:.2f} s; all went on {took:.2f} s "
            "later",
            slowest <= RESPONSE_WITHIN,
            took <= BACK_WITHIN,
        )

    def request_without_database(self) -> str:
        """Send several kinds of requests, again and again. Returns what they get, and within how many seconds."""
        username, token = next(iter(self.load.tokens.items()))
        requests = {
            "a list": ("GET", "/api/message"),
            "a send": ("POST", "/api/message", {"receiver": username, "content": "into the void"}),
            "a login": ("POST", "/api/auth/login", {"username": username, "password": PASSWORD}),
            "/readyz": ("GET", "/readyz"),
            "/healthz": ("GET", "/healthz"),
        }
        until = time.monotonic() + AWAY

        def slowest(name: str) -> str:
            expected, took = (200, {"status": "ok"}) if name == "/healthz" else (503, UNAVAILABLE), []
            while time.monotonic() < until:
                began = time.monotonic()
                response = self.node.request(*requests[name], token=token)
                took.append(time.monotonic() - began)
                expect(response == expected and took[-1] <= RESPONSE_WITHIN, f"{name} got {response} after {took[-1]:.1f} s")
                time.sleep(0.1)
            return f"{expected[0]} to {name} within {max(took):.2f} s"

        with ThreadPoolExecutor(len(requests)) as pool:
            return ", ".join(pool.map(slowest, requests))


@contextmanager
def running_proof(folder: Path, url: str, connect: Callable[[], Any], lock: str) -> Iterator[Proof]:
    with running_node(folder, url) as node:
        with Load(node, "user", CLIENTS) as load:
            load.wait_until_all_go_on(5)
            yield Proof(node, load, connect, lock)
            load.wait_until_all_go_on(5)
        messages = load.expect_nothing_lost(node)
        lines = len(node.log_lines("requests"))  # log_lines reads each line as JSON
        check(f"{messages:,} messages acknowledged, none lost, none doubled; {lines:,} lines logged, none torn")


def main() -> None:
    with running_cluster() as cluster:
        print("On PostgreSQL:", flush=True)
        lock = "LOCK TABLE messageservice_mailbox IN EXCLUSIVE MODE"
        with running_proof(cluster.folder, cluster.url, partial(psycopg.connect, cluster.url), lock) as proof:
            for _ in range(3):
                proof.kill_worker()
            proof.kill_service()
            proof.stop_service()
            proof.kill_database(cluster)
            proof.freeze_database(cluster)
        print("On SQLite:", flush=True)
        file = cluster.folder / "messages.sqlite3"
        connect = partial(sqlite3.connect, file, timeout=20)
        with running_proof(cluster.folder, f"sqlite:///{file}", connect, "BEGIN IMMEDIATE") as proof:
            proof.kill_worker()
            proof.kill_service()
            proof.stop_service()
        with closing(connect()) as database:
            damage = database.execute("PRAGMA integrity_check").fetchall()
        expect(damage == [("ok",)], f"SQLite's file is damaged: {damage}")


if __name__ == "__main__":
    main()
