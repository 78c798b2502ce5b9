"""Measures what a request to the service costs, next to the service at commit 6bc8ad4 and three services to compare it with.

`rival` is the same API on FastAPI, `ordinary` on plain Django REST framework, `floor` a bare WSGI callable with hand-written
SQL. Compare CPU per request, of application processes and PostgreSQL together: other load on the machine hardly changes it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks import fill
from benchmarks.chart import draw
from benchmarks.databases import OLD, RIVAL, ROOT, SQLITE, Server, running_server
from benchmarks.proofs.checks import program
from config.testing.http_client import free_port
from config.testing.service import Service

WORKERS = os.cpu_count() or 1
HASH = "the hash alone"
GRANIAN = (sys.executable, "-m", "granian", "--interface", "wsgi", "--blocking-threads", "4", "--no-log")
COMMANDS = {
    "service": Service.command,
    "6bc8ad4": ("make", "--silent", "-C", str(OLD), "serve"),
    "rival": (str(RIVAL / "uvicorn"), "benchmarks.rival.main:app"),
    "ordinary": (*GRANIAN, "--factory", "django.core.wsgi:get_wsgi_application"),
    "floor": (*GRANIAN, "benchmarks.floor:application"),
    "sqlite": Service.command,
}
ALL = ",".join(COMMANDS)
ROUNDS_OF_OTHERS = (0, 2, 5, 8)  # in which the other services are measured too
BYTES = {"messageservice_message": 430, "messageservice_conversation": 150, "knox_authtoken": 450}  # per row, at most
WAL_BYTES = 2000  # per send, at most
SLOWEST = 0.85  # of the fastest round's requests per second, at least
SENDS_ON_SQLITE = 500  # per second, at least


@dataclass(frozen=True)
class Workload:
    title: str
    arguments: tuple[str, ...]  # of load.lua
    # By service or workload to compare with: how many times its CPU per request this service may use, or None for no limit.
    most: dict[str, float | None]
    connections: int = 16


def workloads(service: Service) -> dict[str, Workload]:
    thousand, million = str(fill.THOUSAND), str(fill.MILLION)
    partner = fill.username(fill.NEIGHBOURS[0])
    newest = service.request("GET", "/api/message", token=fill.token(fill.THOUSAND))[1]["results"][0]
    date = newest["created"][:10]
    sent = f"/api/message/sent?receiver={partner}&date={date}"
    after = f"/api/message?after={newest['id']}"

    def all_services(old: float, rival: float) -> dict[str, float | None]:
        return {"6bc8ad4": old, "rival": rival, "ordinary": None, "floor": None}

    return {
        "W1": Workload("send", ("send",), {**all_services(0.7, 0.75), "sqlite": None}),
        "W2": Workload("list, 1,000 messages", ("get", "/api/message", thousand), all_services(0.8, 0.2)),
        "W3": Workload("sent, by receiver and date", ("get", sent, thousand), all_services(0.8, 0.65)),
        "W4": Workload("list, 1,000,000 messages", ("get", "/api/message", million), {"W2": 1.2}),
        "W5": Workload("page 25,000 of it", ("get", "/api/message?page=25000", million), {"W2": 1.2}),
        "W6": Workload("log in", ("log-in",), {"6bc8ad4": None, HASH: 1.25}),
        "W7": Workload("80 % lists, 15 % sends, 5 % filters", ("mixed", date), all_services(0.75, 0.36), connections=64),
        "W8": Workload("conversations, 1,000 partners", ("get", "/api/conversation", str(fill.SOCIABLE)), {"W2": 1.2}),
        "W9": Workload("after=, nothing new", ("get", after, thousand), {"6bc8ad4": 0.8, "rival": 0.5}),
    }


# What a request costs: milliseconds of CPU ("cpu"), how many of them the database uses ("database"), bytes of WAL without
# the page images that follow a checkpoint ("wal"). Also responses per second ("per_second"), 99 % of them within "p99" ms.
Sample = dict[str, float]
Results = dict[str, dict[str, dict[int, Sample]]]  # by workload, service and round


class MeasuredService(Service):
    """A service in processes of its own, with the PostgreSQL server that it uses, if any."""

    def __init__(self, name: str, server: Server, log_folder: Path) -> None:
        self.name, self.command = name, COMMANDS[name]
        self.server = None if name == "sqlite" else server
        port, workers = str(free_port()), str(WORKERS)
        database = {"sqlite": f"sqlite:///{SQLITE}", "floor": server.url_of("service")}
        environment = {
            "DATABASE_URL": database.get(name, server.url_of(name)),
            "DJANGO_SETTINGS_MODULE": "benchmarks.ordinary.settings" if name == "ordinary" else "config.settings",
            **dict.fromkeys(("PORT", "GRANIAN_PORT", "UVICORN_PORT"), port),
            **dict.fromkeys(("WEB_CONCURRENCY", "GRANIAN_WORKERS", "UVICORN_WORKERS"), workers),
        }
        super().__init__(log_folder, **environment)

    def used_cpu(self) -> tuple[float, float]:
        """Return the seconds of CPU that the application's processes have used, and those of the database."""
        database = cpu_seconds(self.server.process()) if self.server else 0.0
        return cpu_seconds(psutil.Process(self.process.pid)), database

    def measure(self, workload: Workload, seconds: int) -> Sample:
        start = self.server.execute("SELECT pg_current_wal_flush_lsn()::text") if self.server else ""
        before = self.used_cpu()
        result = self.run_wrk(workload, seconds)
        time.sleep(0.5)
        count = result["requests"] + workload.connections  # the last requests were served after wrk ended
        after = self.used_cpu()
        application, database = ((end - begin) / count * 1e3 for begin, end in zip(before, after, strict=True))
        sample = {"cpu": application + database, "database": database, "p99": result["p99"] / 1e3}
        if start and workload.title == "send":
            query = f"SELECT sum(record_size)::float FROM pg_get_wal_stats('{start}', pg_current_wal_flush_lsn())"
            sample["wal"] = self.server.execute(query) / count
        return {**sample, "per_second": result["requests"] / result["microseconds"] * 1e6}

    def run_wrk(self, workload: Workload, seconds: int) -> dict[str, int]:
        command = ["wrk", "-t", "2", "-c", str(workload.connections), "-d", f"{seconds}s", "--timeout", "30s"]
        command += ["-s", str(ROOT / "benchmarks" / "load.lua"), self.url, "--", *workload.arguments]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = json.loads(output.partition("RESULT ")[2])
        if result["failed"]:
            sys.exit(f"{self.name}, {workload.title}: {result}")
        return result


def cpu_seconds(root: psutil.Process) -> float:
    """Return the CPU that the process has used, with its descendants and its children that have ended."""
    seconds = sum(root.cpu_times()[:4])
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            seconds += sum(process.cpu_times()[:2])
    return seconds


def measure_hash(seconds: int) -> Sample:
    """Return what a password hash costs, in as many processes as serve logins."""
    with multiprocessing.Pool(WORKERS) as pool:
        return {"cpu": statistics.mean(pool.map(hash_repeatedly, [seconds] * WORKERS, chunksize=1))}


def hash_repeatedly(seconds: int) -> float:
    """Return the milliseconds of CPU per hash."""
    stored, count = fill.OWASP_HASHER.hash(fill.PASSWORD), 0
    end, before = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        fill.OWASP_HASHER.verify(stored, fill.PASSWORD)
        count += 1
    return (time.process_time() - before) / count * 1e3


def measure_all(services: list[MeasuredService], chosen: dict[str, Workload], options: argparse.Namespace) -> Results:
    """Measure the services one after another at each workload; in round 0 they warm up."""
    results: Results = {name: {} for name in chosen}
    for number in range(options.rounds + 1):
        others = number in ROUNDS_OF_OTHERS or not options.complete
        for name, workload in chosen.items():
            for service in services:
                if service.name == "service" or (others and service.name in workload.most):
                    sample = service.measure(workload, options.seconds if number else 1)
                    results[name].setdefault(service.name, {})[number] = sample
            if others and HASH in workload.most:
                results[name].setdefault(HASH, {})[number] = measure_hash(options.seconds if number else 1)
        print(f"round {number} of {options.rounds}", file=sys.stderr)
    for by_service in results.values():
        for samples in by_service.values():
            del samples[0]
    return results


def median(samples: dict[int, Sample], figure: str) -> float:
    return statistics.median(sample.get(figure, 0) for sample in samples.values())


def targets(
    results: Results, chosen: dict[str, Workload], server: Server
) -> Iterator[tuple[str, list[float], float, float]]:
    """Yield the name of each target, the figure in each round, and the least and the most that its median may be."""
    for name, by_service in results.items():
        samples = by_service["service"]
        for other, most in chosen[name].most.items():
            base = by_service.get(other) or results.get(other, {}).get("service")
            if most and base:
                ratios = [samples[number]["cpu"] / sample["cpu"] for number, sample in base.items()]
                yield f"{name}: CPU per request, relative to {other}", ratios, 0, most
        rates = [sample["per_second"] for sample in samples.values()]
        yield f"{name}: slowest round, relative to the fastest", [min(rates) / max(rates)], SLOWEST, 1
        if name == "W1":
            yield "W1: bytes of WAL per send", [sample["wal"] for sample in samples.values()], 0, WAL_BYTES
        if "sqlite" in by_service:
            rates = [sample["per_second"] for sample in by_service["sqlite"].values()]
            yield "W1: sends per second on SQLite", rates, SENDS_ON_SQLITE, float("inf")
    for table, most in BYTES.items():
        query = f"SELECT pg_total_relation_size('{table}')::float / count(*) FROM {table}"
        yield f"bytes per row of {table}, with indexes", [server.execute(query, "service")], 0, most


def report(results: Results, chosen: dict[str, Workload], server: Server, options: argparse.Namespace) -> Iterator[str]:
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    yield f"""# What a request costs

Measured by `make bench` on {datetime.now(UTC):%Y-%m-%d}, on {WORKERS} cores of {processor.partition(": ")[2]}
that also ran the load and the database, with Python {platform.python_version()}
and PostgreSQL {server.execute("SHOW server_version")}.
Each workload has {options.rounds} rounds of {options.seconds} seconds; other services run only in some of them.
CPU is that of the application processes and PostgreSQL together. Times depend on the machine: compare ratios.

`6bc8ad4` is this service at that commit. `rival` is FastAPI with SQLAlchemy and asyncpg, `ordinary` is Django REST
framework in the usual way, `floor` is SQL without a framework: all three are in `benchmarks/`. `sqlite` is this service on
SQLite, where every commit is synced to disk.

| | median | lowest to highest | target | |
| --- | ---: | ---: | ---: | --- |"""
    for what, figures, least, most in targets(results, chosen, server):
        middle = statistics.median(figures)
        digits = ".0f" if middle > 10 else ".2f"
        spread = f"{min(figures):{digits}} to {max(figures):{digits}}" if len(figures) > 1 else ""
        bound = f"at least {least:g}" if least else f"at most {most:g}"
        yield f"| {what} | {middle:{digits}} | {spread} | {bound} | {'met' if least <= middle <= most else '**missed**'} |"
    yield """
| | workload | | requests per second | p99, ms | CPU per request, ms | of which PostgreSQL |
| --- | --- | --- | ---: | ---: | ---: | ---: |"""
    for name, by_service in results.items():
        for service, samples in by_service.items():
            per_second, p99 = median(samples, "per_second"), median(samples, "p99")
            cpu, database = median(samples, "cpu"), median(samples, "database")
            figures = f"{per_second:,.0f} | {p99:.1f} | {cpu:.2f} | {database:.2f}"
            yield f"| {name} | {chosen[name].title} | {service} | {figures} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="W1,W2", help="some of the workloads; all services in each round, no file changes")
    parser.add_argument("--services", default=ALL, help="some of the services; all in each round, no file changes")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2, help="of each workload in each round")
    options = parser.parse_args()
    options.complete = not options.only and options.services == ALL
    program("wrk", "wrk")
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        services = []
        for name in options.services.split(","):
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            services.append(MeasuredService(name, server, logs))
            services[-1].start()
            stack.callback(services[-1].stop)
        chosen = workloads(services[0])
        if options.only:
            chosen = {name: chosen[name] for name in options.only.split(",")}
        server.execute("CHECKPOINT")
        results = measure_all(services, chosen, options)
        text = "\n".join(report(results, chosen, server, options)) + "\n"
    print(text)
    if options.complete:
        (ROOT / "docs" / "benchmark.md").write_text(text)
        bars = {}
        for name in ("W1", "W2", "W3", "W7"):
            cpu = {service: median(samples, "cpu") for service, samples in results[name].items()}
            bars[f"{name}  {chosen[name].title}"] = cpu
        draw(bars, ROOT / "docs" / "benchmark.svg")


if __name__ == "__main__":
    main()
