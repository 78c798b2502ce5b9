"""Shows that the nodes follow the database to another server by themselves, and that no acknowledged message is lost.

Three nodes know of two PostgreSQL servers: a primary, and a standby that confirms each commit. Clients send all the while,
each message until it is acknowledged. The primary is killed and the standby promoted; then the two change roles, first with
the old primary stopped, then with it up and taking no writes. At last a standby is killed: the only one, and one of two.
"""

import itertools
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.proofs.clients import Client, Load, as_text, discrepancies, load, register
from benchmarks.proofs.cluster import DATABASE, HOST, USER, Cluster, cluster_folder, running_cluster, wait_until
from benchmarks.proofs.node import Node, running_node
from config.testing.http_client import free_port

NODES = 3
CLIENTS = 9
UNNOTICED = 2  # seconds until whoever looks after the servers promotes a standby
AWAY = 8  # seconds without the only standby
FOLLOWED_WITHIN = 30  # seconds; generous, as only a busy machine needs more than a few,
ANSWERED_WITHIN = 20  # and more than the ten after which any wait for a database ends
CONFIRMING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"


@dataclass
class Trial:
    """Nodes under load, and the two servers that they know of: the primary of now, and the other one."""

    nodes: list[Node]
    at_work: Load
    primary: Cluster
    standby: Cluster

    def fail_over(self) -> None:
        """The machine of the primary goes."""
        with self.promotion(f"killed the primary, promoted the standby {UNNOTICED} s later"):
            self.primary.kill()
            time.sleep(UNNOTICED)
        self.replace_standby()

    def switch_over(self) -> None:
        """The primary hands all that it holds to the standby before it ends, and can follow that one afterwards."""
        with self.promotion("stopped the primary, promoted the standby"):
            self.primary.stop()
        self.standby.follow(self.primary)
        self.standby.configure(synchronous_standby_names="")
        self.standby.start()
        self.wait_for_standbys(f"standby_{self.standby.port}")

    def switch_over_beside_old_primary(self) -> None:
        """Connections to the old primary stay open, and it answers that it takes no writes."""
        with self.promotion("had the primary take no writes, promoted the standby"):
            self.primary.configure(default_transaction_read_only="on")
            self.primary.reload()
            wait_until(lambda: self.refused_writes() > 0, 10, "a write is refused")
        print(f"  the old primary refused {self.refused_writes()} writes on connections that were there", flush=True)
        self.standby.stop()
        self.replace_standby()

    def lose_only_standby(self) -> None:
        """Nothing is acknowledged before somebody gives the standby up."""
        self.standby.kill()
        time.sleep(0.5)  # for what it confirmed before
        before = self.at_work.answers()
        time.sleep(AWAY)
        answers = self.at_work.answers() - before
        self.primary.configure(synchronous_standby_names="")
        self.primary.reload()
        first, last = self.seconds_until_201()
        print(
            f"- killed the only standby for {AWAY} s: answers: {as_text(answers)}; the first 201 came {first:.2f} s after "
            f"synchronous_standby_names was emptied, that of the last node {last:.2f} s after it",
            flush=True,
        )
        if answers[201]:
            sys.exit("Messages were acknowledged that no standby has")

    def lose_one_of_two_standbys(self, other: Cluster) -> None:
        self.standby.start()
        self.copy_primary_to(other)
        self.wait_for_standbys(f"ANY 1 (standby_{self.standby.port}, standby_{other.port})", 2)
        before = self.at_work.answers()
        self.standby.kill()
        first, last = self.seconds_until_201()
        time.sleep(2)
        answers = self.at_work.answers() - before
        print(
            f"- killed one of two standbys: the next 201 came {first:.2f} s later, the last node's {last:.2f} s later; "
            f"answers until 2 s after that: {as_text(answers)}",
            flush=True,
        )
        if set(answers) != {201}:
            sys.exit("Clients noticed that one of two standbys went")

    @contextmanager
    def promotion(self, deed: str) -> Iterator[None]:
        """Promote the standby after the block, and say what the clients saw from the begin of the block on."""
        before = self.at_work.answers()
        yield
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        first, last = self.seconds_until_201()
        print(
            f"- {deed}: the first 201 came {first:.2f} s after the promotion, that of the last node {last:.2f} s after it; "
            f"answers: {as_text(self.at_work.answers() - before)}",
            flush=True,
        )
        if last > FOLLOWED_WITHIN:
            sys.exit(f"A node followed after {last:.1f} s, more than {FOLLOWED_WITHIN}")

    def seconds_until_201(self) -> tuple[float, float]:
        """Seconds until a message was acknowledged by any node, and until by every node."""
        before = self.acknowledged_by_node()
        first = wait_until(lambda: self.acknowledged_by_node() != before, 60, "a message is acknowledged")
        rest = wait_until(
            lambda: all(count > before[port] for port, count in self.acknowledged_by_node().items()),
            60,
            "each node has acknowledged a message",
        )
        return first, first + rest

    def acknowledged_by_node(self) -> dict[int, int]:
        counts = Counter()
        for client in self.at_work.clients:
            counts[client.address.port] += len(client.ledger.acknowledged)
        return counts

    def refused_writes(self) -> int:
        lines = itertools.chain.from_iterable(node.log_lines("debug") for node in self.nodes)
        return sum("ReadOnlySqlTransaction" in line["traceback"] for line in lines)

    def replace_standby(self) -> None:
        self.copy_primary_to(self.standby)
        self.wait_for_standbys(f"standby_{self.standby.port}")

    def copy_primary_to(self, standby: Cluster) -> None:
        """With no standby of its own: promoted, it would wait for one before it confirms the first commit."""
        shutil.rmtree(standby.data, ignore_errors=True)
        standby.make_standby_of(self.primary, synchronous_standby_names="")
        standby.start()

    def wait_for_standbys(self, names: str, count: int = 1) -> None:
        """Have the standbys of these names confirm each commit."""
        self.primary.configure(synchronous_standby_names=names)
        self.primary.reload()
        wait_until(lambda: value(self.primary, CONFIRMING) == count, 30, f"standbys confirm each commit: {names}")
        self.seconds_until_201()


def value(cluster: Cluster, query: str) -> Any:
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        return connection.execute(query).fetchone()[0]


@contextmanager
def trial(folder: Path) -> Iterator[Trial]:
    with ExitStack() as stack:
        standby = Cluster(folder, free_port())
        stack.callback(standby.stop)
        primary = stack.enter_context(running_cluster(folder, free_port()))
        url = f"postgresql://{USER}@{HOST}:{primary.port},{HOST}:{standby.port}/{DATABASE}"
        nodes = [stack.enter_context(running_node(folder, url, port=free_port(), WEB_CONCURRENCY="2")) for _ in range(NODES)]
        tokens = register(nodes[0], [f"user-{number}" for number in range(CLIENTS)])
        urls = itertools.cycle(node.url for node in nodes)
        at_work = stack.enter_context(
            load(nodes[0].url, tokens, lambda _, *arguments: Client(next(urls), *arguments))  # on each node as many
        )
        trial = Trial(nodes, at_work, primary, standby)
        trial.replace_standby()
        yield trial


def main() -> None:
    with cluster_folder() as folder, trial(folder) as on:
        on.fail_over()
        on.switch_over()
        on.switch_over_beside_old_primary()
        on.lose_only_standby()
        other = Cluster(folder, free_port())
        try:
            on.lose_one_of_two_standbys(other)
            on.at_work.stop()
        finally:
            other.stop()
        found = discrepancies(on.nodes[0], on.at_work)
        if found:
            sys.exit("\n".join(found[:20]))
        print(
            f"- {on.at_work.acknowledged():,} messages acknowledged in all, none lost, none doubled; answers: "
            f"{as_text(on.at_work.answers())}; slowest {on.at_work.slowest():.2f} s"
        )
        if on.at_work.slowest() > ANSWERED_WITHIN:
            sys.exit(f"A client waited for {on.at_work.slowest():.1f} s, more than {ANSWERED_WITHIN} s")


if __name__ == "__main__":
    main()
