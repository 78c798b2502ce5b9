"""docs/deploy.md works as it stands: its blocks are run from top to bottom on a Debian of its own, and none loses a request.

That Debian is made of namespaces: this machine's files, with every change kept in memory and thrown away, but processes, a
network and a systemd of its own. The units, nginx, PostgreSQL and logrotate are the real ones. Needs root, and Debian 12
with the packages that the page installs. Its network leads nowhere: the repository is a copy of what is committed here, and
the packages of Python are fetched before.
"""

import ctypes
import http.client
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.databases import ROOT
from benchmarks.proofs.clients import PASSWORD, Client, Load, discrepancies, load, received, register
from benchmarks.proofs.cluster import wait_until
from benchmarks.proofs.node import Node, need

NAME = "messages.example.com"
BLOCK = re.compile(r"^(?:## (.*)|(?:`(/.*)`:\n\n)?```(.*)\n((?:.*\n)*?)```)$", re.MULTILINE)
OPERATOR = "operator"
NOT_HERE = {"certbot": "Let's Encrypt asks from the internet"}  # why not, by a word in the block
TYPED = {  # what is typed after which prompt, by a word in the block
    "createsuperuser": (("Username", OPERATOR), ("Email", ""), ("Password", PASSWORD), ("again", PASSWORD)),
}
PROGRAMS = {
    "setpriv": "util-linux",
    "ip": "iproute2",
    "/lib/systemd/systemd": "systemd",
    "dbus-daemon": "dbus",
    "git": "git",
    "logrotate": "logrotate",
    "nginx": "nginx",
    "openssl": "openssl",
    "pg_createcluster": "postgresql",
    "sqlite3": "sqlite3",
}
NEW_VERSION, SLOW_VERSION = "2.0.0", "2.1.0"
LOCK = "LOCK TABLE blocking_block IN SHARE ROW EXCLUSIVE MODE"
CLIENTS = 6
PAUSE = 0.04  # seconds between two messages of a client
SLOW_CLIENTS = 50  # more than the service has threads
OWN_NETWORK_AND_MOUNTS = 0x40000000 | 0x00020000  # CLONE_NEWNET and CLONE_NEWNS of <sched.h>

# Nothing reaches beyond the namespaces: the kernel's settings are read-only, no device is there that could do harm, and the
# rights to set the clock or to load modules are given up. What this machine was set up to start and to fetch is taken away.
BOOT = r"""
set -eu
folder=$1
mkdir "$folder/machine"
mount -t tmpfs tmpfs "$folder/machine"
cd "$folder/machine"
mkdir changes work root
mount -t overlay -o lowerdir=/,upperdir=changes,workdir=work overlay root
cd root
for empty in dev run tmp srv var/lib/postgresql var/log; do mount -t tmpfs -o mode=755 tmpfs $empty; done
chmod 1777 tmp
mkdir dev/pts dev/shm var/log/nginx var/log/postgresql
chown postgres: var/lib/postgresql var/log/postgresql
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --bind "$folder" mnt
mount --bind "$folder/hosts" etc/hosts
rm -rf etc/systemd/system/*.wants etc/postgresql/* etc/nginx/sites-enabled/* etc/apt/sources.list* var/lib/apt/lists/*
rm -rf etc/xdg/pip root/.config/pip root/.pip
ln -s ../sites-available/default etc/nginx/sites-enabled/default
cp --remove-destination mnt/pip.conf etc/pip.conf
cp --remove-destination mnt/gitconfig etc/gitconfig
pivot_root . mnt/machine
umount -l mnt/machine
exec setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog,-mknod,-audit_control,-audit_read,-wake_alarm \
    env -i container=proof PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=basic.target
"""
ENTER = """
echo $$ > "$1/cgroup.procs"
exec setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount --uts --ipc --cgroup sh -c "$2" boot "$3"
"""
INSTALLED = """
pg_createcluster 15 main
systemctl start nginx postgresql@15-main
"""  # as the packages do when they are installed on a bare machine

MIGRATION = """\
from django.db import migrations


def change(apps, editor):
    if editor.connection.vendor == "postgresql":
        editor.execute("{statement}")


class Migration(migrations.Migration):
    dependencies = [("messageservice", "{last}")]

    operations = [migrations.RunPython(change)]
"""


@dataclass
class Block:
    section: str
    path: str  # of the file that it goes into; empty for one that is run
    language: str
    content: str
    done: bool = False

    def reason(self) -> str:
        """Why it is not run; empty where it is."""
        return next((reason for word, reason in NOT_HERE.items() if word in self.content), "")


def blocks() -> list[Block]:
    found, section = [], ""
    for heading, path, language, content in BLOCK.findall((ROOT / "docs" / "deploy.md").read_text()):
        section = heading or section
        if path or language == "sh":
            found.append(Block(section, path, language, content))
    return found


class Machine:
    """A Debian of its own, in which the page is followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blocks = blocks()
        self.control_group = control_groups() / f"deploy-{os.getpid()}"
        self.process: psutil.Popen | None = None

    def start(self) -> None:
        self.control_group.mkdir()
        command = ["sh", "-euc", ENTER, "enter", str(self.control_group), BOOT, str(self.folder)]
        self.process = psutil.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self.is_up, 30, "a systemd of its own runs")

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            sys.exit("A systemd of its own does not start in namespaces of this machine.")
        children = self.process.children()
        return bool(children) and self.attempt("systemctl is-system-running").stdout.strip() in ("running", "degraded")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()  # and with it all processes of its namespace
            self.process.wait(timeout=10)
        wait_until(self.is_gone, 10, "the processes of the machine have ended")

    def is_gone(self) -> bool:
        with suppress(OSError):
            for group in sorted(self.control_group.rglob("*/"), reverse=True):
                group.rmdir()
            self.control_group.rmdir()
        return not self.control_group.exists()

    def command(self, script: str) -> list[str]:
        """What runs the script there, as if it was pasted into root's shell."""
        init = self.process.children()[0].pid
        enter = f"nsenter --target {init} --mount --uts --ipc --pid --cgroup --root --wdns=/root"
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = f"env --ignore-environment HOME=/root TERM=dumb LANG=C.UTF-8 PATH={path}"
        return [*enter.split(), *environment.split(), "bash", "-ec", script]

    def attempt(self, script: str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(script), stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def run(self, script: str) -> str:
        """What the script prints; ends the proof where a command of it fails."""
        result = self.attempt(script)
        if result.returncode:
            journal = self.attempt("journalctl --no-pager --lines 40").stdout
            sys.exit(f"{script}\nfailed: {result.stdout[-2000:]} {result.stderr[-2000:]}\n{journal}")
        return result.stdout

    def type(self, script: str, answers: tuple[tuple[str, str], ...]) -> None:
        """Run the script at a terminal, and type an answer after each of the prompts."""
        terminal, far_end = pty.openpty()
        process = subprocess.Popen(
            self.command(script), stdin=far_end, stdout=far_end, stderr=far_end, start_new_session=True
        )
        os.close(far_end)
        for prompt, answer in answers:
            seen = ""
            while prompt not in seen:
                if not select.select([terminal], [], [], 30)[0]:
                    sys.exit(f"{script} does not ask for {prompt}: {seen}")
                seen += os.read(terminal, 1000).decode()
            os.write(terminal, f"{answer}\n".encode())
        if process.wait(timeout=30):
            sys.exit(f"{script} failed: {os.read(terminal, 1000).decode()}")
        os.close(terminal)

    @contextmanager
    def holding(self, statement: str) -> Iterator[None]:
        """With what the statement locks in the service's database locked."""
        command = self.command("cd / && runuser -u postgres -- psql --quiet --dbname=messaging")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            holder.stdin.write(f"BEGIN; {statement};\n\\echo locked\n")
            holder.stdin.flush()
            expect("the lock", holder.stdout.readline(), "locked\n")
            yield
            holder.stdin.close()  # psql ends, and the transaction with it

    def section(self, name: str) -> list[Block]:
        return [block for block in self.blocks if block.section == name and not block.reason()]

    def follow(self, *blocks: Block) -> None:
        """Write those that are a file, run the others."""
        for block in blocks:
            self.put_to_use(block)
            block.done = True

    def put_to_use(self, block: Block) -> None:
        answers = next((answers for word, answers in TYPED.items() if word in block.content), None)
        if block.path:
            self.run(f"cat > {block.path} <<'END OF BLOCK'\n{block.content}END OF BLOCK\n")
        elif answers:
            self.type(block.content, answers)
        else:
            self.run(block.content)


class Site(Node):
    """The service in the machine, as clients reach it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.url = f"https://{NAME}"

    def manage(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.machine.attempt(shlex.join(("messaging", *arguments)))

    def version(self) -> str:
        return self.answer("GET", "/api/schema")["info"]["version"]


class Unhurried(Client):
    """Stays below the limit of messages a minute that the page leaves on."""

    def send(self, content: str, receiver: str, key: str) -> bool:
        time.sleep(PAUSE)
        return super().send(content, receiver, key)


class Knocking(threading.Thread):
    """Makes a new connection to the service itself, again and again, and counts those that are refused or get no answer."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self.answered = 0
        self.failed: list[str] = []

    def run(self) -> None:
        while not self.stopping.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)
            try:
                connection.request("GET", "/healthz")
                self.answered += connection.getresponse().status == 200
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
            connection.close()
            time.sleep(0.02)

    def __enter__(self) -> "Knocking":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self.join(timeout=40)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("Only root can make a machine of its own: sudo dev/bin/python -m benchmarks.proofs.deploy")
    for program, package in PROGRAMS.items():
        need(program, package)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Ended by SIGTERM"))
    with machine_of_its_own() as machine:
        site = Site(machine)
        for section in ("Packages, user, database", "Settings", "Service", "A release", "HTTPS"):
            machine.follow(*machine.section(section))
        trust(machine)
        backup, restoring = machine.section("Backup and restore")
        look_around(machine)
        try_nginx(machine)
        with load(site.url, register(site, [f"user{number}" for number in range(CLIENTS)]), Unhurried) as at_work:
            upgrade(machine, site, at_work)
            rotate(machine)
            acknowledged = back_up(machine, at_work, [backup])
            machine.follow(*machine.section("Monitoring"))
        promise_nothing_is_lost(site, at_work)
        count_log_lines(machine, at_work)
        restore(machine, site, at_work, acknowledged, [restoring])
        upgrade_slowly(machine, site)
        try_sqlite(machine, site)
        say_what_was_run(machine)


@contextmanager
def machine_of_its_own() -> Iterator[Machine]:
    """And this process in its network, under its names."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as cleaning:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "hosts").write_text(f"127.0.0.1 localhost {NAME}\n")
        (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /mnt/packages\n")
        (folder / "gitconfig").write_text(
            '[url "/mnt/repository"]\ninsteadOf = https://git.example.com/messaging.git\n[safe]\ndirectory = *\n'
        )
        shell("git", "clone", "--quiet", "--bare", str(ROOT), str(folder / "repository"))
        requirements = str(ROOT / "requirements.txt")
        shell(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--dest",
            str(folder / "packages"),
            "--requirement",
            requirements,
        )
        if ctypes.CDLL(None, use_errno=True).unshare(OWN_NETWORK_AND_MOUNTS):
            sys.exit(f"Namespaces are not allowed here: {os.strerror(ctypes.get_errno())}")
        shell("mount", "--make-rprivate", "/")
        shell("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
        shell("ip", "link", "set", "lo", "up")
        machine = Machine(folder)
        cleaning.callback(machine.stop)
        machine.start()
        machine.run(INSTALLED)
        yield machine


def shell(*command: str) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        sys.exit(f"{shlex.join(command)} failed: {result.stdout}")


def control_groups() -> Path:
    """Where the kernel shows control groups of version 2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(folder)
    sys.exit("This machine has no control groups of version 2")


def say(finding: str) -> None:
    print(f"- {finding}", flush=True)


def expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        sys.exit(f"{what}: {found!r}, not {wanted!r}")


def trust(machine: Machine) -> None:
    """Have this process believe the certificate."""
    certificate = machine.folder / "certificate.pem"
    certificate.write_text(machine.run("cat /etc/messaging-tls/fullchain.pem"))
    os.environ["SSL_CERT_FILE"] = str(certificate)


def look_around(machine: Machine) -> None:
    units = [block.path for block in machine.blocks if block.path.startswith("/etc/systemd/")]
    checked = machine.attempt(f"systemd-analyze verify {shlex.join(units)}")
    expect("systemd-analyze verify", (checked.returncode, checked.stdout + checked.stderr), (0, ""))
    exposure = re.search(r"exposure level.*: ([0-9.]+)", machine.run("systemd-analyze security messaging --no-pager"))[1]
    say(f"systemd-analyze verify finds nothing in {len(units)} units; security: exposure {exposure} of 10")

    expect("mode of the settings", machine.run("stat -c '%a %U' /etc/messaging.env"), "600 root\n")
    expect("mode of the logs", machine.run("stat -c '%a %U' /var/log/messaging/requests.log"), "600 messaging\n")
    for user, script in {
        "nobody": "grep -qs SECRET[_]KEY /proc/*/environ /proc/*/cmdline || cat /var/log/messaging/requests.log",
        "messaging": "test -w /srv/messaging/current/manage.py || cat /etc/messaging.env",
    }.items():
        if not machine.attempt(f"runuser -u {user} -- sh -c {shlex.quote(script)}").returncode:
            sys.exit(f"As {user}, this should not be possible: {script}")
    status, _, answer = exchange("POST", "/api/auth/login", {"username": OPERATOR, "password": PASSWORD})
    expect("log-in of the operator", (status, answer["user"]["username"]), (200, OPERATOR))
    say("other users see no setting and no log, the service cannot change its own code, createsuperuser made an operator")


def try_nginx(machine: Machine) -> None:
    status, headers, _ = exchange("GET", "/api/message?page=1", scheme="http")
    expect("http", (status, headers["Location"]), (308, f"https://{NAME}/api/message?page=1"))

    for what, size in (("service", 3 * 2**19), ("nginx", 3 * 2**20)):
        status, headers, answer = exchange("POST", "/api/auth/register", {"username": "x" * size}, {"X-Request-ID": "mine"})
        expect(f"too large for the {what}", (status, answer), (413, {"detail": "The body is larger than 1 MiB."}))
        expect(f"request id of the {what}", headers["X-Request-ID"], "mine")
    for what, path, header, wanted in (("URI", "/" + "x" * 10_000, "", 414), ("header", "/", "x" * 40_000, 431)):
        status, headers, answer = exchange("GET", path, headers={"X-Long": header})
        expect(f"{what} too long", (status, headers["Content-Type"], [*answer]), (wanted, "application/json", ["detail"]))

    machine.run("systemctl stop messaging.socket messaging.service")
    status, headers, answer = exchange("GET", "/api/message")
    expect("stopped", (status, answer, headers["Retry-After"]), (503, {"detail": "Something went wrong"}, "5"))
    machine.run("systemctl start messaging")
    expect("started", exchange("GET", "/readyz")[0], 200)

    exchange("GET", "/healthz", headers={"X-Forwarded-For": "192.0.2.1", "X-Request-ID": "forged"})
    line = machine.run("grep forged /var/log/messaging/requests.log")
    expect("address in the log", json.loads(line)["address"], "127.0.0.1")

    context = ssl.create_default_context()
    head = f"POST /api/auth/register HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 100000\r\n\r\n{{".encode()
    with ExitStack() as stack:
        for _ in range(SLOW_CLIENTS):
            slow = stack.enter_context(context.wrap_socket(socket.create_connection((NAME, 443)), server_hostname=NAME))
            slow.sendall(head)
        began = time.monotonic()
        expect("beside slow clients", exchange("GET", "/readyz")[0], 200)
        seconds = time.monotonic() - began
    say(
        "nginx: http leads to https, JSON for 413, 414, 431 and 503 with request id, no forged address in the log; "
        f"beside {SLOW_CLIENTS} clients that do not finish their bodies an answer took {seconds * 1000:.0f} ms"
    )


def exchange(
    method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, scheme: str = "https"
) -> tuple[int, http.client.HTTPMessage, Any]:
    """Status, headers and, where it is JSON, body of an answer."""
    connection = (http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection)(NAME, timeout=30)
    connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json", **(headers or {})})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.headers["Content-Type"] == "application/json"
    return response.status, response.headers, json.loads(content) if is_json else content


def upgrade(machine: Machine, site: Site, at_work: Load) -> None:
    """To a release with a new version and a new column, and back."""
    there, back = machine.section("Upgrade")
    before = site.version()
    publish(machine, NEW_VERSION, "ALTER TABLE messageservice_message ADD COLUMN subject text NOT NULL DEFAULT ''")
    for what, step, version in (("upgraded", there, NEW_VERSION), ("back to the release before", back, before)):
        seen = under_load(machine, at_work, [step])
        expect(f"version, {what}", site.version(), version)
        say(f"{what}: {seen}")


def upgrade_slowly(machine: Machine, site: Site) -> None:
    """To a release with a migration that needs a lock, which somebody holds at first, and then takes its time."""
    there, _ = machine.section("Upgrade")
    before = site.version()
    publish(machine, SLOW_VERSION, f"{LOCK}; SELECT pg_sleep(6)")
    with machine.holding(LOCK):
        failed = machine.attempt(there.content)
    if not failed.returncode or "lock timeout" not in failed.stderr:
        sys.exit(f"The upgrade did not fail as it should: {failed.stdout} {failed.stderr}")
    expect("version after an upgrade that failed", site.version(), before)
    machine.follow(there)
    expect("version after the upgrade", site.version(), SLOW_VERSION)
    expect("releases", len(machine.run("ls -d /srv/messaging/2*").splitlines()), 3)
    say(
        "a migration that waited for a lock: the upgrade ended and the old release served on; once the lock was free it "
        "took its 6 s and went through"
    )


def publish(machine: Machine, version: str, statement: str) -> None:
    """Commit a release that names its version in the description of the API, and that migrates by the statement."""
    tree = machine.folder / "tree"
    shell("git", "clone", "--quiet", str(machine.folder / "repository"), str(tree))
    settings = tree / "config" / "settings.py"
    settings.write_text(re.sub('"VERSION": ".*"', f'"VERSION": "{version}"', settings.read_text()))
    migrations = tree / "messageservice" / "migrations"
    last = max(path.stem for path in migrations.glob("0*.py"))
    migration = MIGRATION.format(last=last, statement=statement)
    (migrations / f"{int(last[:4]) + 1:04}_of_the_proof.py").write_text(migration)
    git = ("git", "-C", str(tree), "-c", "user.name=proof", "-c", "user.email=proof@example.com")
    shell(*git, "add", "--all")
    shell(*git, "commit", "--quiet", "--message", version)
    shell(*git, "push", "--quiet", "origin", "HEAD")
    shutil.rmtree(tree)


def under_load(machine: Machine, at_work: Load, steps: list[Block]) -> str:
    """What clients saw while the blocks were run; ends the proof where one was refused or cut off."""
    for client in at_work.clients:
        client.ledger.slowest = 0.0
    before = at_work.answers()
    began = time.monotonic()
    with Knocking() as knocking:
        machine.follow(*steps)
        time.sleep(1)
    seconds = time.monotonic() - began
    answers = at_work.answers() - before
    if [*answers] != [201] or knocking.failed:
        sys.exit(f"{steps[-1].content}\nunder load: {answers}, new connections: {knocking.failed[:3]}")
    return (
        f"{answers.total()} messages and {knocking.answered} new connections in {seconds:.0f} s, none refused or cut off, "
        f"the slowest message {at_work.slowest():.1f} s"
    )


def rotate(machine: Machine) -> None:
    """Twice, so that a file is compressed too."""
    for _ in range(2):
        time.sleep(1)
        machine.run("logrotate --force /etc/logrotate.d/messaging")
    time.sleep(1)
    files = machine.run("cd /var/log/messaging && stat -c '%n %a %U' requests.log*")
    expect("rotated", files, "".join(f"requests.log{end} 600 messaging\n" for end in ("", ".1", ".2.gz")))


def count_log_lines(machine: Machine, at_work: Load) -> None:
    lines = machine.run("cd /var/log/messaging && zcat requests.log.2.gz && cat requests.log.1 requests.log").splitlines()
    sent = [
        line
        for line in map(json.loads, lines)
        if (line["method"], line["path"], line["status"]) == ("POST", "/api/message", 201)
    ]
    expect("lines of sent messages", len(sent), at_work.acknowledged())
    say(f"logrotate twice under load: each of {len(sent)} messages sent has its line in requests.log, .1 and .2.gz")


def promise_nothing_is_lost(site: Site, at_work: Load) -> None:
    found = discrepancies(site, at_work)
    if found:
        sys.exit("\n".join(found[:20]))
    say(f"all {at_work.acknowledged()} acknowledged messages are stored once")


def back_up(machine: Machine, at_work: Load, steps: list[Block]) -> dict[str, int]:
    """The ids of the messages that the backup must hold, by content."""
    acknowledged = {}
    for client in at_work.clients:
        acknowledged |= client.ledger.acknowledged
    say(f"backup: {under_load(machine, at_work, steps)}")
    return acknowledged


def restore(machine: Machine, site: Site, at_work: Load, acknowledged: dict[str, int], steps: list[Block]) -> None:
    began = time.monotonic()
    machine.follow(*steps)
    seconds = time.monotonic() - began
    stored = {message["content"]: message["id"] for token in at_work.tokens.values() for message in received(site, token)}
    lost = acknowledged.items() - stored.items()
    if lost:
        sys.exit(f"Acknowledged before the backup, and not restored: {sorted(lost)[:20]}")

    sender, receiver, *_ = at_work.tokens
    seen = max(max(client.ledger.acknowledged.values()) for client in at_work.clients)
    message = site.answer("POST", "/api/message", {"receiver": receiver, "content": "after"}, at_work.tokens[sender])
    page = site.answer("GET", f"/api/message/received?after={seen}", token=at_work.tokens[receiver])
    expect("caught up", [one["id"] for one in page["results"]], [message["id"]])
    say(
        f"restored in {seconds:.0f} s: all {len(acknowledged)} messages acknowledged before the backup are there; "
        "who catches up by id finds the next message"
    )


def try_sqlite(machine: Machine, site: Site) -> None:
    switch, backup, restoring = machine.section("SQLite in place of PostgreSQL")
    machine.follow(switch)
    with load(site.url, register(site, [f"file{number}" for number in range(CLIENTS)]), Unhurried) as at_work:
        time.sleep(3)
        acknowledged = back_up(machine, at_work, [backup])
    promise_nothing_is_lost(site, at_work)
    restore(machine, site, at_work, acknowledged, [restoring])
    files = machine.run("cd /var/lib/messaging && stat -c '%a %U' db.sqlite3* backup-*")
    expect("modes of the files", {*files.splitlines()}, {"600 messaging"})


def say_what_was_run(machine: Machine) -> None:
    done = [block for block in machine.blocks if block.done]
    files = sum(bool(block.path) for block in done)
    say(f"run as they stand: {len(done) - files} blocks, and {files} files written")
    for block in machine.blocks:
        if not block.done:
            say(f"not run, {block.reason()}: {block.content.splitlines()[0]}")


if __name__ == "__main__":
    main()
