"""Clients that write to each other and compare what was acknowledged with what is stored, pollers, and slow clients."""

import asyncio
import http.client
import itertools
import json
import multiprocessing
import resource
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.proofs.checks import check, expect, wait_until
from benchmarks.proofs.processes import Node

PASSWORD = "a long secret"  # noqa: S105
RETRY_AFTER = 0.1  # seconds; the service asks for five, but a client that retries sooner finds more mistakes
POLL_EVERY = 0.1  # seconds
LONGEST_REQUEST = 10  # seconds that a client waits for a response at most


class Request(NamedTuple):
    began: float
    ended: float
    outcome: int | str  # the status of the response, or the kind of failure if there was none


class Client(threading.Thread):
    """Sends messages, each until it is acknowledged, with an Idempotency-Key."""

    def __init__(self, load: "Load", url: str, username: str) -> None:
        super().__init__(name=username, daemon=True)
        self.load, self.connection = load, connect(url)
        self.content = ""  # of the message that it sends now
        self.acknowledged = 0  # messages

    def run(self) -> None:
        receivers = itertools.cycle(self.load.tokens)
        for number in itertools.count():
            self.content, receiver, key = f"{self.name} {number}", next(receivers), uuid.uuid4().hex
            while self.acknowledged <= number:
                if self.load.stopping.wait(self.load.pause):
                    return
                self.send({"receiver": receiver, "content": self.content}, key)

    def send(self, message: dict[str, str], key: str) -> None:
        headers = {"Authorization": f"Token {self.load.tokens[self.name]}", "Content-Type": "application/json"}
        began = time.monotonic()
        try:
            self.connection.request("POST", "/api/message", json.dumps(message), {**headers, "Idempotency-Key": key})
            response = self.connection.getresponse()
            outcome, content = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            outcome = type(error).__name__
        if not self.load.keep or isinstance(outcome, str):
            self.connection.close()  # the next request opens it again
        self.load.requests.append(Request(began, time.monotonic(), outcome))
        if outcome == 201:
            self.load.acknowledged[self.content] = json.loads(content)["id"]
            self.acknowledged += 1
        elif isinstance(outcome, int) and (outcome != 503 or b'{"detail"' not in content):
            self.load.wrong.append(f"{outcome} {content}")
        else:
            time.sleep(RETRY_AFTER)


class Load:
    """A client for each user that sends messages during a `with` block, to all users in turn, its own user included.

    The clients use the URLs in turn, by default the node's. Without `keep`, each request has a connection of its own.
    """

    def __init__(
        self, node: Node, names: str, clients: int, urls: Sequence[str] = (), pause: float = 0.0, keep: bool = True
    ) -> None:
        self.tokens = register(node, [f"{names}-{number}" for number in range(clients)])
        self.stopping, self.pause, self.keep = threading.Event(), pause, keep
        self.acknowledged: dict[str, int] = {}  # id of each message by content
        self.requests: list[Request] = []
        self.wrong: list[str] = []  # responses that a retry does not fix, or that are not JSON
        urls_and_names = zip(itertools.cycle(urls or [node.url]), self.tokens, strict=False)
        self.clients = [Client(self, url, username) for url, username in urls_and_names]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        for client in self.clients:
            client.join(timeout=40)

    def outcomes(self, since: float) -> Counter:
        return Counter(request.outcome for request in self.requests if request.ended > since)

    def slowest(self, since: float) -> float:
        """Return the seconds that the slowest request took, of those that ended after that moment."""
        return max(request.ended - request.began for request in self.requests if request.ended > since)

    def acknowledged_at(self, since: float = 0) -> list[float]:
        """Return the moments at which a message was acknowledged."""
        return sorted(request.ended for request in self.requests if request.ended > since and request.outcome == 201)

    def wait_until_all_go_on(self, times: int = 1) -> float:
        """Wait until each client has got `times` more messages acknowledged. Returns the seconds that it took."""
        goals = {client: client.acknowledged + times for client in self.clients}
        return wait_until(
            lambda: bool(self.wrong) or all(client.acknowledged >= goal for client, goal in goals.items()),
            60,
            "all clients go on",
        )

    @contextmanager
    def event(self, name: str, times: int, retries: float) -> Iterator[None]:
        """Run the block, and check what the clients notice: on average, each may get a 503 `retries` times.

        Before and after the block, each client has to get `times` messages acknowledged.
        """
        self.wait_until_all_go_on(times)
        began = time.monotonic()
        yield
        self.wait_until_all_go_on(times)
        outcomes, slowest = self.outcomes(began), self.slowest(began)
        check(
            f"{name}: responses {as_text(outcomes)}; the slowest took {slowest:.1f} s",
            outcomes.keys() <= {201, 503},
            outcomes[503] <= retries * len(self.clients),
            slowest <= LONGEST_REQUEST,
        )

    def stored(self, node: Node, after: int = 0) -> list[tuple[str, int]]:
        """Return content and id of all messages that the users have received after the message with that id."""
        return [
            (message["content"], message["id"])
            for token in self.tokens.values()
            for message in received_messages(node, token, after)
        ]

    def expect_nothing_lost(self, node: Node) -> int:
        """Compare what was acknowledged with what is stored. Returns the number of acknowledged messages."""
        expect(not self.wrong, f"Responses that a retry does not fix: {self.wrong[:5]}")
        stored = self.stored(node)
        contents = Counter(content for content, _ in stored)
        lost = self.acknowledged.items() - {*stored}
        expect(not lost, f"Acknowledged, and not stored: {sorted(lost)[:5]}")
        expect({*contents.values()} == {1}, f"Stored more than once: {contents.most_common(5)}")
        unknown = contents.keys() - self.acknowledged.keys() - {client.content for client in self.clients}
        expect(not unknown, f"Stored, and never sent: {unknown}")
        node.manage("check_mailboxes")
        return len(self.acknowledged)


class Poller(threading.Thread):
    """Polls the nodes in turn, with `after=`, for what a user receives. Ends when `ending` is set and nothing new comes."""

    def __init__(self, nodes: Sequence[Node], token: str) -> None:
        super().__init__(daemon=True)
        self.nodes, self.token, self.ending = itertools.cycle(nodes), token, threading.Event()
        self.seen: list[tuple[int, str]] = []  # ids and contents of messages, as they came
        self.wrong: list[str] = []  # responses other than 200 and 503

    def run(self) -> None:
        has_more = True
        while has_more:
            ending = self.ending.wait(POLL_EVERY)
            with suppress(OSError):
                has_more = self.poll() or not ending

    def poll(self) -> bool:
        """Return whether there may be more messages."""
        last = self.seen[-1][0] if self.seen else 0
        path = f"/api/message/received?after={last}&page_size=100"
        status, page = next(self.nodes).request("GET", path, token=self.token)
        if status == 200:
            self.seen += [(message["id"], message["content"]) for message in reversed(page["results"])]
            return bool(page["results"])
        if status != 503:
            self.wrong.append(f"{status} {page}")
        return True

    def expect_all_seen(self, node: Node) -> list[tuple[int, str]]:
        """Compare the messages that the poller saw with those stored. Returns their ids and contents."""
        self.join(timeout=60)
        expect(not self.wrong, f"Responses that a client that polls must not get: {self.wrong[:5]}")
        stored = sorted((message["id"], message["content"]) for message in received_messages(node, self.token))
        differ = sorted({*self.seen} ^ {*stored})
        expect(self.seen == stored, f"Not seen exactly once and in order, of {len(stored)} messages: {differ[:5]}")
        return self.seen


def register(node: Node, usernames: list[str]) -> dict[str, str]:
    """Create the users and return the token of each."""
    return {
        username: node.post("/api/auth/register", {"username": username, "password": PASSWORD})["token"]
        for username in usernames
    }


def received_messages(node: Node, token: str, after: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the messages that the user received after the message with that id, oldest page first."""
    path = f"/api/message/received?after={after}&page_size=100"
    while path:
        page = node.get(path, token)
        yield from page["results"]
        path = page["next"] and page["next"].removeprefix(node.url)


def connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    return kind(address.hostname, address.port, timeout=30)


def as_text(outcomes: Counter) -> str:
    """Return a text with the number of each status or kind of failure."""
    return ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items(), key=str)) or "none"


def request_bytes(method: str, path: str, token: str, *headers: str) -> bytes:
    """Return the request without its body."""
    common = ("Host: 127.0.0.1", f"Authorization: Token {token}", "Content-Type: application/json")
    return "\r\n".join((f"{method} {path} HTTP/1.1", *common, *headers, "", "")).encode()


@contextmanager
def slow_clients(node: Node, number: int, first: bytes, piece: bytes = b"") -> Iterator[None]:
    """Connect this number of clients during the block. They send `first`, then `piece` once a second, and never read."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_run_slow_clients, args=(node, number, first, piece, ready), daemon=True)
    process.start()
    try:
        expect(ready.wait(60), f"Not all of {number} slow clients could connect within 60 s")
        yield
    finally:
        process.kill()
        process.join()


def _run_slow_clients(node: Node, number: int, first: bytes, piece: bytes, ready: Any) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connections = [socket.socket() for _ in range(number)]
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.connect((node.host, node.port))
        connection.setblocking(False)
        time.sleep(0.001)  # the service accepts connections one after another, and only so many can wait for that
    ready.set()

    async def send(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # the service closed the connection
            await loop.sock_sendall(connection, first)
            while piece:
                await asyncio.sleep(1)
                await loop.sock_sendall(connection, piece)

    async def send_all() -> None:
        await asyncio.gather(*map(send, connections))
        await asyncio.Event().wait()  # keeps the connections open

    asyncio.run(send_all())
