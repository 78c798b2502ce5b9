"""Shows that the time of a failed login does not tell what was wrong: the name, the password or an inactive account.

One client tries all kinds of wrong credentials in random order on a service on SQLite, without limits. Without the hash that
a login computes for an unknown name, it would take a tenth of the others' time. If the medians differ by more than ALLOWED,
more logins are measured, at most REPEATS times in all: a real difference stays, a random difference does not.
"""

import random
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.proofs.checks import check, expect
from benchmarks.proofs.clients import PASSWORD, register
from benchmarks.proofs.processes import Node, running_node

TIMES = 200  # of each kind
REPEATS = 3
USERS = 10  # of each kind
ALLOWED = 0.05  # difference, as a part of the median for an unknown name; about a millisecond
WRONG = "some other secret"
UNKNOWN = "unknown name"
KINDS = {  # the beginning of the names, all of one length, and the password
    UNKNOWN: ("nobody", PASSWORD),
    "wrong password": ("member", WRONG),
    "deactivated, right password": ("former", PASSWORD),
    "deactivated, wrong password": ("former", WRONG),
    "no usable password": ("hollow", PASSWORD),
}


def measure(node: Node, times: dict[str, list[float]]) -> None:
    """Add the milliseconds that each login takes to the list of its kind."""
    for attempt in range(-USERS, TIMES):  # those before the first warm up
        for kind in random.sample([*KINDS], len(KINDS)):
            beginning, password = KINDS[kind]
            body = {"username": f"{beginning}-{attempt % USERS}", "password": password}
            began = time.perf_counter()
            status, _ = node.request("POST", "/api/auth/login", body)
            took = (time.perf_counter() - began) * 1000
            expect(status == 400, f"{kind}: {status}")
            if attempt >= 0:
                times[kind].append(took)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "login.sqlite3")
        with running_node(file.parent, f"sqlite:///{file}", WEB_CONCURRENCY="1") as node:
            register(node, [f"{beginning}-{n}" for beginning in ("member", "former", "hollow") for n in range(USERS)])
            with closing(sqlite3.connect(file, timeout=20)) as database, database:
                database.execute("UPDATE auth_user SET is_active = FALSE WHERE username LIKE 'former%'")
                database.execute("UPDATE auth_user SET password = '!' || hex(randomblob(20)) WHERE username LIKE 'hollow%'")
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(REPEATS):
                measure(node, times)
                medians = {kind: statistics.median(taken) for kind, taken in times.items()}
                widest = max(abs(median / medians[UNKNOWN] - 1) for median in medians.values())
                if widest <= ALLOWED:
                    break
    shown = ", ".join(f"{kind} {median:.2f} ms" for kind, median in medians.items())
    found = f"{len(times[UNKNOWN])} failed logins of each kind: {shown}; the medians differ by {widest:.1%} at most"
    check(found, widest <= ALLOWED)


if __name__ == "__main__":
    main()
