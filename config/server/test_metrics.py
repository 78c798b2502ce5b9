"""What Prometheus reads where METRICS is set, from the service as it really runs."""

import json
import os
import re
import select
import signal
import socket
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from prometheus_client.parser import text_string_to_metric_families

from accounts.authentication import issue_token
from blocking.models import Block
from config.server.test_server import JSON, ServiceTestCase
from config.testing.http_client import free_port
from config.testing.service import Service, run_service

GET_HEALTH = {"route": "/healthz", "method": "GET", "status": "200"}


def scrape(address):
    """The value of each metric by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
        families = text_string_to_metric_families(response.read().decode())
    return {key(one.name, **one.labels): one.value for family in families for one in family.samples}


def key(name, **labels):
    return name, frozenset(labels.items())


class MetricsTests(ServiceTestCase):
    @classmethod
    def setUpClass(cls):
        cls.address = f"127.0.0.1:{free_port()}"
        cls.environment = {"METRICS": cls.address, "WEB_CONCURRENCY": "2", "LIMIT_LOGIN": "1/300"}
        super().setUpClass()

    @contextmanager
    def added(self):
        """What the requests in the block add to the metrics, in a dictionary that is filled at its end."""
        before, changes = scrape(self.address), {}
        yield changes
        changes |= {one: value - before.get(one, 0) for one, value in scrape(self.address).items()}

    def request(self, method, path, body=None):
        """The status, over a connection of its own, which any worker may have."""
        return self.exchange(self.connect(), method, path, body, headers=JSON)[0]

    def test_requests_of_all_workers_are_counted_together(self):
        with self.added() as added:
            for _ in range(40):
                self.request("GET", "/healthz")

        self.assertEqual(added[key("messaging_requests_total", **GET_HEALTH)], 40)
        self.assertEqual(added[key("messaging_request_seconds_count", route="/healthz", method="GET")], 40)
        self.assertEqual(added[key("messaging_request_seconds_bucket", route="/healthz", method="GET", le="+Inf")], 40)
        self.assertGreater(added[key("messaging_request_seconds_sum", route="/healthz", method="GET")], 0)
        self.assertEqual(scrape(self.address)[key("messaging_workers")], 2)

    def test_what_clients_make_up_adds_no_label(self):
        with self.added() as added:
            for number in range(10):
                self.request("GET", f"/made-up-{number}")
                self.request("GET", f"/api/message/{number}?page={number}")
                self.request("DELETE", f"/api/block/made-up-{number}")
                self.request(f"MADE{number}", "/api/block/made-up")
                self.request("GET", f"/static/made-up-{number}")

        expected = {
            ("other", "GET", "404"): 20,
            ("/api/message/{pk}", "GET", "401"): 10,
            ("/api/block/{username}", "DELETE", "401"): 10,
            ("/api/block/{username}", "other", "401"): 10,
        }
        found = {
            tuple(dict(labels)[name] for name in ("route", "method", "status")): count
            for (name, labels), count in added.items()
            if name == "messaging_requests_total" and count
        }
        self.assertEqual(found, expected)

    def test_request_that_is_rejected_before_its_route_is_known(self):
        with self.added() as added:
            self.request("POST", "/api/message", b"x" * (2**20 + 1))

        self.assertEqual(added[key("messaging_requests_total", route="/api/message", method="POST", status="413")], 1)

    def test_logins_that_a_limit_rejects(self):
        body = json.dumps({"username": "alice", "password": "wrong"}).encode()

        with self.added() as added:
            statuses = [self.request("POST", "/api/auth/login", body) for _ in range(3)]

        self.assertEqual(statuses, [400, 429, 429])
        self.assertEqual(added[key("messaging_rejected_logins_total")], 2)
        self.assertEqual(added[key("messaging_hash_wait_seconds_count")], 3)

    def test_database_errors(self):
        _, token = issue_token(self.alice)
        table = Block._meta.db_table

        with self.added() as added, connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO away")
            try:
                status, _ = self.service.request("GET", "/api/block", token=token)
            finally:
                cursor.execute(f"ALTER TABLE away RENAME TO {table}")

        self.assertEqual((status, added[key("messaging_database_errors_total")]), (503, 1))

    def test_names_in_the_documentation_are_those_that_are_served(self):
        self.request("GET", "/healthz")
        page = (settings.BASE_DIR / "docs" / "deploy.md").read_text()
        rules = re.search(r"^groups:$.*?^```$", page, re.DOTALL | re.MULTILINE)[0]

        documented = {*re.findall(r"\bmessaging_\w+", rules)}

        self.assertTrue(documented)
        self.assertLessEqual(documented, {name for name, _ in scrape(self.address)})


class HashingMetricsTests(ServiceTestCase):
    @classmethod
    def setUpClass(cls):
        cls.address = f"127.0.0.1:{free_port()}"
        cls.environment = {"METRICS": cls.address, "WEB_CONCURRENCY": "1"}
        super().setUpClass()

    def test_waits_for_a_hash_and_requests_that_find_no_place_to_wait(self):
        body = self.registration("dave")
        clients = [self.connect() for _ in range(23)]

        with transaction.atomic():
            User.objects.create(username="dave")  # the first request waits for the end of this transaction
            for client in clients:
                client.request("POST", "/api/auth/register", body, headers=JSON)
            rejected = set()
            while len(rejected) < 2:
                rejected |= {*select.select([client.sock for client in clients], [], [], 20)[0]}
            time.sleep(0.3)
        for client in clients:
            client.getresponse().read()

        found = scrape(self.address)
        self.assertEqual(found[key("messaging_hash_overloads_total")], 2)
        self.assertEqual(found[key("messaging_hash_wait_seconds_count")], 21)
        self.assertGreater(found[key("messaging_hash_wait_seconds_sum")], 20 * 0.3)


class MetricsProcessTests(ServiceTestCase):
    """The running service of the class has no METRICS."""

    def test_nothing_more_listens_where_metrics_are_off(self):
        main = psutil.Process(self.service.process.pid)
        sockets = [one for process in (main, *main.children()) for one in process.net_connections("tcp")]

        self.assertEqual({one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}, {self.service.port})

    def test_counts_of_a_killed_worker_stay_and_the_folder_goes_with_the_service(self):
        logs, temporary = (Path(self.enterContext(tempfile.TemporaryDirectory())) for _ in range(2))
        address = f"[::1]:{free_port()}"
        with run_service(logs, METRICS=address, TMPDIR=str(temporary), WEB_CONCURRENCY="1") as service:
            for _ in range(5):
                service.request("GET", "/healthz")
            [worker] = psutil.Process(service.process.pid).children()

            os.kill(worker.pid, signal.SIGKILL)
            worker.wait()
            while True:
                try:
                    service.request("GET", "/healthz")
                    break
                except OSError:
                    self.assertLess(time.time(), worker.create_time() + 30)

            found = scrape(address)
            [folder] = temporary.iterdir()
            self.assertEqual(found[key("messaging_requests_total", **GET_HEALTH)], 6)
            self.assertEqual(found[key("messaging_workers")], 1)
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual([*temporary.iterdir()], [])

    def test_used_port_is_reported_in_one_line_and_the_service_runs(self):
        output = self.enterContext(tempfile.TemporaryFile("w+"))
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            with run_service(self.log_folder, output=output, METRICS=address) as service:
                self.assertEqual(service.request("GET", "/healthz")[0], 200)

        output.seek(0)
        lines = [line for line in output.read().splitlines() if "METRICS" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn(address.rpartition(":")[2], lines[0])

    def test_address_that_is_not_of_this_machine_prevents_the_start(self):
        with self.assertRaises(TimeoutError), tempfile.TemporaryFile("w+") as output:
            try:
                Service(self.log_folder, output=output, METRICS="192.0.2.1:9100").start()
            finally:
                output.seek(0)
                self.assertRegex(output.read(), r"\AMETRICS: [^\n]+\n\Z")
