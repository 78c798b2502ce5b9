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

from benchmarks.proofs.processes import Node, expect, wait_until

PASSWORD = "a long secret"  # noqa: S105
RETRY_AFTER = 0.1  # seconds; the service asks for five, but a client that retries sooner finds more mistakes
POLL_EVERY = 0.1  # seconds
CONNECTING = 100  # slow clients that connect at the same moment: fewer than the backlog of a server


class Request(NamedTuple):
    began: float
    ended: float
    outcome: int | str  # the status of the response, or the kind of failure if there was none


class Client(threading.Thread):
    """Sends messages, each until it is acknowledged, with an Idempotency-Key."""

    def __init__(self, load: "Load", url: str, username: str) -> None:
        super().__init__(name=username, daemon=True)
        self.load, self.url, self.token = load, url, load.tokens[username]
        self.connection: http.client.HTTPConnection | None = None
        self.acknowledged: dict[str, int] = {}  # id of the message by content
        self.content = ""  # of the message that it sends now
        self.requests: list[Request] = []
        self.wrong: list[str] = []  # responses that a retry does not fix, or that are not JSON

    def run(self) -> None:
        receivers = itertools.cycle(self.load.tokens)
        for number in itertools.count():
            self.content, receiver, key = f"{self.name} {number}", next(receivers), uuid.uuid4().hex
            while self.content not in self.acknowledged:
                if self.load.stopping.wait(self.load.pause):
                    return
                self.send({"receiver": receiver, "content": self.content}, key)

    def send(self, message: dict[str, str], key: str) -> None:
        began = time.monotonic()
        try:
            outcome, content = self.post(message, key)
        except (OSError, http.client.HTTPException) as error:
            self.connection, outcome = None, type(error).__name__
        self.requests.append(Request(began, time.monotonic(), outcome))
        if outcome == 201:
            self.acknowledged[self.content] = json.loads(content)["id"]
        elif isinstance(outcome, int) and (outcome != 503 or b'{"detail"' not in content):
            self.wrong.append(f"{outcome} {content}")
        else:
            time.sleep(RETRY_AFTER)

    def post(self, message: dict[str, str], key: str) -> tuple[int, bytes]:
        self.connection = self.connection or connect(self.url)
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json", "Idempotency-Key": key}
        self.connection.request("POST", "/api/message", json.dumps(message), headers)
        response = self.connection.getresponse()
        content = response.read()
        if not self.load.keep:
            self.connection.close()
        return response.status, content


class Load:
    """A client for each user that sends messages during a `with` block, to all users in turn, its own user included.

    The clients use the URLs in turn, by default the node's. Without `keep`, each request has a connection of its own.
    """

    def __init__(
        self, node: Node, names: str, clients: int, urls: Sequence[str] = (), pause: float = 0.0, keep: bool = True
    ) -> None:
        self.tokens = register(node, [f"{names}-{number}" for number in range(clients)])
        self.stopping, self.pause, self.keep = threading.Event(), pause, keep
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

    def acknowledged(self) -> dict[str, int]:
        """Return the id of each message that was acknowledged, by content."""
        return {content: number for client in self.clients for content, number in [*client.acknowledged.items()]}

    def requests(self, since: float) -> list[Request]:
        """Return the requests that ended after that moment."""
        return [request for client in self.clients for request in [*client.requests] if request.ended > since]

    def outcomes(self, since: float) -> Counter:
        return Counter(request.outcome for request in self.requests(since))

    def slowest(self, since: float) -> float:
        """Return the seconds that the slowest request took."""
        return max(request.ended - request.began for request in self.requests(since))

    def wait_until_all_go_on(self, times: int = 1) -> float:
        """Wait until each client has got `times` more messages acknowledged. Returns the seconds that it took."""
        goals = {client: len(client.acknowledged) + times for client in self.clients}
        return wait_until(
            lambda: all(client.wrong or len(client.acknowledged) >= goal for client, goal in goals.items()),
            60,
            "all clients go on",
        )

    def expect_nothing_lost(self, node: Node) -> int:
        """Compare what was acknowledged with what is stored. Returns the number of acknowledged messages."""
        wrong = [response for client in self.clients for response in client.wrong]
        expect(not wrong, f"Responses that a retry does not fix: {wrong[:5]}")
        stored = [(m["content"], m["id"]) for token in self.tokens.values() for m in received_messages(node, token)]
        acknowledged, contents = self.acknowledged(), Counter(content for content, _ in stored)
        lost = acknowledged.items() - {*stored}
        expect(not lost, f"Acknowledged, and not stored: {sorted(lost)[:5]}")
        expect({*contents.values()} == {1}, f"Stored more than once: {contents.most_common(5)}")
        unknown = contents.keys() - acknowledged.keys() - {client.content for client in self.clients}
        expect(not unknown, f"Stored, and never sent: {unknown}")
        found = node.manage("check_mailboxes")
        expect(found.returncode == 0, f"check_mailboxes: {found.stdout[-2000:]} {found.stderr[-2000:]}")
        return len(acknowledged)


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
    process = context.Process(target=lambda: asyncio.run(_run_slow_clients(node, number, first, piece, ready)), daemon=True)
    process.start()
    try:
        expect(ready.wait(60), f"Not all of {number} slow clients could connect within 60 s")
        yield
    finally:
        process.kill()
        process.join()


async def _run_slow_clients(node: Node, number: int, first: bytes, piece: bytes, ready: Any) -> None:
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    connecting, connected = asyncio.Semaphore(CONNECTING), asyncio.Barrier(number + 1)

    async def client() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.setblocking(False)
            async with connecting:
                await loop.sock_connect(connection, (node.host, node.port))
            await connected.wait()
            try:
                await loop.sock_sendall(connection, first)
                while piece:
                    await asyncio.sleep(1)
                    await loop.sock_sendall(connection, piece)
            except OSError:
                pass  # the service closed the connection
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(client()) for _ in range(number)]
    await connected.wait()
    ready.set()
    await asyncio.gather(*tasks)
