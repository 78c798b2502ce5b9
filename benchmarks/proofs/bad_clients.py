"""Shows that clients which are slow, greedy or many do no harm to others, and that load is spread over the workers.

The service runs with two workers on a PostgreSQL server of its own. How long others wait is compared with how long they
waited a moment before. Memory is that of the largest worker.
"""

import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection

import psutil

from benchmarks.proofs.checks import check, expect, program, wait_until
from benchmarks.proofs.clients import PASSWORD, connect, register, request_bytes, slow_clients
from benchmarks.proofs.processes import WORKERS, Cluster, Node, running, running_cluster, running_node

PARTS = ("spread", "hashing", "slow", "memory", "deadlines", "limit")
RUNS, CONNECTIONS = 10, 16
FEWEST, SHARE = 1, 0.33  # the kernel chooses at random; with 1 of 16, both workers together do nine tenths of the work
NEXT_TO_SLOW, NEXT_TO_HASHING = 3, 5  # how many times as long others may wait
DEADLINE = 60  # seconds within which a request must be complete, and a response make progress
IDLE = 20  # seconds after which the service closes an idle connection
TOLERANCE = 10  # seconds
READING, IGNORING = 160, 250  # MB of memory that a worker may use while clients read, and while they read nothing
LARGE = "😀" * 10_000  # a hundred of these make a page of 4 MB
LARGEST_PAGE = "/api/message?page_size=100"
MEBIBYTE = 2**20
OPEN_FILES = 1_024
HASHING = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local number = 0
function request()
    number = number + 1
    local path, name = "/api/auth/login", "good"
    if number % 2 == 0 then path, name = "/api/auth/register", "new-" .. number end
    return wrk.format(nil, path, nil, '{"username": "' .. name .. '", "password": "PASSWORD"}')
end
"""


class Proof:
    def __init__(self, cluster: Cluster, node: Node) -> None:
        self.cluster, self.node = cluster, node
        self.token, self.hoarder = register(node, ["good", "hoarder"]).values()
        for _ in range(100):
            node.post("/api/message", {"receiver": "hoarder", "content": LARGE}, self.hoarder)
        self.page = request_bytes("GET", LARGEST_PAGE, self.hoarder)

    def head(self, *headers: str) -> bytes:
        return request_bytes("POST", "/api/message", self.token, *headers)

    def measure_waits(self, path: str = "/api/auth/user", seconds: float = 6) -> tuple[float, float]:
        """Return how long a client waits, in ms: the median, and the most of nine in ten. Every tenth request connects."""
        took, until = [], time.monotonic() + seconds
        while time.monotonic() < until:
            with closing(connect(self.node.url)) as connection:
                for _ in range(10):
                    took.append(1000 * seconds_to_get(connection, path, self.token))
                    time.sleep(0.01)
        return statistics.median(took), statistics.quantiles(took, n=10)[-1]

    def start_wrk(self, path: str, connections: int, seconds: int, *options: str) -> subprocess.Popen:
        command = [program("wrk", "wrk"), "--threads=1", f"--connections={connections}", f"--duration={seconds}s", *options]
        command += ["--header", f"Authorization: Token {self.token}", self.node.url + path]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def spread(self) -> None:
        runs = [self.connections_of_workers() for _ in range(RUNS)]
        fewest = min(min(run) for run in runs)
        share = min(map(sum, zip(*runs, strict=True))) / (RUNS * CONNECTIONS)
        check(
            f"{RUNS} runs of {CONNECTIONS} connections to {WORKERS} workers: each worker has at least {fewest} in every run "
            f"and {share:.0%} of all",
            fewest >= FEWEST,
            share >= SHARE,
        )

    def connections_of_workers(self) -> list[int]:
        """Open connections under load, and return how many of them each worker has accepted."""
        numbers = []

        def are_open() -> bool:
            numbers[:] = [self.count_connections(worker) for worker in self.node.workers()]
            return sum(numbers) == CONNECTIONS

        crowd = self.start_wrk("/api/message", CONNECTIONS, 3)
        wait_until(are_open, 3, f"the workers have {CONNECTIONS} connections")
        crowd.communicate()
        return numbers

    def count_connections(self, worker: psutil.Process) -> int:
        sockets = worker.net_connections("tcp")
        return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.node.port for each in sockets)

    def hashing(self) -> None:
        script = self.cluster.folder / "hashing.lua"
        script.write_text(HASHING.replace("PASSWORD", PASSWORD))
        waits = []
        for options in ((), ("--script", str(script))):
            crowd = self.start_wrk("/api/auth/user", 40, 8, *options)
            waits.append(self.measure_waits()[1])
            crowd.communicate()
        check(
            f"next to 40 clients that register and log in, nine in ten GET /api/auth/user take less than {waits[1]:.0f} ms: "
            f"{waits[1] / waits[0]:.1f} times as long as next to 40 that ask for the same",
            waits[1] <= NEXT_TO_HASHING * waits[0],
        )

    def slow(self) -> None:
        alone = self.measure_waits("/api/message")
        chunked, sized = self.head("Transfer-Encoding: chunked"), self.head("Content-Length: 1000")
        with ExitStack() as stack:
            stack.enter_context(slow_clients(self.node, 40, sized, b" "))
            stack.enter_context(slow_clients(self.node, 40, chunked, b"1\r\n \r\n"))
            stack.enter_context(slow_clients(self.node, 40, self.page))
            stack.enter_context(slow_clients(self.node, 1_000, b""))
            stack.enter_context(slow_clients(self.node, 1_000, request_bytes("GET", "/healthz", "none")))
            time.sleep(2)
            crowded = self.measure_waits("/api/message")
        times = [longer / shorter for longer, shorter in zip(crowded, alone, strict=True)]
        check(
            "next to 40 clients that send a body slowly, 40 that send chunks slowly, 40 that never read and 2,000 that are "
            f"idle, others wait {crowded[0]:.1f} ms, nine in ten at most {crowded[1]:.1f} ms, {times[0]:.1f} and "
            f"{times[1]:.1f} times as long as alone",
            max(times) <= NEXT_TO_SLOW,
        )

    def memory(self) -> None:
        self.node.reset_peak_memory()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: self.node.get(LARGEST_PAGE, self.hoarder), range(40)))
        peak = self.node.peak_memory()
        check(f"8 clients that read pages of 4 MB: a worker has {peak} MB", peak < READING)
        peak, wait = self.measure_memory(300, self.page)
        check(f"300 that never read them: {peak} MB; others wait {wait:.0f} ms", peak < IGNORING)
        took = wait_until(lambda: self.node.memory() < READING, 30, f"memory is below {READING} MB again")
        check(f"it has less than {READING} MB {took:.0f} s after they left")
        incomplete = self.head(f"Content-Length: {MEBIBYTE}") + b" " * (MEBIBYTE - 1)
        peak, wait = self.measure_memory(2_000, incomplete)
        check(f"2,000 that hold back the last byte of 1 MiB: {peak} MB; others wait {wait:.0f} ms", peak < IGNORING)

    def measure_memory(self, number: int, first: bytes) -> tuple[int, float]:
        """Return the peak memory of a worker, and how long others wait, next to that many clients that send `first`."""
        self.node.reset_peak_memory()
        with slow_clients(self.node, number, first):
            time.sleep(8)
            wait, _ = self.measure_waits(seconds=2)
        return self.node.peak_memory(), wait

    def deadlines(self) -> None:
        """Check how long the service waits for requests that are never complete, and keeps responses that nobody reads."""
        cases = {
            "a header": (self.head()[:-2] + b"X: ", b"x"),
            "a body": (self.head("Content-Length: 1000"), b" "),
            "chunks": (self.head("Transfer-Encoding: chunked"), b"1\r\n \r\n"),
        }
        with slow_clients(self.node, 300, self.page), ThreadPoolExecutor(len(cases)) as pool:
            ended = [*pool.map(lambda case: self.seconds_until_end(*case), cases.values())]
            time.sleep(max(0, DEADLINE + TOLERANCE - max(ended)))
            kept = self.node.memory()
        shown = ", ".join(f"{name} after {seconds:.0f} s" for name, seconds in zip(cases, ended, strict=True))
        check(f"the service ends requests that come in pieces, one a second: {shown}", max(ended) <= DEADLINE + TOLERANCE)
        check(f"with 300 that have not read for {DEADLINE + TOLERANCE} s it has {kept} MB", kept < READING)

    def seconds_until_end(self, first: bytes, piece: bytes) -> float:
        """Send `first`, then `piece` once a second; return the seconds until the service has closed the connection."""
        began = time.monotonic()
        with closing(socket.create_connection((self.node.host, self.node.port))) as connection:
            connection.sendall(first)
            with suppress(OSError):
                for _ in range(DEADLINE + 2 * TOLERANCE):
                    time.sleep(1)
                    connection.sendall(piece)
        return time.monotonic() - began

    def limit(self) -> None:
        """Open more connections than the service may have open files."""
        node = Node(self.cluster.folder, self.cluster.url)
        node.command = ("prlimit", f"--nofile={OPEN_FILES}", *node.command)
        with running(node), closing(connect(node.url)) as kept, closing(connect(node.url)) as late:
            seconds_to_get(kept, "/healthz")
            with slow_clients(node, WORKERS * OPEN_FILES, b""):
                time.sleep(2)
                served, waited = seconds_to_get(kept, "/healthz"), seconds_to_get(late, "/healthz")
        check(
            f"{WORKERS * OPEN_FILES:,} idle connections to {WORKERS} workers of {OPEN_FILES:,} open files: one from before "
            f"is served within {served:.2f} s, a new one after {waited:.0f} s, once idle ones were closed",
            served <= 1,
            waited <= IDLE + TOLERANCE,
        )


def seconds_to_get(connection: HTTPConnection, path: str, token: str = "none") -> float:  # noqa: S107
    began = time.monotonic()
    connection.request("GET", path, headers={"Authorization": f"Token {token}"})
    response = connection.getresponse()
    response.read()
    expect(response.status == 200, f"A client that does no harm got {response.status}")
    return time.monotonic() - began


def main() -> None:
    with running_cluster() as cluster, running_node(cluster.folder, cluster.url) as node:
        workers, proof = node.workers(), Proof(cluster, node)
        for part in sys.argv[1:] or PARTS:
            getattr(proof, part)()
        expect({*node.workers()} == {*workers}, "A worker died")
        expect(not node.log_lines("debug"), f"debug.log: {node.log_lines('debug')[:1]}")
        statuses = {line["status"] for line in node.log_lines("requests")}
        expect(statuses <= {200, 201, 400, 408, 503}, f"Responses were {statuses}")


if __name__ == "__main__":
    main()
