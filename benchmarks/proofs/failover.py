"""Shows what docs/high-availability.md promises: nothing acknowledged is lost, and clients can soon send again.

Three machines made of namespaces run the blocks of that page, with a systemd of their own, in a network of their own.
Clients send and poll through two nodes of the service while the primary is killed, frozen and cut off, a standby is killed
and replaced, the primary is changed as planned, and all etcd processes are frozen. At the end, two machines are lost for
good. Needs root, and Debian's etcd-server, etcd-client, iptables and those packages that the proof `deploy` needs.
"""

import itertools
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.proofs.checks import check, download_packages, expect, require_root_and_programs, shell, wait_until
from benchmarks.proofs.clients import Load, Poller, as_text
from benchmarks.proofs.machine import Machine, prepare
from benchmarks.proofs.pages import blocks, steps
from benchmarks.proofs.processes import USER, Node, enter_own_network, frozen, kill_all, running, running_node
from config.testing.http_client import send_request

PAGE = "high-availability.md"
REPLACE = "Replace a machine"
ADDRESSES = {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"}
CLIENTS = 8
TIMES = 20  # messages of each client that must be acknowledged before, during and after an event
AWAY = 30  # seconds, longer than the page's ttl
FAILOVER_WITHIN, SWITCHOVER_WITHIN, UNNOTICED_WITHIN = 40, 15, 4  # seconds without a 201
RESPONSE_WITHIN = 10  # seconds until every request has a response
WHOLE_WITHIN = 180  # seconds until a machine that came back is a standby

INSTALLED = """
pg_createcluster 15 main
systemctl start etcd postgresql@15-main
"""  # as the packages do when they are installed on a bare machine


def script(section: str, word: str = "") -> str:
    """Return a script of the section's blocks that contain the word: it writes the files and runs the commands."""
    return "".join(block.script() for block in steps(PAGE, section) if word in block.content)


class DatabaseMachine(Machine):
    """One of the three machines. Its network and its disk stay when it is killed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.network = psutil.Popen(shlex.split("setpriv --pdeathsig KILL unshare --net sleep infinity"))
        super().__init__(folder, name, "nsenter", f"--net=/proc/{self.network.pid}/ns/net")
        self.address = ADDRESSES[name]
        self.lose_disk()
        wait_until(lambda: self.network.name() == "sleep", 10, "a machine has a network")
        shell("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", str(self.network.pid))
        shell("ip", "address", "add", "10.0.0.1", "peer", self.address, "dev", name)
        shell("ip", "link", "set", name, "up")
        own = f"ip address add {self.address} peer 10.0.0.1 dev eth0; ip route add 10.0.0.0/24 via 10.0.0.1"
        shell(*self.enter_network, "sh", "-euc", f"ip link set lo up; ip link set eth0 up; {own}")

    def lose_disk(self) -> None:
        shutil.rmtree(self.disk, ignore_errors=True)
        for path, user in {"opt": "root", "var/lib/postgresql": USER, "var/lib/etcd": "etcd"}.items():
            (self.disk / path).mkdir(parents=True)
            shutil.chown(self.disk / path, user)

    def start(self) -> None:
        """Boot it. Install the page's packages if the disk is empty, and write its files, which are lost with each kill."""
        super().start()
        if not (self.disk / "opt" / "patroni").exists():
            self.run(INSTALLED + script("Packages"))
        files = script("Files").replace("s/db1/db2/", f"s/db1/{self.name}/").replace("/10.0.0.12/ }", f"/{self.address}/ }}")
        self.run(files)

    def serve(self) -> psutil.Popen:
        """Start etcd and Patroni. The command ends when etcd has a majority: two machines."""
        return psutil.Popen(self.command(script("Start", "systemctl")), stderr=subprocess.DEVNULL)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Return its processes whose names begin with `name`, by default all. There are none after it was killed."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self.process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found += [process] if process.name().startswith(name) else []
        return found

    def standbys(self) -> list[tuple[str, str]] | None:
        """Return the states of the standbys that its PostgreSQL sends to, or None if it is not the primary."""
        with suppress(OSError):
            status = send_request(f"http://{self.address}:8008/patroni", "GET", seconds=2)[1]
            if status.get("role") == "primary":
                return [(standby["state"], standby["sync_state"]) for standby in status.get("replication", [])]
        return None


class Proof:
    def __init__(self, machines: list[DatabaseMachine], nodes: list[Node]) -> None:
        self.machines, self.nodes = machines, nodes
        self.given: dict[int, str] = {}  # the content of the message for each id that a client has seen

    def is_whole(self) -> bool:
        """Return whether there are a primary and two standbys that confirm its commits."""
        standbys = [machine.standbys() for machine in self.machines]
        return [found for found in standbys if found is not None] == [[("streaming", "quorum")] * 2]

    def primary(self) -> DatabaseMachine:
        [primary] = [machine for machine in self.machines if machine.standbys() is not None]
        return primary

    def standby(self) -> DatabaseMachine:
        return next(machine for machine in self.machines if machine is not self.primary())

    @contextmanager
    def event(self, name: str, within: float, *, new_primary: bool) -> Iterator[Load]:
        """Run the block under load. Expect that nothing is lost, and that at most `within` seconds pass without a 201."""
        before = self.primary()
        with ExitStack() as stack:
            load = Load(self.nodes[0], name.replace(" ", "-"), CLIENTS, [node.url for node in self.nodes])
            pollers = [Poller(self.nodes, token) for token in load.tokens.values()]
            for poller in pollers:
                poller.start()
                stack.callback(poller.ending.set)
            stack.enter_context(load)
            load.wait_until_all_go_on(TIMES)
            began = time.monotonic()
            yield load
            wait_until(self.is_whole, WHOLE_WITHIN, "there are a primary and two standbys")
            load.wait_until_all_go_on(TIMES)
        messages = load.expect_nothing_lost(self.nodes[0])
        for poller in pollers:
            for number, content in poller.expect_all_seen(self.nodes[0]):
                expect(self.given.setdefault(number, content) == content, f"The id {number} was given twice")
        away = max(later - earlier for earlier, later in itertools.pairwise([began, *load.acknowledged_at(began)]))
        check(
            f"{name}: no 201 for {away:.1f} s; {messages:,} messages, none lost, none doubled, none missed by pollers, no "
            f"id given twice; responses {as_text(load.outcomes(began))}, the slowest in {load.slowest(began):.1f} s; "
            f"the primary was {before.name}, and is {self.primary().name}",
            away <= within,
            load.slowest(began) <= RESPONSE_WITHIN,
            (self.primary() is not before) == new_primary,
        )

    def kill(self) -> None:
        with self.event("PostgreSQL of the primary killed", FAILOVER_WITHIN, new_primary=False) as load:
            kill_all(self.primary().processes("postgres"))
            load.wait_until_all_go_on(TIMES)
        with self.event("machine of the primary killed", FAILOVER_WITHIN, new_primary=True) as load:
            self.kill_machine(self.primary(), load)
        with self.event("machine of a standby killed", UNNOTICED_WITHIN, new_primary=False) as load:
            self.kill_machine(self.standby(), load)

    @staticmethod
    def kill_machine(machine: DatabaseMachine, load: Load) -> None:
        machine.kill()
        time.sleep(AWAY)
        load.wait_until_all_go_on(TIMES)
        machine.start()
        machine.serve()

    def replace(self) -> None:
        with self.event("machine of a standby replaced by an empty one", UNNOTICED_WITHIN, new_primary=False):
            lost = self.standby()
            lost.kill()
            time.sleep(AWAY)
            self.join(lost, self.primary(), script(REPLACE, "member"))
        with self.event("a standby gets a new copy of the database", UNNOTICED_WITHIN, new_primary=False):
            self.primary().run(script(REPLACE, "reinit").replace("db2", self.standby().name))
            wait_until(lambda: not self.is_whole(), 30, "the copy begins")

    @staticmethod
    def join(machine: DatabaseMachine, member: DatabaseMachine, add: str, missing: str = "") -> None:
        """Start the machine with an empty disk.

        The script `add` adds it to etcd, on a member. The machine `missing` is not in etcd yet.
        """
        machine.lose_disk()
        member.run(add.replace("db2", machine.name).replace("10.0.0.12:2380", f"{machine.address}:2380"))
        machine.start()
        machine.run(script(REPLACE, "existing"))
        if missing:
            machine.run(f"sed -i -E '/INITIAL_CLUSTER=/ {{ s/,?{missing}=[^,]*//; s/=,/=/ }}' /etc/default/etcd")
        machine.serve()

    def freeze(self) -> None:
        name = "machine of the primary frozen and thawed"
        with self.event(name, FAILOVER_WITHIN, new_primary=True) as load, frozen(self.primary().processes()):
            load.wait_until_all_go_on(TIMES)
        etcd = [process for machine in self.machines for process in machine.processes("etcd")]
        with self.event("all etcd frozen and thawed", UNNOTICED_WITHIN, new_primary=False), frozen(etcd):
            time.sleep(AWAY)

    def cut_off(self, name: str, *chains: str) -> None:
        with self.event(name, FAILOVER_WITHIN, new_primary=True) as load, drop_packets(self.primary(), chains):
            load.wait_until_all_go_on(TIMES)

    def switch_over(self) -> None:
        with self.event("switchover", SWITCHOVER_WITHIN, new_primary=True):
            self.primary().run(script("Change the primary"))

    def lose_two(self) -> None:
        """Lose the primary and a standby for good. Ids that clients have seen are not given again."""
        survivor, known = self.standby(), self.given.copy()
        first, second = (machine for machine in self.machines if machine is not survivor)
        for lost in (*self.nodes, first, second):
            lost.kill()
        began = time.monotonic()
        survivor.run(script("Two machines are lost").replace("db3", survivor.name))
        wait_until(lambda: survivor.standbys() is not None, 60, "the machine that is left is the primary")
        self.nodes[0].manage("skip_ids")
        for node in self.nodes:
            node.start()
        with Load(self.nodes[0], "survivors", CLIENTS, [node.url for node in self.nodes]) as load:
            load.wait_until_all_go_on(TIMES)
            seconds = load.acknowledged_at()[0] - began
            add = "".join(line for line in script(REPLACE, "member").splitlines(True) if "member remove" not in line)
            self.join(first, survivor, add, missing=second.name)
            wait_until(lambda: len(survivor.standbys()) == 1, WHOLE_WITHIN, "there is a standby")
            self.join(second, survivor, add)
            wait_until(self.is_whole, WHOLE_WITHIN, "there are a primary and two standbys")
            load.wait_until_all_go_on(TIMES)
        messages = load.expect_nothing_lost(self.nodes[0])
        check(
            f"primary and a standby lost: a 201 after {seconds:.1f} s; {messages:,} new messages, no id given twice, also "
            f"when two new machines became standbys; the primary is {self.primary().name}",
            min(load.acknowledged.values()) > max(known),
            self.primary() is survivor,
        )


@contextmanager
def drop_packets(machine: DatabaseMachine, chains: tuple[str, ...]) -> Iterator[None]:
    """Drop packets from and to the machine during the block, in these chains of iptables."""
    for chain in chains:
        shell("iptables", "-A", chain, "-s", machine.address, "-j", "DROP")
        shell("iptables", "-A", chain, "-d", machine.address, "-j", "DROP")
    try:
        yield
    finally:
        shell("iptables", "--flush")


@contextmanager
def running_proof() -> Iterator[Proof]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare(folder, "127.0.0.1 localhost\n")
        [patroni] = re.findall(r"'(patroni\[.*==.*)'", script("Packages"))
        download_packages(folder / "packages", patroni)
        enter_own_network()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        machines = [stack.enter_context(running(DatabaseMachine(folder, name))) for name in ADDRESSES]
        starts = [machine.serve() for machine in machines]
        expect(not any(start.wait(timeout=90) for start in starts), "etcd and Patroni should start on all machines")
        proof = Proof(machines, [])
        wait_until(proof.is_whole, WHOLE_WITHIN, "there are a primary and two standbys")
        proof.primary().run(script("Start", "patronictl") + script("Start", "createdb"))
        [setting] = [block.content for block in blocks(PAGE) if block.section == "Nodes"]
        url = setting.strip().removeprefix("DATABASE_URL=")
        proof.nodes += [stack.enter_context(running_node(folder, url)) for _ in range(2)]
        yield proof


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM"))  # stops what was started, too
    packages = {"etcd": "etcd-server", "etcdctl": "etcd-client", "iptables": "iptables", "pg_createcluster": "postgresql"}
    require_root_and_programs(packages)
    with running_proof() as proof:
        proof.kill()
        proof.replace()
        proof.freeze()
        proof.cut_off("primary cut off from the other machines", "FORWARD")
        proof.cut_off("primary cut off from the nodes too", "FORWARD", "INPUT", "OUTPUT")
        proof.switch_over()
        proof.lose_two()


if __name__ == "__main__":
    main()
