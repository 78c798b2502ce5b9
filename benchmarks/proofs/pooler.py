"""Shows that PgBouncer can be used between the nodes and PostgreSQL, with the settings of docs/scaling.md.

The nodes of `nodes` open more connections than PgBouncer does. Clients send through all nodes while first the server, then
PgBouncer is killed and started again. Needs PgBouncer 1.22 or newer, which Debian has since version 13.
"""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import psycopg

from benchmarks.proofs.clients import Load
from benchmarks.proofs.nodes import Proof, running_proof
from benchmarks.proofs.processes import Cluster, check, kill_all, program, running_cluster, wait_until, without_root
from config.testing.http_client import free_port
from config.testing.service import ROOT

ROLE = "messaging"  # its name on the page
POOLED = 4  # connections of PgBouncer to the server; each node could use eight
AWAY = 2  # seconds
SETTINGS = {"statement_timeout": "4s", "lock_timeout": "3s", "random_page_cost": "1.1", "synchronous_commit": "on"}


class Pooler:
    """PgBouncer in front of a server."""

    def __init__(self, server: Cluster) -> None:
        page = (ROOT / "docs" / "scaling.md").read_text().partition("PgBouncer")[2]
        settings, roles = (re.search(rf"```{language}\n(.*?)```", page, re.DOTALL)[1] for language in ("ini", "sql"))
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {ROLE} LOGIN; ALTER DATABASE postgres OWNER TO {ROLE}; {roles}")
        port = free_port()
        self.url = f"postgresql://{ROLE}@127.0.0.1:{port}/postgres"
        self.file, users = server.folder / "pgbouncer.ini", server.folder / "users.txt"
        users.write_text(f'"{ROLE}" ""\n')
        self.file.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{settings}"
            f"default_pool_size = {POOLED}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\n"
        )

    def start(self) -> None:
        command = without_root(program("pgbouncer", "pgbouncer"), "--quiet", str(self.file))
        self.process = psutil.Popen(command, cwd="/")
        wait_until(self.is_up, 10, "PgBouncer accepts connections")

    def is_up(self) -> bool:
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        kill_all([*self.process.children(), self.process])


def kill_and_start(proof: Proof, load: Load, name: str, kill: Callable[[], None], start: Callable[[], None]) -> None:
    with proof.event(load, f"killed {name}, started it {AWAY} s later", {201, 503}, retries=100):
        kill()
        time.sleep(AWAY)
        start()


def main() -> None:
    with running_cluster() as server, ExitStack() as stack:
        pooler = Pooler(server)
        pooler.start()
        stack.callback(pooler.kill)
        proof = stack.enter_context(running_proof(server.folder, pooler.url))
        with Load(proof.nodes[0], "user", 16, [proof.url]) as load:
            kill_and_start(proof, load, "the server", server.kill, server.start)
            kill_and_start(proof, load, "PgBouncer", pooler.kill, pooler.start)
        messages = load.expect_nothing_lost(proof.nodes[0])
        with psycopg.connect(server.url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
            (connections,) = connection.execute(query, [ROLE]).fetchone()
        with psycopg.connect(pooler.url, autocommit=True) as connection:
            found = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
        check(f"{messages:,} messages, none lost, none doubled, over {connections} connections", connections <= POOLED)
        check(f"the settings of the role hold behind PgBouncer: {found}", found == SETTINGS)


if __name__ == "__main__":
    main()
