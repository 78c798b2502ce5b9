"""Concurrent sends, clients that are cut off and a service that is killed, with real processes."""

import json
import socket
import threading
import time
from functools import partial
from http.client import HTTPException

from accounts.authentication import issue_token
from config.testing.cases import ConcurrentTestCase, make_user
from config.testing.service import Service, run_service
from messageservice.models import Message


class PollingTests(ConcurrentTestCase):
    SENDERS = 8
    MESSAGES_EACH = 25

    def test_reader_gets_every_message_once_and_in_order(self):
        senders = [issue_token(make_user(f"sender{number}"))[1] for number in range(self.SENDERS)]
        reader = issue_token(self.carol)[1]
        statuses, seen, sent_all = [], [], threading.Event()

        def send(token):
            for number in range(self.MESSAGES_EACH):
                body = {"receiver": "carol", "content": str(number)}
                statuses.append(service.request("POST", "/api/message", body, token)[0])

        def poll():
            done = False
            while not done:
                done = sent_all.is_set()  # asked before the list is, so that the last round sees all
                after = seen[-1] if seen else 0
                _, page = service.request("GET", f"/api/message/received?after={after}", token=reader)
                seen.extend(reversed([message["id"] for message in page["results"]]))
                done = done and page["next"] is None

        with run_service(self.log_folder) as service:
            threads = [threading.Thread(target=send, args=(token,)) for token in senders]
            polling = threading.Thread(target=poll)
            for thread in (*threads, polling):
                thread.start()
            for thread in threads:
                thread.join()
            sent_all.set()
            polling.join()

        self.assertEqual(statuses, [201] * self.SENDERS * self.MESSAGES_EACH)
        self.assertEqual(seen, list(Message.objects.order_by("pk").values_list("pk", flat=True)))
        self.assertEqual(len(seen), self.SENDERS * self.MESSAGES_EACH)


class RetryTests(ConcurrentTestCase):
    def setUp(self):
        super().setUp()
        self.token = issue_token(self.alice)[1]

    def send(self, service, key):
        """Send a message under the key, retry until there is a response, and return the message's id."""
        body = {"receiver": "bob", "content": f"under {key}"}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                status, message = service.request("POST", "/api/message", body, self.token, **{"Idempotency-Key": key})
            except (OSError, HTTPException, ValueError):  # no service, or killed in the middle of a response
                time.sleep(0.05)
                continue
            if status == 201:
                return message["id"]
            self.assertEqual(status, 503)
        raise TimeoutError(f"No response for {key} within a minute.")

    def assert_one_message_per_key(self, responses):
        """`responses`: pairs of a key and the id in the response."""
        stored = list(Message.objects.order_by("pk").values_list("idempotency_key", "pk"))
        self.assertEqual(len({key for key, _ in stored}), len(stored))
        self.assertEqual(set(responses), set(stored))

    def test_eight_clients_send_one_key_at_once(self):
        with run_service(self.log_folder) as service:
            ids = self.in_parallel(*[lambda: self.send(service, "same")] * 8)

        self.assert_one_message_per_key([("same", pk) for pk in ids])
        self.assertEqual(self.events(), [("Successful Message", "alice", "bob")])

    def test_client_is_cut_off_before_it_reads_the_response(self):
        body = json.dumps({"receiver": "bob", "content": "under cut"}).encode()
        request = (
            f"POST /api/message HTTP/1.1\r\nHost: localhost\r\nAuthorization: Token {self.token}\r\n"
            f"Idempotency-Key: cut\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )

        with run_service(self.log_folder) as service:
            with socket.create_connection(("127.0.0.1", service.port)) as client:
                client.sendall(request.encode() + body)
            pk = self.send(service, "cut")

        self.assert_one_message_per_key([("cut", pk)])

    def test_service_is_killed_under_load(self):
        clients, messages_each = 8, 40
        responses = []

        def send_many(client):
            for number in range(messages_each):
                key = f"{client}-{number}"
                responses.append((key, self.send(service, key)))

        def kill_twice():
            for share in (0.25, 0.5):
                deadline = time.monotonic() + 60
                while len(responses) < share * clients * messages_each and time.monotonic() < deadline:
                    time.sleep(0.01)
                service.kill()
                service.start()

        service = Service(self.log_folder)
        service.start()
        try:
            self.in_parallel(kill_twice, *(partial(send_many, client) for client in range(clients)))
        finally:
            service.stop()

        self.assertEqual(len(responses), clients * messages_each)
        self.assert_one_message_per_key(responses)
