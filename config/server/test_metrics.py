"""The metrics that the running service serves to Prometheus if METRICS is set."""

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
from config.server.test_server import JSON, NOT_FOUND, ServiceTestCase
from config.testing.http_client import free_port
from config.testing.service import Service, run_service

GET_HEALTH = {"route": "/healthz", "method": "GET", "status": "200"}


def scrape(address):
    """Return the value of each metric, by its `key`."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
        families = text_string_to_metric_families(response.read().decode())
    return {key(sample.name, **sample.labels): sample.value for family in families for sample in family.samples}


def key(name, **labels):
    """Return the key of a metric in the result of `scrape`."""
    return name, frozenset(labels.items())


class MetricsTests(ServiceTestCase):
    @classmethod
    def setUpClass(cls):
        cls.address = f"127.0.0.1:{free_port()}"
        cls.environment = {"METRICS": cls.address, "WEB_CONCURRENCY": "2", "LIMIT_LOGIN": "1/300"}
        super().setUpClass()

    @contextmanager
    def record_changes(self):
        """Yield a dictionary that gets, at the end of the block, the difference of each metric since its start."""
        before, changes = scrape(self.address), {}
        yield changes
        changes |= {metric: value - before.get(metric, 0) for metric, value in scrape(self.address).items()}

    def request(self, method, path, body=None):
        """Send the request on a new connection, which any worker may accept, and return the status."""
        return self.exchange(self.connect(), method, path, body, headers=JSON)[0]

    def test_counts_the_requests_of_all_workers_together(self):
        with self.record_changes() as changes:
            for _ in range(40):
                self.request("GET", "/healthz")

        self.assertEqual(changes[key("messaging_requests_total", **GET_HEALTH)], 40)
        self.assertEqual(changes[key("messaging_request_seconds_count", route="/healthz", method="GET")], 40)
        self.assertEqual(changes[key("messaging_request_seconds_bucket", route="/healthz", method="GET", le="+Inf")], 40)
        self.assertGreater(changes[key("messaging_request_seconds_sum", route="/healthz", method="GET")], 0)
        self.assertEqual(scrape(self.address)[key("messaging_workers")], 2)

    def test_unknown_paths_and_methods_add_no_labels(self):
        with self.record_changes() as changes:
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
        counts = {
            tuple(dict(labels)[name] for name in ("route", "method", "status")): count
            for (name, labels), count in changes.items()
            if name == "messaging_requests_total" and count
        }
        self.assertEqual(counts, expected)

    def test_counts_a_request_that_is_rejected_before_its_route_is_known(self):
        with self.record_changes() as changes:
            self.request("POST", "/api/message", b"x" * (2**20 + 1))

        self.assertEqual(changes[key("messaging_requests_total", route="/api/message", method="POST", status="413")], 1)

    def test_counts_logins_that_a_limit_rejects(self):
        body = json.dumps({"username": "alice", "password": "wrong"}).encode()

        with self.record_changes() as changes:
            statuses = [self.request("POST", "/api/auth/login", body) for _ in range(3)]

        self.assertEqual(statuses, [400, 429, 429])
        self.assertEqual(changes[key("messaging_rejected_logins_total")], 2)
        self.assertEqual(changes[key("messaging_hash_wait_seconds_count")], 3)

    def test_a_method_in_lower_case_waits_for_a_hash_too(self):
        body = self.registration("erin")

        with self.record_changes() as changes:
            statuses = [self.request(method, "/api/auth/login", body) for method in ("post", "Post")]

        self.assertEqual(statuses, [400, 429])
        self.assertEqual(changes[key("messaging_hash_wait_seconds_count")], 2)

    def test_every_form_of_the_admin_with_a_password_waits_for_a_hash(self):
        paths = (
            "login",
            "password_change",
            "auth/user/add",
            "auth/user/1/change",
            "auth/user/1/password",
            "auth/user/1%0A/password",
        )

        with self.record_changes() as changes:
            for path in paths:
                connection = self.connect()
                connection.request("POST", f"/admin/{path}/")
                self.assertIn(connection.getresponse().status, (302, 403))  # no session, or no CSRF token

        self.assertEqual(changes[key("messaging_hash_wait_seconds_count")], len(paths))

    def test_a_request_for_no_path_is_not_found(self):
        for method in ("OPTIONS", "GET"):
            with self.subTest(method):
                status, body, headers = self.exchange(self.connect(), method, "*")

                self.assertEqual((status, body), (404, NOT_FOUND))
                self.assertEqual((headers["Cache-Control"], len(headers["X-Request-ID"])), ("no-store", 32))

    def test_counts_database_errors(self):
        _, token = issue_token(self.alice)
        table = Block._meta.db_table

        with self.record_changes() as changes, connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO missing")
            try:
                status, _ = self.service.request("GET", "/api/block", token=token)
            finally:
                cursor.execute(f"ALTER TABLE missing RENAME TO {table}")

        self.assertEqual((status, changes[key("messaging_database_errors_total")]), (503, 1))

    def test_serves_every_documented_metric(self):
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

    def test_counts_waits_for_a_hash_and_requests_over_the_limit_of_the_queue(self):
        body = self.registration("dave")
        clients = [self.connect() for _ in range(23)]

        with transaction.atomic():
            User.objects.create(username="dave")  # the first request waits for the end of this transaction
            for client in clients:
                client.request("POST", "/api/auth/register", body, headers=JSON)
            overloads = set()
            while len(overloads) < 2:
                overloads |= {*select.select([client.sock for client in clients], [], [], 20)[0]}
            time.sleep(0.3)
        for client in clients:
            client.getresponse().read()

        metrics = scrape(self.address)
        self.assertEqual(metrics[key("messaging_hash_overloads_total")], 2)
        self.assertEqual(metrics[key("messaging_hash_wait_seconds_count")], 21)
        self.assertGreater(metrics[key("messaging_hash_wait_seconds_sum")], 20 * 0.3)


class MetricsProcessTests(ServiceTestCase):
    """The running service of the class has no METRICS."""

    def test_opens_no_port_if_metrics_are_off(self):
        main = psutil.Process(self.service.process.pid)
        sockets = [each for process in (main, *main.children()) for each in process.net_connections("tcp")]

        self.assertEqual({each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN}, {self.service.port})

    def test_keeps_the_counts_of_a_killed_worker_and_deletes_the_folder_at_the_end(self):
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

            metrics = scrape(address)
            [folder] = temporary.iterdir()
            self.assertEqual(metrics[key("messaging_requests_total", **GET_HEALTH)], 6)
            self.assertEqual(metrics[key("messaging_workers")], 1)
            self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        self.assertEqual([*temporary.iterdir()], [])

    def test_used_port_is_reported_in_one_line_and_the_service_starts(self):
        output = self.enterContext(tempfile.TemporaryFile("w+"))
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            with run_service(self.log_folder, output=output, METRICS=address) as service:
                self.assertEqual(service.request("GET", "/healthz")[0], 200)

        output.seek(0)
        lines = [line for line in output.read().splitlines() if "METRICS" in line]
        self.assertEqual(len(lines), 1)
        self.assertIn(address.rpartition(":")[2], lines[0])

    def test_address_of_another_machine_prevents_startup(self):
        with self.assertRaises(TimeoutError), tempfile.TemporaryFile("w+") as output:
            try:
                Service(self.log_folder, output=output, METRICS="192.0.2.1:9100").start()
            finally:
                output.seek(0)
                self.assertRegex(output.read(), r"\AMETRICS: [^\n]+\n\Z")
