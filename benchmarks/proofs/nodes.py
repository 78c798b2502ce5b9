"""Shows that several nodes behind nginx are one service: any of them may stop or start, and what one stores holds on all.

Three nodes on addresses of their own share a PostgreSQL server. nginx, which is also configured with a fourth, passes them
requests in turn. Clients send through it while a node is killed, the fourth is started, another is stopped, and the first is
started again. Then a limit, blocks and tokens are tried across nodes.
"""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.proofs.clients import PASSWORD, Load, as_text, register
from benchmarks.proofs.processes import Node, check, expect, program, running, running_cluster, wait_until
from config.testing.http_client import free_port

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
CLIENTS = 12
TIMES = 20  # that each client has to be acknowledged between two events
LIMIT = 10  # messages of a sender
ROUNDS = 30  # of blocks and tokens, each of which must hold at once on all nodes
WITHIN = 10  # seconds until a started node takes messages, and that a client waits at most


class Proof:
    def __init__(self, nodes: list[Node], url: str) -> None:
        self.nodes, self.url = nodes, url

    def under_load(self) -> None:
        first, second, third, newcomer = self.nodes
        with Load(first, "user", CLIENTS, [self.url]) as load:
            with self.event(load, "killed a node", {201, 503}):
                second.kill()
            with self.event(load, "started the fourth node", {201, 503}):
                newcomer.start()
                self.wait_for_messages(newcomer)
            with self.event(load, "stopped a node by SIGTERM", {201}):
                third.stop()
            with self.event(load, "started the killed node", {201, 503}):
                second.start()
                self.wait_for_messages(second)
        taken = ", ".join(f"{messages_taken(node):,}" for node in self.nodes)
        check(f"{load.expect_nothing_lost(first):,} messages acknowledged, none lost, none doubled; the nodes took {taken}")

    @contextmanager
    def event(self, load: Load, name: str, expected: set[int], retries: int = 1) -> Iterator[None]:
        load.wait_until_all_go_on(TIMES)
        began = time.monotonic()
        yield
        load.wait_until_all_go_on(TIMES)
        outcomes, slowest = load.outcomes(began), load.slowest(began)
        check(
            f"{name}: responses {as_text(outcomes)}; the slowest took {slowest:.1f} s",
            outcomes.keys() <= expected,
            outcomes[503] <= retries * CLIENTS,
            slowest <= WITHIN,
        )

    def wait_for_messages(self, node: Node) -> None:
        before = messages_taken(node)
        wait_until(lambda: messages_taken(node) > before, WITHIN, "a node that came takes messages")

    def limit(self) -> None:
        for node in self.nodes:
            node.kill()
            node.environment["LIMIT_SEND"] = f"{LIMIT}/300"
            node.start()
        token = register(self.nodes[0], ["busy"])["busy"]
        with ThreadPoolExecutor(2 * LIMIT) as pool:
            turns = itertools.islice(itertools.cycle(self.nodes), 2 * LIMIT)
            statuses = Counter(pool.map(lambda node: send(node, token, "busy"), turns))
        check(
            f"LIMIT_SEND={LIMIT}/300, sends to all nodes at once: {as_text(statuses)}",
            statuses == {201: LIMIT, 429: LIMIT},
        )

    def blocks_and_tokens(self) -> None:
        tokens = register(self.nodes[0], ["blocking", "blocked"])
        rounds = itertools.islice(itertools.cycle(itertools.permutations(self.nodes, 3)), ROUNDS)
        for first, second, third in rounds:
            first.post("/api/block", {"blocked": "blocked"}, tokens["blocking"])
            expect(send(second, tokens["blocked"], "blocking") == 403, "A block made on another node does not hold")
            third.call("DELETE", "/api/block/blocked", token=tokens["blocking"])
            token = first.post("/api/auth/login", {"username": "blocking", "password": PASSWORD})["token"]
            second.get("/api/auth/user", token)
            third.post("/api/auth/logout", token=token)
            statuses = {node.request("GET", "/api/auth/user", token=token)[0] for node in self.nodes}
            expect(statuses == {401}, f"A token that was revoked on another node: {statuses}")
        check(f"{ROUNDS} blocks and tokens made on one node, used on another, ended on a third: each held on all at once")


def send(node: Node, token: str, receiver: str) -> int:
    return node.request("POST", "/api/message", {"receiver": receiver, "content": "hi"}, token)[0]


def messages_taken(node: Node) -> int:
    return sum(line["path"] == "/api/message" and line["status"] == 201 for line in node.log_lines("requests"))


@contextmanager
def nginx(nodes: list[Node]) -> Iterator[str]:
    """Run nginx with the site of nginx.conf, as a user without privileges. Yields its URL."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copy(Path(__file__).with_name("nginx.conf"), folder)
        (folder / "listen.conf").write_text(f"listen 127.0.0.1:{port};\n")
        (folder / "nodes.conf").write_text("".join(f"server {node.host}:{node.port} fail_timeout=3s;\n" for node in nodes))
        identity = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}
        command = [program("nginx", "nginx"), "-p", folder, "-c", "nginx.conf", "-e", "error.log"]
        process = subprocess.Popen(command, **identity)
        try:
            wait_until((folder / "nginx.pid").exists, 10, "nginx runs")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextmanager
def running_proof(folder: Path, database_url: str) -> Iterator[Proof]:
    with ExitStack() as stack:
        settings = {"PORT": str(free_port()), "TRUSTED_PROXIES": "1"}
        nodes = [Node(folder, database_url, HOST=host, **settings) for host in ADDRESSES]
        for node in nodes:
            stack.enter_context(running(node))
        nodes[-1].stop()
        yield Proof(nodes, stack.enter_context(nginx(nodes)))


def main() -> None:
    with running_cluster() as cluster, running_proof(cluster.folder, cluster.url) as proof:
        proof.under_load()
        proof.limit()
        proof.blocks_and_tokens()


if __name__ == "__main__":
    main()
