"""Measures what fills the disk: rows, idempotency keys, PostgreSQL's log (WAL) and the service's logs.

Uses the databases of `make bench-setup`, and adds messages to the service's.
"""

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.bench import MeasuredService, workloads
from benchmarks.databases import TABLES, Server, running_server

SECONDS = 10  # of each kind of request
TOOLS = ("cat", "gzip", "zstd")
KEYS = """
    CREATE TEMPORARY TABLE plain (LIKE messageservice_message);
    CREATE TEMPORARY TABLE keyed (LIKE messageservice_message);
    CREATE UNIQUE INDEX once ON keyed (sender_id, idempotency_key);
    INSERT INTO plain SELECT * FROM messageservice_message LIMIT 200000;
    INSERT INTO keyed
    SELECT (jsonb_populate_record(plain, jsonb_build_object('idempotency_key', gen_random_uuid()))).* FROM plain;
"""
SIZES = "SELECT (pg_relation_size('keyed') - pg_relation_size('plain')) / 200000, pg_relation_size('once') / 200000"
WAL = "SELECT array[wal_bytes, wal_fpi]::float[] FROM pg_stat_wal"
RECORDS = "SELECT sum(record_size)::float FROM pg_get_wal_stats('{}', pg_current_wal_flush_lsn())"
REQUESTS = {"send": "W1", "list": "W2", "`after=` with nothing new": "W9", "log in": "W6"}


def print_wal(server: Server, service: MeasuredService) -> None:
    print("| `wal_compression` | sends since the checkpoint | bytes of WAL per send | without images | bytes per image |")
    for compression in ("off", "pglz", "lz4", "zstd"):
        for statement in (f"ALTER SYSTEM SET wal_compression = {compression}", "SELECT pg_reload_conf()", "CHECKPOINT"):
            server.execute(statement)
        since = 0
        for _ in range(3):
            start, before = server.execute("SELECT pg_current_wal_flush_lsn()::text"), server.execute(WAL)
            sends = service.run_wrk(workloads(service)["W1"], SECONDS)["requests"]
            records = server.execute(RECORDS.format(start))
            time.sleep(2)  # PostgreSQL updates its statistics later
            size, images = (after - before for before, after in zip(before, server.execute(WAL), strict=True))
            figures = f"{size / sends:,.0f} | {records / sends:,.0f} | {(size - records) / images:,.0f}"
            print(f"| {compression} | {since:,} to {since + sends:,} | {figures} |", flush=True)
            since += sends
    server.execute("ALTER SYSTEM RESET wal_compression")


def print_logs(service: MeasuredService) -> None:
    print("| bytes per request | requests.log | gzip | zstd | activity.log | gzip | zstd |")
    chosen, files = workloads(service), [service.log_folder / f"{name}.log" for name in ("requests", "activity")]
    for title, name in REQUESTS.items():
        before = [file.stat().st_size for file in files]
        service.run_wrk(chosen[name], SECONDS)
        new = [file.read_bytes()[size:] for file, size in zip(files, before, strict=True)]
        requests = new[0].count(b"\n")
        packed = [subprocess.run([tool], input=lines, stdout=subprocess.PIPE).stdout for lines in new for tool in TOOLS]
        print(f"| {title} | {' | '.join(f'{len(data) / requests:.0f}' for data in packed)} |")


def main() -> None:
    with running_server() as server, tempfile.TemporaryDirectory() as logs:
        for table in TABLES:
            query = f"SELECT pg_total_relation_size('{table}') / count(*) FROM {table}"
            print(f"{table}: {server.execute(query, 'service')} bytes per row, indexes included")
        with server.connect("service") as connection:
            connection.execute(KEYS)
            table, index = connection.execute(SIZES).fetchone()
            print(f"idempotency key of 36 characters: {table} bytes in the table, {index} in its index")
        service = MeasuredService("service", server, Path(logs))
        service.start()
        try:
            print_wal(server, service)
            print_logs(service)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
