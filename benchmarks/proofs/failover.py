"""Shows what docs/high-availability.md promises: whatever fails, nothing acknowledged is lost, and sends soon go on.

Three machines made of namespaces run PostgreSQL, Patroni and etcd with the files of that page, in a network of their own.
Clients send and poll through two nodes of the service while the primary is killed, frozen and cut off, a standby is killed,
the primary changes in order, and all etcd freeze. Needs root, and Debian's etcd-server, etcd-client, iptables, postgresql.
"""

import itertools
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.proofs.checks import check, expect, require_root_and_programs, shell, wait_until
from benchmarks.proofs.clients import Load, Poller, as_text
from benchmarks.proofs.pages import blocks, steps
from benchmarks.proofs.processes import USER, Node, enter_own_network, frozen, kill_all, running, running_node
from config.testing.http_client import send_request
from config.testing.service import ROOT

PAGE = "high-availability.md"
PATRONI = ROOT / "benchmarks" / "data" / "patroni"  # made by the Makefile
ADDRESSES = {"db1": "10.0.0.11", "db2": "10.0.0.12", "db3": "10.0.0.13"}
CLIENTS = 8
TIMES = 20  # that each client has to be acknowledged before, during and after an event
AWAY = 30  # seconds, longer than the page's ttl
FAILOVER_WITHIN, SWITCHOVER_WITHIN, UNNOTICED = 40, 15, 4  # seconds without a 201
RESPONSE_WITHIN = 10  # seconds until every request has a response
WHOLE_WITHIN = 180  # seconds until a machine that came back is a standby

# A machine's /etc, /opt and /run are lost when it is killed. Its disk is its folder, which stays.
BOOT = r"""
set -eu
folder=$1 patroni=$2
mount -t tmpfs tmpfs /mnt
mkdir /mnt/changes /mnt/work
mount -t overlay -o lowerdir=/etc,upperdir=/mnt/changes,workdir=/mnt/work overlay /etc
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /opt/patroni
mount --bind "$patroni" /opt/patroni
mount -t tmpfs -o mode=1777 tmpfs /run/postgresql
mount --bind "$folder/postgresql" /var/lib/postgresql
mount --bind "$folder/etcd" /var/lib/etcd
"""
# Starts etcd and Patroni as the page's units do.
SERVE = r"""
runuser -u etcd -- env ETCD_DATA_DIR=/var/lib/etcd/default $(cat /etc/default/etcd) etcd >> "$folder/etcd/log" 2>&1 &
cd /
exec < /dev/null
runuser -u postgres -- $(sed -n s/^ExecStart=//p /etc/systemd/system/patroni.service) >> "$folder/postgresql/log" 2>&1 &
wait
"""


def script(section: str, word: str = "") -> str:
    """Return a script of the section's blocks that contain the word: it writes the files and runs the commands."""
    return "".join(block.script() for block in steps(PAGE, section) if word in block.content)


class Machine:
    """One of the three machines. Its network and its disk stay when its processes are killed."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.address, self.folder = name, ADDRESSES[name], folder / name
        self.make_disk()
        self.network = psutil.Popen(shlex.split("setpriv --pdeathsig KILL unshare --net sleep infinity"))
        wait_until(lambda: self.network.name() == "sleep", 10, "a machine has a network")
        shell("ip", "link", "add", name, "type", "veth", "peer", "eth0", "netns", str(self.network.pid))
        shell("ip", "address", "add", "10.0.0.1", "peer", self.address, "dev", name)
        shell("ip", "link", "set", name, "up")
        own = f"ip address add {self.address} peer 10.0.0.1 dev eth0; ip route add 10.0.0.0/24 via 10.0.0.1"
        shell(*self.inside("sh", "-euc", f"ip link set lo up; ip link set eth0 up; {own}"))

    def make_disk(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for part, user in {"postgresql": USER, "etcd": "etcd"}.items():
            (self.folder / part).mkdir(parents=True)
            shutil.chown(self.folder / part, user)

    def inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", *command]

    def start(self, changes: str = "") -> None:
        """Write the page's files, run the script `changes`, and start etcd and Patroni."""
        files = script("Files").replace("s/db1/db2/", f"s/db1/{self.name}/").replace("/10.0.0.12/ }", f"/{self.address}/ }}")
        command = shlex.split("setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --mount-proc sh -c")
        arguments = ("machine", str(self.folder), str(PATRONI))
        self.process = psutil.Popen(self.inside(*command, BOOT + files + changes + SERVE, *arguments))
        wait_until(lambda: bool(self.process.children()), 10, "a machine boots")

    def enter(self, script: str) -> None:
        """Run the script on the machine."""
        init = self.process.children()[0].pid
        shell("nsenter", f"--target={init}", "--net", "--mount", "--pid", "sh", "-euc", script)

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Return its processes whose names begin with `name`, by default all. There are none after it was killed."""
        found = []
        with suppress(psutil.NoSuchProcess):
            for process in self.process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    found += [process] if process.name().startswith(name) else []
        return found

    def kill(self) -> None:
        """Kill all its processes at the same moment."""
        kill_all([*self.processes(), self.process])

    def standbys(self) -> list[tuple[str, str]] | None:
        """Return the states of the standbys that its PostgreSQL sends to, or None if it is not the primary."""
        with suppress(OSError):
            status = send_request(f"http://{self.address}:8008/patroni", "GET", seconds=2)[1]
            if status.get("role") == "primary":
                return [(standby["state"], standby["sync_state"]) for standby in status.get("replication", [])]
        return None


class Proof:
    def __init__(self, machines: list[Machine], nodes: list[Node]) -> None:
        self.machines, self.nodes = machines, nodes
        self.given: dict[int, str] = {}  # the content of the message for each id that a client has seen

    def is_whole(self) -> bool:
        """Return whether there are a primary and two standbys that confirm its commits."""
        standbys = [machine.standbys() for machine in self.machines]
        return [found for found in standbys if found is not None] == [[("streaming", "quorum")] * 2]

    def primary(self) -> Machine:
        [primary] = [machine for machine in self.machines if machine.standbys() is not None]
        return primary

    def standby(self) -> Machine:
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
        with self.event("machine of a standby killed", UNNOTICED, new_primary=False) as load:
            self.kill_machine(self.standby(), load)

    @staticmethod
    def kill_machine(machine: Machine, load: Load) -> None:
        machine.kill()
        time.sleep(AWAY)
        load.wait_until_all_go_on(TIMES)
        machine.start()

    def replace(self) -> None:
        with self.event("machine of a standby replaced by an empty one", UNNOTICED, new_primary=False):
            lost = self.standby()
            lost.kill()
            time.sleep(AWAY)
            lost.make_disk()
            section = "Replace a machine"
            leave_and_join = (
                script(section, "member").replace("db2", lost.name).replace("10.0.0.12:2380", f"{lost.address}:2380")
            )
            self.primary().enter(leave_and_join)
            lost.start(script(section, "existing"))
        with self.event("a standby gets a new copy of the database", UNNOTICED, new_primary=False):
            self.primary().enter(script(section, "reinit").replace("db2", self.standby().name))
            wait_until(lambda: not self.is_whole(), 30, "the copy begins")

    def freeze(self) -> None:
        name = "machine of the primary frozen and thawed"
        with self.event(name, FAILOVER_WITHIN, new_primary=True) as load, frozen(self.primary().processes()):
            load.wait_until_all_go_on(TIMES)
        etcd = [process for machine in self.machines for process in machine.processes("etcd")]
        with self.event("all etcd frozen and thawed", UNNOTICED, new_primary=False), frozen(etcd):
            time.sleep(AWAY)

    def cut_off(self, name: str, *chains: str) -> None:
        with self.event(name, FAILOVER_WITHIN, new_primary=True) as load, dropped_packets(self.primary(), chains):
            load.wait_until_all_go_on(TIMES)

    def switch_over(self) -> None:
        with self.event("switchover", SWITCHOVER_WITHIN, new_primary=True):
            self.primary().enter(script("Change the primary"))


@contextmanager
def dropped_packets(machine: Machine, chains: tuple[str, ...]) -> Iterator[None]:
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
        folder.chmod(0o755)
        enter_own_network()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        machines = [stack.enter_context(running(Machine(folder, name))) for name in ADDRESSES]
        proof = Proof(machines, [])
        wait_until(proof.is_whole, WHOLE_WITHIN, "there are a primary and two standbys")
        proof.primary().enter(script("Start", "createdb"))
        [setting] = [block.content for block in blocks(PAGE) if block.section == "Nodes"]
        url = setting.strip().removeprefix("DATABASE_URL=")
        proof.nodes += [stack.enter_context(running_node(folder, url)) for _ in range(2)]
        yield proof


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM"))  # stops what was started, too
    expect(PATRONI.exists(), "Patroni is missing: make benchmarks/data/patroni/installed")
    packages = {"etcd": "etcd-server", "etcdctl": "etcd-client", "iptables": "iptables", "pg_createcluster": "postgresql"}
    require_root_and_programs(packages)
    with running_proof() as proof:
        proof.kill()
        proof.replace()
        proof.freeze()
        proof.cut_off("primary cut off from the other machines", "FORWARD")
        proof.cut_off("primary cut off from the nodes too", "FORWARD", "INPUT", "OUTPUT")
        proof.switch_over()


if __name__ == "__main__":
    main()
