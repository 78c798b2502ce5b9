"""Shows that PgBouncer may stand between the nodes and PostgreSQL, with the settings of docs/scaling.md.

Two nodes hold more connections than PgBouncer does. Clients send through both, each message until it is acknowledged, while
the server is killed and starts again, and PgBouncer after it. Then: the settings of the role hold; a pool without a free
connection is waited for no longer than a server that does not answer; `manage.py` goes past it.

It wants PgBouncer 1.22 or newer, which Debian has since 13, and so is no part of `make proofs`.
"""

import itertools
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from benchmarks.databases import ROOT
from benchmarks.proofs.clients import Client, Load, as_text, discrepancies, load, register
from benchmarks.proofs.cluster import DATABASE, HOST, Cluster, cluster_folder, running_cluster, wait_until, without_root
from benchmarks.proofs.node import Node, need, running_node
from config.testing.http_client import free_port

ROLE = "messaging"  # as the page calls it
POOLED = 4  # connections of PgBouncer to the server
NODES, WORKERS = 2, "3"  # of four connections each
CLIENTS = 16
TIMES = 40  # that each client has to be acknowledged between two deeds
AWAY = 2  # seconds
REFUSED_WITHIN = 7  # seconds: 4.5 are promised to each, and some wait for their turn
SETTINGS = {"statement_timeout": "4s", "lock_timeout": "3s", "random_page_cost": "1.1", "synchronous_commit": "on"}

OPEN_ADMIN = """
from django.contrib.auth.models import User
from django.test import Client

operator = User.objects.create_superuser("operator")
browser = Client()
browser.force_login(operator)
pages = [browser.get(f"/admin/auth/user/{operator.pk}/change/") for _ in range(50)]
assert {page.status_code for page in pages} == {200}, pages
print(len(pages))
"""


def block(language: str) -> str:
    """What the page has of that language where it speaks of PgBouncer."""
    page = (ROOT / "docs" / "scaling.md").read_text()
    return re.search(rf"PgBouncer.*?```{language}\n(.*?)```", page, re.DOTALL)[1]


class Pooler:
    """PgBouncer before a server."""

    def __init__(self, folder: Path, server: Cluster) -> None:
        self.process: psutil.Popen | None = None
        self.port = free_port()
        self.url = f"postgresql://{ROLE}@{HOST}:{self.port}/{DATABASE}"
        self.settings, users = folder / "pgbouncer.ini", folder / "users.txt"
        users.write_text(f'"{ROLE}" ""\n')
        self.settings.write_text(
            f"[databases]\n{DATABASE} = host={HOST} port={server.port}\n[pgbouncer]\n{block('ini')}"
            f"default_pool_size = {POOLED}\nlisten_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
        )

    def start(self) -> None:
        self.process = psutil.Popen(without_root("pgbouncer", "--quiet", str(self.settings)), cwd="/")
        wait_until(self.is_up, 10, "PgBouncer answers")

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            sys.exit("PgBouncer has ended")
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        if self.process is None:
            return
        processes = [self.process, *self.process.children()]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=10)


@dataclass
class Trial:
    server: Cluster
    pooler: Pooler
    nodes: list[Node]
    at_work: Load

    def kill_server(self) -> None:
        with self.recovery("the server"):
            self.server.kill()
            time.sleep(AWAY)
            self.server.start()

    def kill_pooler(self) -> None:
        with self.recovery("PgBouncer"):
            self.pooler.kill()
            time.sleep(AWAY)
            self.pooler.start()

    @contextmanager
    def recovery(self, killed: str) -> Iterator[None]:
        self.at_work.until_all_go_on(TIMES)
        connections = self.connections()
        before = self.at_work.answers()
        yield
        seconds = self.at_work.until_all_go_on()
        print(
            f"- {connections} connections to the server; killed {killed}, started it again {AWAY} s later: all clients went "
            f"on {seconds:.2f} s after that; answers: {as_text(self.at_work.answers() - before)}",
            flush=True,
        )
        if connections > POOLED:
            sys.exit(f"There are more than {POOLED} connections")

    def connections(self) -> int:
        with psycopg.connect(self.server.url, autocommit=True) as connection:
            return connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [ROLE]).fetchone()[0]

    def open_admin(self) -> None:
        """The page of a user, which reads groups and permissions row by row, while clients use the connections in turn."""
        found = self.nodes[0].manage("shell", "--verbosity", "0", "--command", OPEN_ADMIN)
        if found.returncode:
            sys.exit(f"The admin's page of a user: {found.stderr}")
        print(f"- opened the admin's page of a user {found.stdout.strip()} times", flush=True)

    def look_at_settings(self) -> None:
        with psycopg.connect(self.pooler.url, autocommit=True) as connection:
            found = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
        print(f"- behind PgBouncer: {', '.join(f'{name} {value}' for name, value in found.items())}", flush=True)
        if found != SETTINGS:
            sys.exit(f"They should be {SETTINGS}")

    def use_up_the_pool(self) -> None:
        """Transactions that do nothing hold all of PgBouncer's connections, until clients have been refused."""
        tokens = [*self.at_work.tokens.values()]
        with ExitStack() as stack:
            for _ in range(POOLED):
                stack.enter_context(psycopg.connect(self.pooler.url)).execute("SELECT 1")
            with ThreadPoolExecutor(len(tokens)) as pool:
                found = [*pool.map(self.list_messages, itertools.cycle(self.nodes), tokens)]
        statuses, seconds = {status for status, _ in found}, max(taken for _, taken in found)
        print(f"- no connection free: {len(found)} lists got {statuses}, the last after {seconds:.2f} s", flush=True)
        if statuses != {503} or seconds > REFUSED_WITHIN:
            sys.exit(f"They should have been answered 503 within {REFUSED_WITHIN} s")
        time.sleep(1)  # for which nobody tries again
        again = {self.list_messages(node, token)[0] for node in self.nodes for token in tokens}
        if again != {200}:
            sys.exit(f"With connections free again, lists are answered {again}")

    def go_past(self) -> None:
        """With the option that the page gives, `manage.py` takes as long as it needs."""
        url = f"postgresql://{ROLE}@{HOST}:{self.server.port}/{DATABASE}?options=-c%20statement_timeout%3D0"
        ask = "from config.database.sql import fetch_one; print(*fetch_one('SHOW statement_timeout'))"
        found = Node(self.pooler.settings.parent, url, port=free_port()).manage(
            "shell", "--verbosity", "0", "--command", ask
        )
        print(f"- past PgBouncer: statement_timeout {found.stdout.strip()}", flush=True)
        if found.stdout.strip() != "0":
            sys.exit(f"It should be 0: {found.stderr}")

    @staticmethod
    def list_messages(node: Node, token: str) -> tuple[int, float]:
        """The status of the answer, and the seconds that it took."""
        began = time.monotonic()
        status, _ = node.request("GET", "/api/message", token=token)
        return status, time.monotonic() - began


@contextmanager
def trial(folder: Path) -> Iterator[Trial]:
    with ExitStack() as stack:
        server = stack.enter_context(running_cluster(folder, free_port()))
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN")
            connection.execute(f"ALTER DATABASE {DATABASE} OWNER TO {ROLE}")
            connection.execute(block("sql"))
        pooler = Pooler(folder, server)
        stack.callback(pooler.kill)
        pooler.start()
        nodes = [
            stack.enter_context(running_node(folder, pooler.url, port=free_port(), WEB_CONCURRENCY=WORKERS))
            for _ in range(NODES)
        ]
        tokens = register(nodes[0], [f"user-{number}" for number in range(CLIENTS)])
        urls = itertools.cycle(node.url for node in nodes)
        at_work = stack.enter_context(load(nodes[0].url, tokens, lambda _, *arguments: Client(next(urls), *arguments)))
        yield Trial(server, pooler, nodes, at_work)


def main() -> None:
    need("pgbouncer", "pgbouncer")
    with cluster_folder() as folder, trial(folder) as on:
        on.kill_server()
        on.kill_pooler()
        on.open_admin()
        on.at_work.until_all_go_on(TIMES)
        on.at_work.stop()
        on.look_at_settings()
        on.use_up_the_pool()
        on.go_past()
        found = discrepancies(on.nodes[0], on.at_work)
        if found:
            sys.exit("\n".join(found[:20]))
        print(f"- {on.at_work.acknowledged():,} messages acknowledged in all, none lost, none doubled")


if __name__ == "__main__":
    main()
