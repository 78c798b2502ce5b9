"""Shows that clients which break the rules of HTTP, or are slow, greedy or many, do no harm to others.

The service runs on a PostgreSQL server of its own, with the 1,024 open files that a shell gives. In each part clients of one
kind do their worst (`attacks.py`) while well-behaved ones send and list: how long these wait is printed beside how long they
wait when alone. Then come bad requests (`fuzz.py`), ten thousand of a kind, and a tenth of that on SQLite.

Promised is: who behaves is answered in good time, nothing half-sent is stored, no 5xx, always JSON with X-Request-ID, a line
in requests.log for each answer, none in debug.log, and no worker dies or grows.
"""

import argparse
import http.client
import json
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.proofs import fuzz
from benchmarks.proofs.attacks import HALF, ODDITIES, Crowd, ask, crowds, unleash
from benchmarks.proofs.clients import Client, Ledger, Load, discrepancies, register
from benchmarks.proofs.cluster import cluster_folder, running_cluster
from benchmarks.proofs.node import Node, running_node
from config.testing.http_client import free_port

SECONDS = 5  # of each part
HEAD_START = 1  # second, of the bad clients
PAUSE = 0.02  # seconds between two requests of a well-behaved client
PATIENCE = 3  # seconds in which nine in ten of their requests are answered, on a machine that has other work too;
LONGEST = 15  # and any other
GROWTH = 20  # MB that a worker may gain by all bad requests, once it has seen some of each kind
LARGEST = 150  # MB that a worker may have at any time
OPEN_FILES = 1_024
FUZZERS = 8  # connections, each in a process of its own
WARM_UP = 160  # bad requests of each kind

GOOD = [f"good{number}" for number in range(4)]
FUZZING = ["fuzz0", "fuzz1"]
LARGE = "😀" * 10_000  # a hundred of these make a page of 4 MB
LIMITS = ("LIMIT_LOGIN", "LIMIT_LOGIN_ADDRESS", "LIMIT_LOGIN_NAME", "LIMIT_PASSWORD", "LIMIT_SIGNUP", "LIMIT_SEND")
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "ALLOWED_HOSTS": "127.0.0.1",
    "TRUSTED_PROXIES": "1",  # X-Forwarded-For is read,
    **dict.fromkeys(LIMITS, "1000000/60"),  # and addresses are stored
}


class WellBehaved(Client):
    """Sends a message, reads the list, pauses. Every other one makes a new connection for that."""

    def __init__(self, url: str, username: str, token: str, part: str) -> None:
        super().__init__(url, f"{username} {part}", token, GOOD, threading.Event())
        self.keeps_connection = GOOD.index(username) % 2 == 0
        self.waits: list[float] = []  # for each answer, in seconds

    def run(self) -> None:
        until, number = time.monotonic() + SECONDS - HEAD_START, 0
        while time.monotonic() < until:
            number += 1
            content = f"{self.name} {number}"
            self.ledger.unanswered.add(content)
            self.send(content, self.receivers[number % len(self.receivers)], content.replace(" ", "-"))
            self.list()
            if not self.keeps_connection:
                self.connection = None
            time.sleep(PAUSE)

    def post(self, body, key):
        with self.timed():
            return super().post(body, key)

    def list(self) -> None:
        try:
            with self.timed():
                if self.connection is None:
                    self.connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=30)
                self.connection.request("GET", "/api/message", headers={"Authorization": f"Token {self.token}"})
                response = self.connection.getresponse()
                page = json.load(response)
        except (OSError, http.client.HTTPException) as error:
            self.connection = None
            self.ledger.answers[type(error).__name__] += 1
        else:
            self.ledger.answers[response.status] += 1
            if "results" not in page:
                self.ledger.wrong.append(f"list: {response.status} {page}")

    @contextmanager
    def timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.waits.append(time.monotonic() - began)


@dataclass
class Witness:
    """What a well-behaved client saw."""

    ledger: Ledger
    waits: list[float]


def behave(url: str, tokens: dict[str, str], part: str) -> list[Witness]:
    clients = [WellBehaved(url, username, tokens[username], part) for username in GOOD]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return [Witness(client.ledger, client.waits) for client in clients]


def percentile(waits: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(waits)[int(share * (len(waits) - 1))] * 1000


@dataclass
class Proof:
    """A running service, what was seen there, and what is wrong with it."""

    node: Node
    tokens: dict[str, str]
    witnesses: list[Witness] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = (self.node.host, self.node.port)
        self.workers = {worker.pid for worker in self.node.workers()}
        self.usual = 0.0  # p99 of the well-behaved ones when alone
        self.memory: list[float] = []

    def part(self, name: str, crowd: Crowd | None = None) -> None:
        """Well-behaved clients, alone or with a crowd of bad ones."""
        with ProcessPoolExecutor(2) as pool:
            attack = pool.submit(unleash, crowd, self.address, SECONDS) if crowd else None
            time.sleep(HEAD_START)
            witnesses = pool.submit(behave, self.node.url, self.tokens, name).result()
            seen = attack.result() if attack else Counter()
        self.witnesses += witnesses
        waits = [wait for witness in witnesses for wait in witness.waits]
        median, late, longest = (percentile(waits, share) for share in (0.5, 0.99, 1))
        self.usual = self.usual or late
        slower = f" (x {late / self.usual:.1f})" if crowd else ""
        saw = "; they: " + ", ".join(f"{what} {count:,}" for what, count in seen.most_common()) if crowd else ""
        print(
            f"- {name}: others wait {median:.0f} ms, p99 {late:.0f} ms{slower}, at most {longest:.0f} ms"
            f" in {len(waits)} requests{saw}; {self.look_at_workers(name)}",
            flush=True,
        )
        refused = Counter(
            status for witness in witnesses for status in witness.ledger.answers.elements() if status not in (200, 201)
        )
        if refused:
            self.wrong.append(f"{name}: well-behaved clients got {dict(refused)}")
        if percentile(waits, 0.9) > PATIENCE * 1000 or longest > LONGEST * 1000:
            self.wrong.append(f"{name}: well-behaved clients waited, one in ten {percentile(waits, 0.9):.0f} ms or longer")

    def look_at_workers(self, when: str) -> str:
        """Their memory, in words."""
        workers = {worker.pid for worker in self.node.workers()}
        if workers != self.workers:
            self.wrong.append(f"{when}: of the workers {self.workers - workers} died")
            self.workers = workers
        self.memory = self.node.memory()
        if max(self.memory) > LARGEST:
            self.wrong.append(f"{when}: a worker has {max(self.memory):.0f} MB")
        return f"workers {' and '.join(f'{size:.0f}' for size in self.memory)} MB"

    def oddities(self) -> None:
        """What is no HTTP, or some that two servers may read in two ways."""
        with ThreadPoolExecutor(len(ODDITIES)) as pool:
            answers = list(pool.map(lambda oddity: ask(self.address, oddity[0], 3), ODDITIES.values()))
        for (name, (_, right)), answer in zip(ODDITIES.items(), answers, strict=True):
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else None
            print(f"  {name}: {status or 'no answer'} {body.decode(errors='replace')[:100]}")
            if status not in right:
                self.wrong.append(f"{name}: {status} in place of {right}")
            elif status and (b"\r\nx-request-id: " not in head.lower() or not is_one_json(body)):
                self.wrong.append(f"{name}: not one JSON with X-Request-ID: {answer[:600]!r}")
        if "/api/smuggled" in {line["path"] for line in self.node.log_lines("requests")}:
            self.wrong.append("a request that was smuggled in another was answered")

    def bad_requests(self, number: int) -> None:
        """So many bad requests of each kind."""
        known = fuzz.routes(self.node.answer("GET", "/api/schema"))
        for kind in fuzz.KINDS:
            self.bad_requests_of(kind, WARM_UP, known, "warm-up")
        before = self.node.memory()
        answered: dict[str, int] = {}
        for kind in fuzz.KINDS:
            began = time.monotonic()
            outcome = self.bad_requests_of(kind, number, known, "fuzz")
            answered |= outcome.answered
            saw = ", ".join(f"{status} {count:,}" for status, count in outcome.statuses.most_common())
            print(f"- {kind}: {saw}; {time.monotonic() - began:.0f} s, {self.look_at_workers(kind)}", flush=True)
        growth = max(after - size for size, after in zip(before, self.memory, strict=True))
        if growth > GROWTH:
            self.wrong.append(f"a worker grew by {growth:.0f} MB")
        logged = Counter((line["request_id"], line["status"]) for line in self.node.log_lines("requests"))
        unlogged = [answer for answer in answered.items() if logged[answer] != 1]
        if unlogged:
            self.wrong.append(f"not once in requests.log: {unlogged[:5]}")
        print(f"- {len(answered):,} bad requests, each with a line in requests.log; workers grew by {growth:.0f} MB at most")

    def bad_requests_of(self, kind: str, number: int, known: list[fuzz.Route], seed: str) -> fuzz.Outcome:
        tokens = [self.tokens[name] for name in FUZZING]
        with ProcessPoolExecutor(FUZZERS) as pool:
            fuzzers = [
                pool.submit(
                    fuzz.attack,
                    self.address,
                    kind,
                    f"{seed}-{fuzzer}",
                    number // FUZZERS,
                    known,
                    tokens,
                    self.tokens["doomed"],
                )
                for fuzzer in range(FUZZERS)
            ]
            outcomes = [fuzzer.result() for fuzzer in fuzzers]
        whole = fuzz.Outcome()
        for outcome in outcomes:
            whole.statuses += outcome.statuses
            whole.answered |= outcome.answered
            self.wrong += [f"{kind}: {fault}" for fault in outcome.faults]
        return whole

    def finish(self) -> None:
        """Whether all that was promised holds."""
        at_work = Load(self.witnesses, {name: self.tokens[name] for name in GOOD}, threading.Event())
        self.wrong += discrepancies(self.node, at_work)
        sent = self.node.answer("GET", "/api/message/sent?page_size=100", token=self.tokens["mallory"])["results"]
        self.wrong += [f"half a body was stored: {message}" for message in sent if HALF in message["content"]]
        self.wrong += [f"debug.log: {line}" for line in self.node.log_lines("debug")[:5]]
        errors = self.node.errors.read_text()
        if errors:
            self.wrong.append(f"on stderr: {errors[:2000]}")
        print(f"- {at_work.acknowledged():,} messages of well-behaved clients were acknowledged, and are stored once")


def is_one_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


@contextmanager
def proof(folder: Path, database_url: str) -> Iterator[Proof]:
    """A running service with its users; what is wrong with it is found at the end of the block."""
    with running_node(folder, database_url, port=free_port(), **SETTINGS) as node:
        at_work = Proof(node, register(node, [*GOOD, *FUZZING, "mallory", "hoarder", "doomed"]))
        yield at_work
        at_work.finish()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--requests", type=int, default=10_000, help="bad requests of each kind")
    number = arguments.parse_args().requests
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, limit))  # for the service; bad clients raise it for themselves

    wrong = []
    with cluster_folder() as folder:
        print("On PostgreSQL")
        with running_cluster(folder, free_port()) as cluster, proof(folder, cluster.url) as on_postgresql:
            for _ in range(100):
                message = {"receiver": "hoarder", "content": LARGE}
                on_postgresql.node.answer("POST", "/api/message", message, on_postgresql.tokens["hoarder"])
            on_postgresql.part("alone")
            for name, crowd in crowds(on_postgresql.tokens["mallory"], on_postgresql.tokens["hoarder"]).items():
                on_postgresql.part(name, crowd)
            on_postgresql.part("alone again")
            on_postgresql.oddities()
            on_postgresql.bad_requests(number)
        wrong += on_postgresql.wrong
        print("On SQLite")
        with proof(folder, f"sqlite:///{folder}/db.sqlite3") as on_sqlite:
            on_sqlite.part("alone")
            on_sqlite.bad_requests(number // 10)
        wrong += on_sqlite.wrong
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
