"""Measures the service beside two yardsticks, and says what each request costs.

`ordinary` is the same service as Django REST framework's own documentation would have one write it, `floor` a bare WSGI
callable with hand-written SQL. All answer from the same kind of server process, in turn, within one round. The figure to
compare is CPU per request, of worker processes and database together: how busy the machine is otherwise hardly moves it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import sub, truediv
from pathlib import Path

import argon2
from nacl.bindings import crypto_pwhash_str_verify

from benchmarks import databases, fill
from benchmarks.chart import draw
from benchmarks.databases import DATA, ROOT
from benchmarks.services import WORKERS, Service, running

FIRST_PORT = 18_000
HOURS_WORTH = 360_000  # requests: 100 a second
FEW = 100  # requests
WHOLE = ("service", "ordinary", "floor")


@dataclass(frozen=True)
class Workload:
    title: str
    arguments: tuple[str, ...]  # of load.lua
    connections: int = 16


def workloads(service: Service) -> dict[str, Workload]:
    thousand, million = str(fill.THOUSAND), str(fill.MILLION)
    partner = fill.username(fill.NEIGHBOURS[0])
    date = service.get("/api/message/sent?page=10", fill.THOUSAND)["results"][0]["created"][:10]
    newest = service.get("/api/message", fill.THOUSAND)["results"][0]["id"]
    return {  # in the order of measuring: W2 amidst those that are compared with it
        "W1": Workload("send", ("send",)),
        "W10": Workload("send, all to one receiver", ("send", partner)),
        "W3": Workload("sent, by receiver and date", ("get", f"/api/message/sent?receiver={partner}&date={date}", thousand)),
        "W6": Workload("log in", ("log-in",)),
        "W7": Workload("80 % lists, 15 % sends, 5 % filters", ("mixed", date), connections=64),
        "W4": Workload("list, 1,000,000 messages", ("get", "/api/message", million)),
        "W5": Workload("page 25,000 of it", ("get", "/api/message?page=25000", million)),
        "W2": Workload("list, 1,000 messages", ("get", "/api/message", thousand)),
        "W8": Workload("conversations, 1,000 partners", ("get", "/api/conversation", str(fill.SOCIABLE))),
        "W9": Workload("after=, nothing new", ("get", f"/api/message?after={newest}", thousand)),
        "W2t": Workload("list, a user with 1,000 tokens", ("get", "/api/message", str(fill.COLLECTOR))),
    }


# What is to be reached: a workload, the figure, at most so many times, what it is compared with.
BOUNDS = (
    ("W1", 4, "floor"),
    ("W1", 0.4, "ordinary"),
    ("W2", 5, "floor"),
    ("W2", 0.12, "ordinary"),
    ("W3", 6, "floor"),
    ("W3", 0.35, "ordinary"),
    ("W6", 1.15, "argon2-cffi"),
    ("W6", 1.15, "libsodium"),
    ("W4", 1.2, "W2"),
    ("W5", 1.2, "W2"),
    ("W8", 1.2, "W2"),
    ("W9", 1.2, "W2"),
    ("W2t", 1.1, "W2"),
)
BOUNDS_ON_SQLITE = (("W4", 1.3, "W2"), ("W5", 1.3, "W2"))


@dataclass
class Figures:
    """One workload on one service, a figure a round."""

    per_second: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)  # milliseconds
    p99: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds a request, of workers and database
    database: list[float] = field(default_factory=list)  # of which the database's

    def median(self, figure: str) -> float:
        return statistics.median(getattr(self, figure))


Results = dict[str, dict[str, Figures]]  # by workload and service


def run_wrk(service: Service, workload: Workload, seconds: int) -> dict[str, int]:
    command = ["wrk", "-t", "2", "-c", str(workload.connections), "-d", f"{seconds}s", "--timeout", "30s"]
    command += ["-s", str(ROOT / "benchmarks" / "load.lua"), f"http://127.0.0.1:{service.port}", "--", *workload.arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seen = json.loads(output.partition("RESULT ")[2])
    if seen["refused"] or seen["broken"]:
        sys.exit(f"{service.name}, {workload.title}: {seen}")
    return seen


def measure(service: Service, workload: Workload, seconds: int, figures: Figures) -> None:
    run_wrk(service, workload, 1)
    service.rest()
    before = service.cpu_seconds()
    seen = run_wrk(service, workload, seconds)
    if seen["requests"] < FEW:  # those that the end cuts off would weigh too much
        service.rest()
        before = service.cpu_seconds()
        seen = run_wrk(service, workload, 20)
    workers, database = map(sub, service.cpu_seconds(), before)
    figures.per_second.append(seen["requests"] / seen["microseconds"] * 1e6)
    figures.p50.append(seen["p50"] / 1000)
    figures.p99.append(seen["p99"] / 1000)
    figures.cpu.append((workers + database) / seen["requests"] * 1e6)
    figures.database.append(database / seen["requests"] * 1e6)


def measure_all(services: list[Service], chosen: dict[str, Workload], rounds: int, seconds: int) -> Results:
    results: Results = {name: {service.name: Figures() for service in services} for name in chosen}
    for number in range(1, rounds + 1):
        for service in services:
            if service.database:
                databases.checkpoint()
            for name, workload in chosen.items():
                progress(f"round {number} of {rounds}: {service.name}, {name} {workload.title}")
                measure(service, workload, seconds, results[name][service.name])
                if name == "W6" and service.name == "service":
                    for bare, verify in BARE_HASHES.items():
                        results[name].setdefault(bare, Figures()).cpu.append(bare_hash(verify, seconds))
    progress("")
    return {name: results[name] for name in sorted(results, key=lambda name: (int(name[1:].rstrip("t")), name))}


def bare_hash(verify: Callable[[str, str], object], seconds: int) -> float:
    """CPU of one password hash with OWASP's parameters, in microseconds, in as many processes as serve log-ins."""
    with multiprocessing.Pool(int(WORKERS)) as pool:
        return statistics.mean(pool.starmap(_hash_for, [(verify, seconds)] * int(WORKERS), chunksize=1))


def _hash_for(verify: Callable[[str, str], object], seconds: int) -> float:
    kept = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(fill.PASSWORD)
    end, before, count = time.monotonic() + seconds, time.process_time(), 0
    while time.monotonic() < end:
        verify(kept, fill.PASSWORD)
        count += 1
    return (time.process_time() - before) / count * 1e6


def _verify_by_libsodium(kept: str, password: str) -> None:
    crypto_pwhash_str_verify(kept.encode(), password.encode())


# By argon2-cffi, as Django's own hasher does, and by what the service and the floor use.
BARE_HASHES = {"argon2-cffi": argon2.PasswordHasher().verify, "libsodium": _verify_by_libsodium}


def syncs_per_second(folder: Path) -> float:
    """How many small writes a second the disk takes, each on it before the next: a bound for the sends on SQLite."""
    file = folder / "sync"
    with file.open("wb", buffering=0) as out:
        end, count = time.monotonic() + 2, 0
        while time.monotonic() < end:
            out.write(bytes(4096))
            os.fdatasync(out.fileno())
            count += 1
    file.unlink()
    return count / 2


def soak(service: Service, workload: Workload, requests: int) -> Iterable[str]:
    """What the workers use while `requests` are answered, at ten moments."""
    done, step = 0, 0
    while done < requests:
        progress(f"memory: {done:,} of {requests:,} requests")
        done += run_wrk(service, workload, 10)["requests"]
        if done >= step * requests / 10:
            step += 1
            yield f"{done:,}: {', '.join(f'{megabytes:.0f}' for megabytes in service.worker_memory())} MB"
    progress("")


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def table(results: Results, chosen: dict[str, Workload]) -> Iterable[str]:
    yield "| | workload | | a second | p50, ms | p99, ms | CPU a request, ms | database alone | of ordinary | of floor |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, by_service in results.items():
        for service, figures in by_service.items():
            if service in BARE_HASHES:
                yield f"| {name} | the hash alone | {service} | | | | {figures.median('cpu') / 1000:.2f} | | | |"
                continue
            alone = f"{figures.median('database') / 1000:.2f}" if any(figures.database) else ""
            ratios = [
                f"{figures.median('cpu') / by_service[other].median('cpu'):.2f}" if other in by_service else ""
                for other in ("ordinary", "floor")
            ]
            yield (
                f"| {name} | {chosen[name].title} | {service} | {figures.median('per_second'):,.0f}"
                f" | {figures.median('p50'):.1f} | {figures.median('p99'):.1f} | {figures.median('cpu') / 1000:.2f}"
                f" | {alone} | {ratios[0]} | {ratios[1]} |"
            )


def verdicts(results: Results, bounds: Iterable[tuple[str, float, str]]) -> Iterable[str]:
    for name, most, other in bounds:
        if name not in results or (other not in results and other not in results[name]):
            continue
        base = results[other]["service"] if other in results else results[name][other]
        # Of each round, whose workloads follow each other: the machine may be slower in another.
        ratio = statistics.median(map(truediv, results[name]["service"].cpu, base.cpu))
        yield f"- {name}: {ratio:.2f} times {other}, at most {most}{'' if ratio <= most else ' — **missed**'}"
    if "W1" in results and "W10" in results:
        ratio = results["W10"]["service"].median("per_second") / results["W1"]["service"].median("per_second")
        yield f"- W10: {ratio:.2f} times the sends a second of W1, at least 0.5{'' if ratio >= 0.5 else ' — **missed**'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="W1,W2", help="some of the workloads; writes nothing into docs/")
    parser.add_argument("--services", default=",".join(WHOLE), help=f"some of {','.join(WHOLE)},granian")
    parser.add_argument("--database", choices=("postgresql", "sqlite", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=3, help="a workload's, in each round")
    parser.add_argument("--requests", type=int, default=HOURS_WORTH, help="while memory is watched; 0: do not")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is missing; on Debian and Ubuntu: sudo apt install wrk")
    DATA.mkdir(exist_ok=True)
    lines: list[str] = []

    if options.database != "sqlite":
        with ExitStack() as stack:
            server = databases.postmaster()
            services = []
            for port, name in enumerate(options.services.split(","), start=FIRST_PORT):
                variable, url = "DATABASE_URL", databases.service_on_postgresql
                if name == "ordinary":
                    variable, url = "ORDINARY_DATABASE_URL", databases.ordinary_on_postgresql
                services.append(stack.enter_context(running(name, port, server, **{variable: url()})))
            every = workloads(services[0])
            chosen = {name: every[name] for name in options.only.split(",")} if options.only else every
            results = measure_all(services, chosen, options.rounds, options.seconds)
            lines += ["## PostgreSQL", "", *table(results, chosen), "", *verdicts(results, BOUNDS), ""]
            lines += ["## Disk", "", "A row on PostgreSQL:", ""]
            for name, row, indexes in databases.row_sizes(databases.service_on_postgresql()):
                lines.append(f"- `{name}`: {row} bytes, and {indexes} of indexes")
            lines.append("")
            if options.requests:
                lines += ["## Memory of the workers", "", "After so many requests of W7:", ""]
                lines += [f"- {line}" for line in soak(services[0], every["W7"], options.requests)]
                lines += ["", f"From `make serve` to the first answer: {services[0].first_answer:.1f} s.", ""]

    if options.database != "postgresql":
        with running("service", FIRST_PORT, None, DATABASE_URL=databases.service_on_sqlite()) as service:
            every = workloads(service)
            chosen_on_sqlite = {name: every[name] for name in options.only.split(",")} if options.only else every
            on_sqlite = measure_all([service], chosen_on_sqlite, options.rounds, options.seconds)
        lines += ["## SQLite", "", *table(on_sqlite, chosen_on_sqlite), "", *verdicts(on_sqlite, BOUNDS_ON_SQLITE)]
        lines += [f"- The disk takes {syncs_per_second(DATA):,.0f} synced writes a second; a send is one.", ""]

    print("\n".join(lines))
    if not options.only and options.database == "both" and options.services == ",".join(WHOLE):
        draw(
            {
                f"{name}  {every[name].title}": {
                    service: figures.median("cpu") / 1000 for service, figures in by_service.items()
                }
                for name, by_service in results.items()
            },
            ROOT / "docs" / "benchmark.svg",
        )
        (ROOT / "docs" / "benchmark.md").write_text("\n".join([*heading(options), *lines]))


def heading(options: argparse.Namespace) -> Iterable[str]:
    yield "# What a request costs"
    yield ""
    yield (
        f"Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores for load, service and database,"
        f" Python {platform.python_version()}, PostgreSQL {databases.postgresql_version()};"
        f" medians of {options.rounds} rounds of {options.seconds} seconds a workload."
        " CPU is that of worker processes and database together. Compare ratios: times are as good as the machine."
    )
    yield ""
    yield "`ordinary` and `floor` are the yardsticks in `benchmarks/`; on SQLite only the service is measured."
    yield ""


if __name__ == "__main__":
    main()
