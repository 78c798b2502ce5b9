"""Shows that PgBouncer can be used between the nodes and PostgreSQL, with the settings of docs/scaling.md.

The nodes of `nodes` open more connections than PgBouncer does. Clients send through all nodes while first the server, then
PgBouncer is killed and started again. Needs PgBouncer 1.22 or newer, which Debian has since version 13.
"""

import time
from contextlib import ExitStack

import psycopg

from benchmarks.proofs.checks import check, program
from benchmarks.proofs.clients import Load
from benchmarks.proofs.nodes import TIMES, running_proof
from benchmarks.proofs.pages import blocks
from benchmarks.proofs.processes import Cluster, Program, running, running_cluster
from config.testing.http_client import free_port

ROLE = "messaging"  # its name on the page
POOLED = 4  # connections of PgBouncer to the server; each node could use eight
RETRIES = 100  # of each client, at most: one in each 0.1 seconds without a server
AWAY = 2  # seconds
SETTINGS = {"statement_timeout": "4s", "lock_timeout": "3s", "random_page_cost": "1.1", "synchronous_commit": "on"}


def set_up_pooler(server: Cluster) -> tuple[Program, str]:
    """Return a PgBouncer in front of the server, and the URL of the database behind it."""
    page = {block.language: block.content for block in blocks("scaling.md") if block.section == "Several nodes"}
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN; ALTER DATABASE postgres OWNER TO {ROLE}; {page['sql']}")
    port = free_port()
    url = f"postgresql://{ROLE}@127.0.0.1:{port}/postgres"
    file, users = server.folder / "pgbouncer.ini", server.folder / "users.txt"
    users.write_text(f'"{ROLE}" ""\n')
    file.write_text(
        f"[databases]\npostgres = host=127.0.0.1 port={server.port}\n[pgbouncer]\n{page['ini']}"
        f"default_pool_size = {POOLED}\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = trust\nauth_file = {users}\n"
    )

    return Program(port, program("pgbouncer", "pgbouncer"), "--quiet", str(file)), url


def main() -> None:
    with running_cluster() as server, ExitStack() as stack:
        pooler, url = set_up_pooler(server)
        stack.enter_context(running(pooler))
        proof = stack.enter_context(running_proof(server.folder, url))
        with Load(proof.nodes[0], "user", 16, [proof.url]) as load:
            for name, killed in {"the server": server, "PgBouncer": pooler}.items():
                with load.event(f"killed {name}, started it {AWAY} s later", TIMES, RETRIES):
                    killed.kill()
                    time.sleep(AWAY)
                    killed.start()
        messages = load.expect_nothing_lost(proof.nodes[0])
        with psycopg.connect(server.url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
            (connections,) = connection.execute(query, [ROLE]).fetchone()
        with psycopg.connect(url, autocommit=True) as connection:
            found = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in SETTINGS}
        check(f"{messages:,} messages, none lost, none doubled, over {connections} connections", connections <= POOLED)
        check(f"the settings of the role hold behind PgBouncer: {found}", found == SETTINGS)


if __name__ == "__main__":
    main()
