"""Clients: some write to each other, remember what was acknowledged and compare it with what is stored; some are slow."""

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
RETRY_AFTER = 0.1  # seconds; the service asks for five, but an impatient client finds more
POLL_EVERY = 0.1  # seconds
CONNECTING = 100  # slow clients that connect at the same moment: fewer than a server lets wait


class Request(NamedTuple):
    began: float
    ended: float
    outcome: int | str  # the status of the response, or the kind of failure where there was none


class Client(threading.Thread):
    """Sends messages, each until it is acknowledged, with an Idempotency-Key."""

    def __init__(self, load: "Load", url: str, username: str) -> None:
        super().__init__(name=username, daemon=True)
        self.load, self.url, self.token = load, url, load.tokens[username]
        self.connection: http.client.HTTPConnection | None = None
        self.acknowledged: dict[str, int] = {}  # id of the message by content
        self.content = ""  # of the message that it sends now
        self.requests: list[Request] = []
        self.wrong: list[str] = []  # responses that a retry does not cure, or that are not JSON

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
    """A client for each user, at work during a `with` block: each writes to all of them, itself too.

    The clients use the URLs in turn, by default the node's. Without `keep`, each request has a connection of its own.
    """

    def __init__(
        self, node: Node, names: str, clients: int, urls: Sequence[str] = (), pause: float = 0.0, keep: bool = True
    ) -> None:
        self.tokens = register(node, [f"{names}-{number}" for number in range(clients)])
        self.stopping, self.pause, self.keep = threading.Event(), pause, keep
        self.clients = [Client(self, *one) for one in zip(itertools.cycle(urls or [node.url]), self.tokens, strict=False)]

    def __enter__(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        for client in self.clients:
            client.join(timeout=40)

    def acknowledged(self) -> dict[str, int]:
        """The id of each message that was acknowledged, by content."""
        return {content: number for client in self.clients for content, number in [*client.acknowledged.items()]}

    def requests(self, since: float) -> list[Request]:
        """The requests that ended after that moment."""
        return [request for client in self.clients for request in [*client.requests] if request.ended > since]

    def outcomes(self, since: float) -> Counter:
        return Counter(request.outcome for request in self.requests(since))

    def slowest(self, since: float) -> float:
        """The seconds that the slowest request took."""
        return max(request.ended - request.began for request in self.requests(since))

    def until_all_go_on(self, times: int = 1) -> float:
        """Return the seconds until each client was acknowledged so many times more."""
        goals = {client: len(client.acknowledged) + times for client in self.clients}
        return wait_until(
            lambda: all(client.wrong or len(client.acknowledged) >= goal for client, goal in goals.items()),
            60,
            "all clients go on",
        )

    def expect_nothing_lost(self, node: Node) -> int:
        """Compare what was acknowledged with what is stored; return how many messages were."""
        wrong = [response for client in self.clients for response in client.wrong]
        expect(not wrong, f"Responses that a retry does not cure: {wrong[:5]}")
        stored = [(m["content"], m["id"]) for token in self.tokens.values() for m in received(node, token)]
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
    """Polls by `after=` alone for what a user receives, from the nodes in turn; once `ending` is set, until it has all."""

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
        """Return whether there may be more."""
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
        """Compare what it saw with what is stored; return it."""
        self.join(timeout=60)
        expect(not self.wrong, f"Responses that a client that polls must not get: {self.wrong[:5]}")
        stored = sorted((message["id"], message["content"]) for message in received(node, self.token))
        differ = sorted({*self.seen} ^ {*stored})
        expect(self.seen == stored, f"Not seen exactly once and in order, of {len(stored)} messages: {differ[:5]}")
        return self.seen


def register(node: Node, usernames: list[str]) -> dict[str, str]:
    """Return the token of each."""
    return {
        username: node.post("/api/auth/register", {"username": username, "password": PASSWORD})["token"]
        for username in usernames
    }


def received(node: Node, token: str, after: int = 0) -> Iterator[dict[str, Any]]:
    """All that the user received since the message with that id, by catching up."""
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
    """How many there were of each status or kind of failure."""
    return ", ".join(f"{outcome}: {count:,}" for outcome, count in sorted(outcomes.items(), key=str)) or "none"


def request_bytes(method: str, path: str, token: str, *headers: str) -> bytes:
    """The request without its body."""
    common = ("Host: 127.0.0.1", f"Authorization: Token {token}", "Content-Type: application/json")
    return "\r\n".join((f"{method} {path} HTTP/1.1", *common, *headers, "", "")).encode()


@contextmanager
def slow_clients(node: Node, number: int, first: bytes, piece: bytes = b"") -> Iterator[None]:
    """So many clients that send `first` and then `piece` once a second, and never read; all connected during the block."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=lambda: asyncio.run(_crowd(node, number, first, piece, ready)), daemon=True)
    process.start()
    try:
        expect(ready.wait(60), f"Not all of {number} slow clients could connect within 60 s")
        yield
    finally:
        process.kill()
        process.join()


async def _crowd(node: Node, number: int, first: bytes, piece: bytes, ready: Any) -> None:
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
                pass  # the service gave it up
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(client()) for _ in range(number)]
    await connected.wait()
    ready.set()
    await asyncio.gather(*tasks)
