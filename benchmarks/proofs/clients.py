"""Clients that write to each other without end, remember what was acknowledged, and compare it with what is stored."""

import http.client
import json
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.proofs.cluster import wait_until
from benchmarks.proofs.node import Node

PASSWORD = "a long secret"  # noqa: S105
RETRY_AFTER = 0.1  # seconds; the service asks for five, an impatient client finds more


@dataclass
class Ledger:
    """What a client saw."""

    acknowledged: dict[str, int] = field(default_factory=dict)  # id of the message by content
    unanswered: set[str] = field(default_factory=set)  # contents of which nobody knows whether they are stored
    answers: Counter = field(default_factory=Counter)  # by status, or by kind of failure
    wrong: list[str] = field(default_factory=list)  # answers that a retry does not cure, or that are not JSON
    slowest: float = 0.0  # seconds that an answer, or the failure to get one, took
    pause: float = 0.0  # the longest time between two 201, in seconds


class Client(threading.Thread):
    """Sends messages one after another, each until it is acknowledged, with an Idempotency-Key, over one kept connection."""

    def __init__(self, url: str, username: str, token: str, receivers: list[str], stopping: threading.Event) -> None:
        super().__init__(name=username, daemon=True)
        self.address = urlsplit(url)
        self.token, self.receivers, self.stopping = token, receivers, stopping
        self.ledger = Ledger()
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        number, last = 0, time.monotonic()
        while not self.stopping.is_set():
            number += 1
            content = f"{self.name} {number}"
            receiver = self.receivers[number % len(self.receivers)]
            key = uuid.uuid4().hex
            self.ledger.unanswered.add(content)
            while content in self.ledger.unanswered and not self.stopping.is_set():
                if not self.send(content, receiver, key):
                    time.sleep(RETRY_AFTER)
            self.ledger.pause = max(self.ledger.pause, time.monotonic() - last)
            last = time.monotonic()

    def send(self, content: str, receiver: str, key: str) -> bool:
        """Whether it was acknowledged."""
        began = time.monotonic()
        try:
            status, answer = self.post({"receiver": receiver, "content": content}, key)
        except (OSError, http.client.HTTPException) as error:
            self.connection = None
            status, answer = type(error).__name__, None
        self.ledger.slowest = max(self.ledger.slowest, time.monotonic() - began)
        self.ledger.answers[status] += 1
        if status == 201:
            self.ledger.acknowledged[content] = answer["id"]
            self.ledger.unanswered.discard(content)
            return True
        if isinstance(status, int) and status not in (429, 502, 503, 504):
            self.ledger.wrong.append(f"{status} {answer}")
        return False

    def post(self, body: dict[str, str], key: str) -> tuple[int, Any]:
        if self.connection is None:
            connect = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
            self.connection = connect(self.address.hostname, self.address.port, timeout=30)
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json", "Idempotency-Key": key}
        self.connection.request("POST", "/api/message", json.dumps(body), headers)
        response = self.connection.getresponse()
        content = response.read()
        try:
            return response.status, json.loads(content)
        except ValueError:
            self.ledger.wrong.append(f"{response.status} without JSON: {content[:100]!r}")
            return response.status, None


@dataclass
class Load:
    """Clients at work."""

    clients: list[Client]
    tokens: dict[str, str]
    stopping: threading.Event

    def stop(self) -> None:
        self.stopping.set()
        for client in self.clients:
            client.join(timeout=40)

    def acknowledged(self) -> int:
        return sum(len(client.ledger.acknowledged) for client in self.clients)

    def answers(self) -> Counter:
        return sum((client.ledger.answers.copy() for client in self.clients), Counter())  # clients go on counting meanwhile

    def slowest(self) -> float:
        return max(client.ledger.slowest for client in self.clients)

    def pause(self) -> float:
        return max(client.ledger.pause for client in self.clients)

    def wrong(self) -> list[str]:
        return [answer for client in self.clients for answer in client.ledger.wrong]

    def until_all_go_on(self, times: int = 1) -> float:
        """Seconds until each client was acknowledged so many times more; ends the proof where one had a wrong answer."""
        goals = {client: len(client.ledger.acknowledged) + times for client in self.clients}

        def all_went_on() -> bool:
            if self.wrong():
                sys.exit("\n".join(self.wrong()[:20]))
            return all(len(client.ledger.acknowledged) >= goal for client, goal in goals.items())

        return wait_until(all_went_on, 60, "all clients go on")


def as_text(answers: Counter) -> str:
    """How many there were of each status or kind of failure."""
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(answers.items(), key=str)) or "none"


def register(node: Node, usernames: list[str]) -> dict[str, str]:
    """Their tokens."""
    tokens = {}
    for username in usernames:
        body = {"username": username, "password": PASSWORD}
        tokens[username] = node.answer("POST", "/api/auth/register", body)["token"]
    return tokens


@contextmanager
def load(url: str, tokens: dict[str, str], client: type[Client] = Client) -> Iterator[Load]:
    """A client for each user, who writes to all of them, themselves too, through the URL until the end of the block."""
    stopping = threading.Event()
    clients = [client(url, username, token, sorted(tokens), stopping) for username, token in tokens.items()]
    at_work = Load(clients, tokens, stopping)
    for one in clients:
        one.start()
    try:
        yield at_work
    finally:
        at_work.stop()


def discrepancies(node: Node, at_work: Load) -> list[str]:
    """What differs between what was acknowledged and what is stored, and within what is stored; empty where nothing does."""
    found = list(at_work.wrong())
    stored: Counter = Counter()
    identifiers: dict[str, int] = {}
    for token in at_work.tokens.values():
        for message in received(node, token):
            stored[message["content"]] += 1
            identifiers[message["content"]] = message["id"]
    for client in at_work.clients:
        for content, identifier in client.ledger.acknowledged.items():
            if stored[content] != 1 or identifiers[content] != identifier:
                found.append(f"acknowledged {content!r} as {identifier}: stored {stored[content]} times")
        found += [f"{content!r} is stored twice" for content in client.ledger.unanswered if stored[content] > 1]
    check = node.manage("check_mailboxes")
    if check.returncode:
        found.append(f"check_mailboxes: {check.stdout[-2000:]} {check.stderr[-2000:]}")
    return found


def received(node: Node, token: str) -> Iterator[dict[str, Any]]:
    """All that the user received, by catching up from the first message on."""
    path = "/api/message/received?after=0&page_size=100"
    while path:
        page = node.answer("GET", path, token=token)
        yield from page["results"]
        path = page["next"] and page["next"].removeprefix(node.url)
