"""Shows that docs/deploy.md works: its blocks are run from top to bottom on a Debian machine, and none loses a request.

The machine is made of namespaces. The units, nginx, PostgreSQL, logrotate and certbot are the real ones. Needs root, and
Debian 12 with the packages that the page installs, and with pebble. The repository is a copy of what is committed here.
"""

import json
import os
import re
import shlex
import socket
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.proofs.checks import check, download_packages, expect, require_root_and_programs, shell, wait_until
from benchmarks.proofs.clients import PASSWORD, Load
from benchmarks.proofs.machine import Machine, prepare
from benchmarks.proofs.pages import Block, blocks, steps
from benchmarks.proofs.processes import Node, enter_own_network, running
from config.testing.service import ROOT

NAME = "messages.example.com"
PAGE = "deploy.md"
IN_A_CONTAINER = "In a container"  # the section that benchmarks.proofs.container runs
RECOVERY = ("Point-in-time recovery", "Streaming SQLite")  # the sections that benchmarks.proofs.recovery runs
CLIENTS = 6
TIMES = 5  # that each client has to be acknowledged before and after an event
PAUSE = 0.05  # seconds between two messages of a client, for the limit that the page leaves on

INSTALLED = """
pg_createcluster 15 main
systemctl start nginx postgresql@15-main
"""  # as the packages do when they are installed on a bare machine
# certbot gets certificates from Pebble, the test server of Let's Encrypt, and does not ask for an email address.
CERTIFICATE_AUTHORITY = """
mkdir /run/pebble
cd /run/pebble
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -addext subjectAltName=DNS:localhost \
    -keyout key.pem -out certificate.pem
cat > config.json <<'END'
{"pebble": {"listenAddress": "127.0.0.1:14000", "managementListenAddress": "127.0.0.1:15000", "httpPort": 80, "tlsPort": 443,
    "certificate": "certificate.pem", "privateKey": "key.pem"}}
END
systemd-run --quiet --working-directory=/run/pebble --setenv=PEBBLE_VA_NOSLEEP=1 pebble -config config.json
cat >> /etc/letsencrypt/cli.ini <<'END'
server = https://localhost:14000/dir
no-verify-ssl = true
non-interactive = true
agree-tos = true
register-unsafely-without-email = true
END
"""

MIGRATION = """\
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("messageservice", "{last}")]
    operations = [migrations.RunSQL("{statement}")]
"""


class Site(Node):
    """The service on the machine, at the URL that clients use."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.url = machine, f"https://{NAME}"

    def manage(self, *arguments: str) -> str:
        return self.machine.run(shlex.join(("messaging", *arguments)))

    def load(self, names: str) -> Load:
        return Load(self, names, CLIENTS, pause=PAUSE, keep=False)

    def version(self) -> str:
        return self.get("/api/schema")["info"]["version"]


class Proof:
    def __init__(self, machine: Machine) -> None:
        self.machine, self.site = machine, Site(machine)

    def install(self) -> None:
        self.machine.run(CERTIFICATE_AUTHORITY)
        for section in ("Packages, user, database", "Settings", "Service", "A release", "HTTPS"):
            self.machine.follow(*steps(PAGE, section))
        issuer = self.machine.folder / "issuer.pem"
        issuer.write_text(self.machine.run("curl -sSk https://localhost:15000/roots/0"))
        os.environ["SSL_CERT_FILE"] = str(issuer)
        first = self.certificate()
        self.machine.run("certbot renew --force-renewal --no-random-sleep-on-renew")
        seconds = wait_until(lambda: self.certificate() != first, 10, "nginx uses the renewed certificate")
        check(f"certbot got a certificate, and nginx used the renewed one after {seconds:.1f} s")
        paths = [Path(block.path) for block in blocks(PAGE) if block.section not in RECOVERY]
        units = [path.name.replace("@", "@8000") for path in paths if path.parent == Path("/etc/systemd/system")]
        faults = self.machine.attempt(f"systemd-analyze verify {shlex.join(units)}").stderr
        modes = self.machine.run("stat -c '%a %U' /etc/messaging.env /var/log/messaging/requests.log")
        forbidden = {
            "nobody": "grep -qs SECRET[_]KEY /proc/*/environ /proc/*/cmdline || cat /var/log/messaging/requests.log",
            "messaging": "test -w /srv/messaging/current/manage.py || cat /etc/messaging.env",
        }
        tried = [self.machine.attempt(f"runuser -u {user} -- sh -c '{script}'") for user, script in forbidden.items()]
        self.site.post("/api/auth/login", {"username": "operator", "password": PASSWORD})
        with urllib.request.urlopen(f"http://{NAME}/readyz") as response:
            expect(response.url == f"https://{NAME}/readyz", f"HTTP leads to {response.url}")
        too_large = self.site.request("POST", "/api/auth/register", {"username": "x" * 3 * 2**20})
        check(
            f"installed: no fault in {len(units)} units{faults}, other users see no setting and no log, the service cannot "
            f"change its code; nginx rejects a large body with {too_large}",
            not faults,
            modes == "600 root\n600 messaging\n",
            all(attempt.returncode for attempt in tried),
            too_large == (413, {"detail": "The body is larger than 1 MiB."}),
        )

    def certificate(self) -> str:
        """Return the certificate that nginx uses."""
        context = ssl.create_default_context()
        with (
            socket.create_connection((NAME, 443)) as connection,
            context.wrap_socket(connection, server_hostname=NAME) as tls,
        ):
            return ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True))

    def upgrade(self, load: Load) -> None:
        """Run what the page has for a running service. Clients should notice nothing."""
        upgrade, back = steps(PAGE, "Upgrade")
        before = self.site.version()
        self.publish("1.9.9", "SELECT 1 / 0")
        with load.event("an upgrade that fails at its migration", TIMES, 0):
            expect(self.machine.attempt(upgrade.content).returncode != 0, "It should fail")
            expect(self.site.version() == before, "The old release should go on serving")
        self.publish("2.0.0", "ALTER TABLE messageservice_message ADD COLUMN subject text NOT NULL DEFAULT ''")
        with load.event("an upgrade", TIMES, 0):
            self.machine.follow(upgrade)
            expect(self.site.version() == "2.0.0", f"{self.site.version()} serves after the upgrade")
        with load.event("back to the release before", TIMES, 0):
            self.machine.follow(back)
            expect(self.site.version() == before, f"{self.site.version()} serves after the way back")
        with load.event("logrotate, twice", TIMES, 0):
            for _ in range(2):
                time.sleep(1)
                self.machine.run("logrotate --force /etc/logrotate.d/messaging")
        timer = self.machine.run("systemctl show --property TimersCalendar logrotate.timer")
        self.machine.run("truncate --size 1100M /var/log/messaging/debug.log && systemctl start logrotate")
        size = self.machine.run("stat --format %s /var/log/messaging/debug.log.1")
        check(
            f"the hourly logrotate rotates a log of {int(size) / 2**30:.1f} GB that is new today",
            timer.startswith("TimersCalendar={ OnCalendar=*-*-* *:00:00 "),
            int(size) == 1100 * 2**20,
        )

    def publish(self, version: str, statement: str) -> None:
        """Commit a release that has this version in its schema, and a migration with the statement."""
        tree = self.machine.folder / version
        shell("git", "clone", "--quiet", str(self.machine.folder / "repository"), str(tree))
        settings, migrations = tree / "config" / "settings.py", tree / "messageservice" / "migrations"
        settings.write_text(re.sub('"VERSION": ".*"', f'"VERSION": "{version}"', settings.read_text()))
        last = max(path.stem for path in migrations.glob("0*.py"))
        (migrations / "9999_of_the_proof.py").write_text(MIGRATION.format(last=last, statement=statement))
        git = ("git", "-C", str(tree), "-c", "user.name=proof", "-c", "user.email=proof@example.com")
        shell(*git, "add", "--all")
        shell(*git, "commit", "--quiet", "--message", version)
        shell(*git, "push", "--quiet", "origin", "HEAD")

    def back_up_and_restore(self, name: str, backup: Block, restore: Block, before: Callable[[Load], None]) -> int:
        """Back up and restore a database, with `before` and a backup under load. Returns how many messages clients sent."""
        with self.site.load(name) as load:
            before(load)
            held = load.acknowledged.copy()
            with load.event(f"a backup of {name}", TIMES, 0):
                self.machine.follow(backup)
        sent = load.expect_nothing_lost(self.site)
        self.machine.follow(restore)
        stored = load.stored(self.site)
        receiver, token = next(iter(load.tokens.items()))
        message = self.site.post("/api/message", {"receiver": receiver, "content": "after"}, token)
        page = self.site.get(f"/api/message/received?after={max(load.acknowledged.values())}", token)
        check(
            f"{name}: {sent:,} messages, none lost, none doubled; restored with all {len(held):,} from before the backup; "
            "a client that polls by id gets the next message",
            held.items() <= {*stored},
            [m["id"] for m in page["results"]] == [message["id"]],
        )
        return sent

    def check_log_lines(self, expected: int) -> None:
        lines = self.machine.run("cd /var/log/messaging && zcat requests.log.2.gz && cat requests.log.1 requests.log")
        sent = sum('"/api/message"' in line and json.loads(line)["status"] == 201 for line in lines.splitlines())
        check(f"{sent:,} lines of sent messages in requests.log and what logrotate made of it", sent == expected)


@contextmanager
def running_machine(*requirements: str) -> Iterator[Machine]:
    """Run a machine that can install the service's packages and `requirements`, and move this process into its network."""
    packages = {"dbus-daemon": "dbus", "pg_createcluster": "postgresql"}
    names = ("certbot", "git", "logrotate", "nginx", "openssl", "pebble", "sqlite3")
    require_root_and_programs({**packages, **{name: name for name in names}})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, f"127.0.0.1 localhost {NAME}\n")
        shell("git", "clone", "--quiet", "--bare", str(ROOT), str(folder / "repository"))
        download_packages(folder / "packages", *requirements)
        enter_own_network()
        shell("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
        with running(Machine(folder, "deploy")) as machine:
            machine.run(INSTALLED)
            yield machine


def main() -> None:
    with running_machine() as machine:
        proof = Proof(machine)
        proof.install()
        sent = proof.back_up_and_restore("PostgreSQL", *steps(PAGE, "Backup and restore"), proof.upgrade)
        proof.check_log_lines(sent + 1)
        switch, backup, restore = steps(PAGE, "SQLite in place of PostgreSQL")
        machine.follow(*steps(PAGE, "Monitoring"), switch)
        proof.back_up_and_restore("SQLite", backup, restore, lambda load: load.wait_until_all_go_on(20))
        files = machine.run("cd /var/lib/messaging && stat -c '%a %U' db.sqlite3* backup-*")
        expect({*files.splitlines()} == {"600 messaging"}, f"Modes of SQLite's files: {files}")
        check(
            f"{machine.done} blocks of docs/deploy.md ran as they stand, all but those of other proofs",
            machine.done
            == sum(block.is_step() and block.section not in (IN_A_CONTAINER, *RECOVERY) for block in blocks(PAGE)),
        )


if __name__ == "__main__":
    main()
