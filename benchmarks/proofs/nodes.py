"""Shows that several nodes behind nginx are one service: any of them may stop or start, and what one stores holds on all.

Three nodes on addresses of their own share a PostgreSQL server. nginx, which is also configured with a fourth, passes them
requests in turn. Clients send through it while a node is killed, the fourth is started, another is stopped, and the first is
started again. Then a limit, blocks and tokens are tried across nodes.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.proofs.checks import check, expect, program, wait_until
from benchmarks.proofs.clients import PASSWORD, Load, as_text, register
from benchmarks.proofs.pages import steps
from benchmarks.proofs.processes import Node, Program, running, running_cluster, running_node
from config.testing.http_client import free_port

ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")
CLIENTS = 12
TIMES = 20  # that each client has to be acknowledged between two events
RETRIES = 1  # of each client, after an event
QUEUED = 2 / CLIENTS  # retries of each client, if two connections wait at a listener that closes
LIMIT = 10  # messages of a sender
ROUNDS = 30  # of blocks and tokens, each of which must hold at once on all nodes
WITHIN = 10  # seconds until a started node takes messages

NGINX = """
daemon off;
worker_processes 2;
pid nginx.pid;
events {
}
http {
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    access_log off;
    SITE
}
"""


class Proof:
    def __init__(self, nodes: list[Node], url: str) -> None:
        self.nodes, self.url = nodes, url

    def under_load(self) -> None:
        first, second, third, newcomer = self.nodes
        with Load(first, "user", CLIENTS, [self.url]) as load:
            with load.event("killed a node", TIMES, RETRIES):
                second.kill()
            with load.event("started the fourth node", TIMES, RETRIES):
                newcomer.start()
                self.wait_for_messages(newcomer)
            with load.event("stopped a node by SIGTERM", TIMES, QUEUED):
                third.stop()
            with load.event("started the killed node", TIMES, RETRIES):
                second.start()
                self.wait_for_messages(second)
        taken = ", ".join(f"{messages_taken(node):,}" for node in self.nodes)
        check(f"{load.expect_nothing_lost(first):,} messages acknowledged, none lost, none doubled; the nodes took {taken}")

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


def site(nodes: list[Node], port: int) -> str:
    """Return the site of docs/deploy.md, without TLS, and changed as the section on several machines says."""
    [block] = [block for block in steps("deploy.md", "HTTPS") if block.path == "/etc/nginx/sites-available/messaging"]
    servers = "".join(f"server {node.host}:{node.port} fail_timeout=3s;" for node in nodes)
    content = block.content
    changes = {
        "include /etc/nginx/messaging-instance;": f"zone messaging 64k; {servers}",
        "proxy_pass .*": r"proxy_connect_timeout 2s; \g<0>",
        r"^server {\n    listen 80;(.*\n)*?}": "",
        r"listen 443 .*": f"listen 127.0.0.1:{port};",
        r"listen \[::\]:443 .*|ssl_.*": "",
    }
    for pattern, replacement in changes.items():
        content, count = re.subn(pattern, replacement, content, flags=re.MULTILINE)
        expect(count > 0, f"The site of docs/deploy.md has no {pattern}")
    return content


@contextmanager
def running_proof(folder: Path, database_url: str) -> Iterator[Proof]:
    with ExitStack() as stack:
        settings = {"PORT": str(free_port()), "TRUSTED_PROXIES": "1"}
        nodes = [stack.enter_context(running_node(folder, database_url, HOST=host, **settings)) for host in ADDRESSES]
        nodes[-1].stop()
        port = free_port()
        (folder / "nginx.conf").write_text(NGINX.replace("SITE", site(nodes, port)))
        command = (program("nginx", "nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "error.log")
        stack.enter_context(running(Program(port, *command)))
        yield Proof(nodes, f"http://127.0.0.1:{port}")


def main() -> None:
    with running_cluster() as cluster, running_proof(cluster.folder, cluster.url) as proof:
        proof.under_load()
        proof.limit()
        proof.blocks_and_tokens()


if __name__ == "__main__":
    main()
