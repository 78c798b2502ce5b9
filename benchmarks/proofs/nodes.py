"""Shows that several nodes behind nginx are one service: any of them may go or come, and what one did holds on all.

Three nodes on addresses of their own share a PostgreSQL server; nginx, which knows of a fourth as well, hands them requests
in turn. Clients send through it, each message until it is acknowledged, while a node is killed, the fourth comes, another is
stopped, and the killed one comes back. Then, with low limits: limits, blocks, tokens and Idempotency-Keys across nodes.
"""

import http.client
import itertools
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.proofs.clients import PASSWORD, Load, as_text, discrepancies, load, register
from benchmarks.proofs.cluster import cluster_folder, running_cluster, wait_until
from benchmarks.proofs.node import Node, need
from config.testing.http_client import free_port

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
ELSEWHERE = "127.0.0.9"  # the address of a client that does not share one with all the others
CLIENTS = 12
TIMES = 20  # that each client has to be acknowledged between two deeds
WORKERS = "2"
TRIES = 10  # for each of the low limits
LOW_LIMITS = {"LIMIT_SEND": f"{TRIES}/300", "LIMIT_LOGIN": f"{TRIES}/300", "LIMIT_LOGIN_ADDRESS": f"{2 * TRIES}/300"}
THROUGH_NGINX = "through-nginx"  # the id of requests that nginx should tell the client's address of
ROUNDS = 30  # of what must hold at once
ANSWERED_WITHIN = 20  # seconds; generous, as only a busy machine delays these answers


class Proxy:
    """nginx with the site of nginx.conf, as a user without privileges."""

    def __init__(self, program: str, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        shutil.copy(Path(__file__).with_name("nginx.conf"), folder)
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{self.port};\n")
        (folder / "nodes.conf").write_text("".join(f"server {node.host}:{node.port} fail_timeout=3s;\n" for node in nodes))
        identity = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        self.process = subprocess.Popen([program, "-p", folder, "-c", "nginx.conf", "-e", "error.log"], **identity)

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            sys.exit(f"nginx has ended: {(self.folder / 'error.log').read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)

    def log_in(self, username: str, password: str, *, source: str = "127.0.0.1", forwarded_for: str = "") -> int:
        """The status of the answer to a client of that address."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(source, 0))
        headers = {"Content-Type": "application/json", "X-Forwarded-For": forwarded_for, "X-Request-ID": THROUGH_NGINX}
        with closing(connection):
            connection.request("POST", "/api/auth/login", json.dumps({"username": username, "password": password}), headers)
            return connection.getresponse().status

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "access.log").read_text().splitlines()]


class Trial:
    """The nodes, and nginx in front of them."""

    def __init__(self, nodes: list[Node], proxy: Proxy) -> None:
        self.nodes, self.proxy = nodes, proxy

    def under_load(self) -> None:
        first, second, third, newcomer = self.nodes
        tokens = register(first, [f"user-{number}" for number in range(CLIENTS)])
        with load(self.proxy.url, tokens) as at_work:
            at_work.until_all_go_on(TIMES)
            with self.telling(at_work, "killed a node"):
                second.kill()
                at_work.until_all_go_on(TIMES)
            with self.telling(at_work, "started one that was never there"):
                until_it_takes_messages(newcomer, at_work)
            with self.telling(at_work, "stopped one by SIGTERM", expected={201}):
                third.stop()
                at_work.until_all_go_on(TIMES)
            with self.telling(at_work, "started the killed one"):
                until_it_takes_messages(second, at_work)
        found = discrepancies(first, at_work)
        if found:
            sys.exit("\n".join(found[:20]))
        print(
            f"- {at_work.acknowledged():,} messages acknowledged, none lost, none doubled; the nodes took "
            f"{', '.join(f'{messages_taken(node):,}' for node in self.nodes)}; slowest answer {at_work.slowest():.2f} s, "
            f"longest pause of a client {at_work.pause():.2f} s",
            flush=True,
        )
        if at_work.pause() > ANSWERED_WITHIN:
            sys.exit(f"A client waited for {at_work.pause():.1f} s, more than {ANSWERED_WITHIN} s")

    @contextmanager
    def telling(self, at_work: Load, deed: str, expected: Collection[int] = (201, 503)) -> Iterator[None]:
        """Say what clients had for answers during the block, and which of nginx's tries at a node failed."""
        before, lines = at_work.answers(), len(self.proxy.log_lines())
        yield
        answers = at_work.answers() - before
        tries = Counter(line["answers"] for line in self.proxy.log_lines()[lines:])
        passed_on = sum(count for answers, count in tries.items() if "," in answers)
        unanswered = sum(count for answers, count in tries.items() if answers.endswith(("502", "504")))
        print(
            f"- {deed}: answers {as_text(answers)}; {unanswered} requests were with a node that did not answer, {passed_on} "
            "were handed on to another one",
            flush=True,
        )
        if not set(answers) <= set(expected):
            sys.exit(f"Clients had answers other than {' and '.join(map(str, expected))}")

    def as_one(self) -> None:
        """What one node did holds on the others at once."""
        for node in self.nodes:
            node.kill()
            node.environment |= LOW_LIMITS
        start_all(self.nodes)
        self.check_sends()
        self.check_keys()
        self.check_blocks()
        self.check_tokens()
        self.check_log_ins()

    def check_sends(self) -> None:
        tokens = register(self.nodes[0], ["in-turn", "at-once"])
        turns = itertools.islice(itertools.cycle(self.nodes), TRIES)
        in_turn = [send(node, tokens["in-turn"], "in-turn")[0] for node in [*turns, *self.nodes]]
        expect(in_turn, [201] * TRIES + [429] * len(self.nodes), "messages of one sender, to the nodes in turn")
        answers = at_once(self.nodes * TRIES, lambda node: send(node, tokens["at-once"], "in-turn"))
        statuses = Counter(status for status, _ in answers)
        expect(statuses, {201: TRIES, 429: len(answers) - TRIES}, "messages of one sender at once")
        print(
            f"- with a LIMIT_SEND of {TRIES}, a sender could send {TRIES} messages to the nodes in turn, no more to any; "
            f"of {len(answers)} at once {statuses[201]} were stored",
            flush=True,
        )

    def check_keys(self) -> None:
        tokens = register(self.nodes[0], ["repeating", "hearing"])
        for number in range(TRIES):
            repeat = partial(send, token=tokens["repeating"], receiver="hearing", key=f"key-{number}")
            answers = at_once(self.nodes * 2, repeat)
            expect({status for status, _ in answers}, {201}, "sends under one key at once")
            expect(len({message["id"] for _, message in answers}), 1, "messages under one key")
        expect(self.nodes[0].answer("GET", "/api/message", token=tokens["hearing"])["count"], TRIES, "messages stored")
        print(
            f"- {TRIES} keys, each sent twice to all nodes at once: one message each, which was in all answers", flush=True
        )

    def check_blocks(self) -> None:
        tokens = register(self.nodes[0], ["blocking", "blocked"])
        for one, other, third in self.rounds():
            one.answer("POST", "/api/block", {"blocked": "blocked"}, tokens["blocking"])
            expect(send(other, tokens["blocked"], "blocking")[0], 403, "a send after a block elsewhere")
            third.answer("DELETE", "/api/block/blocked", token=tokens["blocking"])
        expect(send(one, tokens["blocked"], "blocking")[0], 201, "a send after the block was lifted elsewhere")
        print(f"- {ROUNDS} blocks made on one node: the next message, sent to another, was refused each time", flush=True)

    def check_tokens(self) -> None:
        body = {"username": "leaving", "password": PASSWORD}
        register(self.nodes[0], ["leaving"])
        for one, other, third in self.rounds():
            token = one.answer("POST", "/api/auth/login", body)["token"]
            other.answer("GET", "/api/auth/user", token=token)
            third.answer("POST", "/api/auth/logout", token=token)
            statuses = [node.request("GET", "/api/auth/user", token=token)[0] for node in (one, other, third)]
            expect(statuses, [401] * 3, "a token after log-out elsewhere")
        print(
            f"- {ROUNDS} tokens made on one node: each was good on another, and dead on all after log-out on a third",
            flush=True,
        )

    def check_log_ins(self) -> None:
        """Through nginx, with another forged X-Forwarded-For each time."""
        register(self.nodes[0], ["owner"])
        numbers = itertools.count(1)

        def guess(username: str) -> int:
            return self.proxy.log_in(username, "a wrong guess", forwarded_for=f"203.0.113.{next(numbers)}")

        for_one_name = [guess("owner") for _ in range(2 * TRIES)]
        for_others = [guess(f"nobody-{number}") for number in range(2 * TRIES)]
        expect(for_one_name, [400] * TRIES + [429] * TRIES, "guesses for one name from one address")
        expect(for_others, [400] * TRIES + [429] * TRIES, "guesses for other names from the same address")
        expect(self.proxy.log_in("owner", PASSWORD, source=ELSEWHERE), 200, "the log-in of the owner from elsewhere")
        lines = [line for node in self.nodes for line in node.log_lines("requests") if line["request_id"] == THROUGH_NGINX]
        expect(
            Counter(line["address"] for line in lines), {"127.0.0.1": 4 * TRIES, ELSEWHERE: 1}, "addresses in requests.log"
        )
        print(
            f"- with a LIMIT_LOGIN of {TRIES} and a LIMIT_LOGIN_ADDRESS of {2 * TRIES}, through nginx: {TRIES} guesses for "
            f"a name and {TRIES} for others were answered, {2 * TRIES} refused, whatever X-Forwarded-For said; the owner "
            "could still log in from elsewhere",
            flush=True,
        )

    def rounds(self) -> Iterator[tuple[Node, ...]]:
        """Three nodes, each time in another order."""
        return itertools.islice(itertools.cycle(itertools.permutations(self.nodes, 3)), ROUNDS)


def send(node: Node, token: str, receiver: str, key: str | None = None) -> tuple[int, Any]:
    headers = {} if key is None else {"Idempotency-Key": key}
    return node.request("POST", "/api/message", {"receiver": receiver, "content": "hi"}, token, **headers)


def at_once(nodes: list[Node], call: Callable[[Node], Any]) -> list[Any]:
    """What the calls return, one for each of the nodes, all let go at the same moment."""
    barrier = threading.Barrier(len(nodes))

    def run(node: Node) -> Any:
        barrier.wait()
        return call(node)

    with ThreadPoolExecutor(len(nodes)) as pool:
        return list(pool.map(run, nodes))


def until_it_takes_messages(node: Node, at_work: Load) -> None:
    before = messages_taken(node)
    node.start()
    took = wait_until(lambda: messages_taken(node) > before, 30, "a node that came takes messages")
    print(f"  it had its first message {took:.1f} s after it was ready", flush=True)
    at_work.until_all_go_on(TIMES)


def messages_taken(node: Node) -> int:
    return sum(line["path"] == "/api/message" and line["status"] == 201 for line in node.log_lines("requests"))


def expect(found: Any, expected: Any, what: str) -> None:
    if found != expected:
        sys.exit(f"{what}: {found}, expected: {expected}")


def nginx() -> str:
    """Its program, which Debian keeps off the path of most users."""
    return shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or need("nginx", "nginx")


def start_all(nodes: list[Node]) -> None:
    """The first one makes the tables."""
    nodes[0].start()
    with ThreadPoolExecutor() as pool:
        list(pool.map(Node.start, nodes[1:]))


@contextmanager
def trial(nginx_program: str) -> Iterator[Trial]:
    with ExitStack() as stack:
        folder = stack.enter_context(cluster_folder())
        cluster = stack.enter_context(running_cluster(folder, free_port()))
        port = free_port()
        nodes = [
            Node(folder, cluster.url, host=address, port=port, WEB_CONCURRENCY=WORKERS, TRUSTED_PROXIES="1")
            for address in ADDRESSES
        ]
        for node in nodes:
            stack.callback(node.kill)
        start_all(nodes[:3])
        proxy = Proxy(nginx_program, Path(stack.enter_context(tempfile.TemporaryDirectory())), nodes)
        stack.callback(proxy.stop)
        wait_until(proxy.is_up, 10, "nginx answers")
        yield Trial(nodes, proxy)


def main() -> None:
    with trial(nginx()) as on:
        on.under_load()
        on.as_one()


if __name__ == "__main__":
    main()
