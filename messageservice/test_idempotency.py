"""The header Idempotency-Key of POST /api/message, which makes retries safe."""

import json

from django.contrib.auth.models import User
from django.test import override_settings
from rest_framework.test import APIClient

from blocking.models import Block
from config.environment import Limit
from config.testing.cases import ApiTestCase, ConcurrentTestCase
from messageservice.models import Message
from messageservice.testing import MessageAssertions, as_json

USED_BEFORE = {"detail": "This Idempotency-Key was already used for another message. Use a new key."}
SENT = ("Successful Message", "alice", "bob")


class IdempotencyAssertions(MessageAssertions):
    def send(self, client: APIClient, key: str | None, receiver: str = "bob", content: str = "hi"):
        headers = {} if key is None else {"Idempotency-Key": key}
        return client.post("/api/message", {"receiver": receiver, "content": content}, headers=headers)

    def assert_replayed(self, response, first) -> None:
        """Assert that the response repeats the first response, and that nothing more was stored or logged."""
        self.assertEqual(response.status_code, 201, response.content)
        self.assertEqual(response.json(), first.json())
        self.assertEqual(response["Location"], first["Location"])
        self.assertEqual(response["Idempotency-Replayed"], "true")
        self.assertEqual(Message.objects.count(), 1)
        self.assertEqual(self.events().count(SENT), 1)
        self.assert_counters_agree()


class IdempotencyTests(IdempotencyAssertions, ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)

    def test_stores_the_first_and_replays_it(self):
        first = self.send(self.client, "a-key")

        for _ in range(3):
            again = self.send(self.client, "a-key")

            self.assertEqual((first.status_code, first.json()), (201, as_json(Message.objects.get())))
            self.assertNotIn("Idempotency-Replayed", first)
            self.assert_replayed(again, first)

    def test_replays_to_another_client_of_the_sender(self):
        first = self.send(self.client, "key")

        again = self.send(self.as_user(self.alice), "key")

        self.assert_replayed(again, first)

    def test_replays_a_message_to_self(self):
        first = self.send(self.client, "key", receiver="alice")

        again = self.send(self.client, "key", receiver="alice")

        self.assertEqual((again.status_code, again.json()), (201, first.json()))
        self.assertEqual(again["Idempotency-Replayed"], "true")
        self.assertEqual(self.events(), [("Successful Message", "alice", "alice")])
        self.assert_counters_agree()

    def test_stores_each_message_without_a_key(self):
        responses = [self.send(self.client, None) for _ in range(2)]

        self.assertEqual([response.status_code for response in responses], [201, 201])
        self.assertFalse(any("Idempotency-Replayed" in response for response in responses))
        self.assertEqual(Message.objects.count(), 2)

    def test_rejects_another_message_under_the_key(self):
        self.send(self.client, "key")
        others = (
            {"receiver": "carol"},
            {"receiver": "alice"},
            {"content": "hi "},
            {"content": "Hi"},
            {"receiver": "carol", "content": "ho"},
        )
        for other in others:
            with self.subTest(other=other):
                response = self.send(self.client, "key", **other)

                self.assertEqual((response.status_code, response.json()), (422, USED_BEFORE))
                self.assertNotIn("Location", response)
                self.assertNotIn("Idempotency-Replayed", response)
                self.assertEqual(Message.objects.count(), 1)
                self.assertEqual(self.events(), [SENT])
                self.assert_counters_agree()

    def test_reports_wrong_fields_even_with_a_used_key(self):
        self.send(self.client, "key")

        self.assert_invalid(self.send(self.client, "key", content=" "), "content")
        without_receiver = self.client.post("/api/message", {"content": "hi"}, headers={"Idempotency-Key": "key"})
        self.assert_invalid(without_receiver, "receiver")

    def test_two_senders_can_use_the_same_key(self):
        first = self.send(self.client, "key")

        others = [
            self.send(self.as_user(self.carol), "key"),
            self.send(self.as_user(self.bob), "key", receiver="alice", content="ho"),
        ]

        for other in others:
            self.assertEqual(other.status_code, 201)
            self.assertNotEqual(other.json()["id"], first.json()["id"])
            self.assertNotIn("Idempotency-Replayed", other)
        self.assertEqual(Message.objects.count(), 3)

    def test_accepts_any_visible_ascii_as_a_key(self):
        visible = "".join(map(chr, range(ord("!"), ord("~") + 1)))
        keys = ("k", "K", "k" * 255, "k" * 254, visible, "0", "00", "null", '"k"', "k,k", "%20")

        for key in keys:
            with self.subTest(key=key[:99]):
                response = self.send(self.client, key)

                self.assertEqual(response.status_code, 201)
                self.assertNotIn("Idempotency-Replayed", response)
                self.assertEqual(Message.objects.get(pk=response.json()["id"]).idempotency_key, key)
                self.assertIn("Idempotency-Replayed", self.send(self.client, key))
        self.assertEqual(Message.objects.count(), len(keys))

    def test_rejects_an_invalid_key(self):
        for key in ("", " ", "k" * 256, "a key", " key", "key ", "a\tkey", "\x7f", "kéy", "k\xa0y", "k\x00y", "k" * 8000):
            with self.subTest(key=key[:9], length=len(key)):
                response = self.send(self.client, key)

                self.assert_invalid(response, "idempotency_key")
                self.assertFalse(Message.objects.exists())
                self.assertEqual(self.events(), [])

    def test_a_wrong_message_does_not_use_up_the_key(self):
        for wrong in ({"receiver": "nobody"}, {"content": " "}):
            self.assertEqual(self.send(self.client, "key", **wrong).status_code, 400)

        response = self.send(self.client, "key")

        self.assertEqual(response.status_code, 201)
        self.assertNotIn("Idempotency-Replayed", response)

    def test_a_malformed_message_with_a_used_key_names_what_is_wrong(self):
        first, headers = self.send(self.client, "key"), {"Idempotency-Key": "key"}

        for wrong in (
            {"receiver": "bo\x00b"},
            {"receiver": "bo\ud800b"},
            {"receiver": ["bob"]},
            {"content": " "},
            {"content": " ", "receiver": "nobody"},
        ):
            with self.subTest(wrong=wrong):
                body = json.dumps({"receiver": "bob", "content": "hi", **wrong})  # the test client encodes no lone surrogate

                response = self.client.generic("POST", "/api/message", body, "application/json", headers=headers)

                self.assertEqual((response.status_code, {*response.json()}), (400, {*wrong}))
        self.assert_replayed(self.send(self.client, "key"), first)

    def test_a_blocked_message_does_not_use_up_the_key(self):
        block = Block.objects.create(blocker=self.bob, blocked=self.alice)
        rejected = [self.send(self.client, "key") for _ in range(2)]
        block.delete()

        response = self.send(self.client, "key", content="ho")

        self.assertEqual([response.status_code for response in rejected], [403, 403])
        self.assertEqual((response.status_code, response.json()["content"]), (201, "ho"))
        self.assertNotIn("Idempotency-Replayed", response)
        self.assertEqual(self.events(), [("Blocked Message", "alice", "bob")] * 2 + [SENT])

    def test_a_message_over_the_limit_does_not_use_up_the_key(self):
        with override_settings(LIMIT_SEND=Limit(1, 60)):
            self.send(self.client, None)
            rejected = self.send(self.client, "key")

        response = self.send(self.client, "key")

        self.assertEqual(rejected.status_code, 429)
        self.assertIn("Retry-After", rejected)
        self.assertEqual(response.status_code, 201)
        self.assertNotIn("Idempotency-Replayed", response)

    def test_replays_even_if_the_receiver_blocks_the_sender_now(self):
        first = self.send(self.client, "key")
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        again = self.send(self.client, "key")

        self.assert_replayed(again, first)
        self.assertEqual(self.events(), [SENT])
        self.assertEqual(self.send(self.client, "key", content="ho").status_code, 422)
        self.assertEqual(self.send(self.client, "another").status_code, 403)

    def test_replays_even_if_the_receiver_is_deactivated_now(self):
        first = self.send(self.client, "key")
        User.objects.filter(pk=self.bob.pk).update(is_active=False)

        again = self.send(self.client, "key")

        self.assert_replayed(again, first)
        self.assertEqual(self.send(self.client, "key", content="ho").status_code, 422)
        self.assert_invalid(self.send(self.client, "another"), "receiver")
        User.objects.filter(pk=self.bob.pk).update(is_active=True)
        self.assertNotIn("Idempotency-Replayed", self.send(self.client, "another"))

    def test_replays_beyond_the_limit_without_counting_towards_it(self):
        with override_settings(LIMIT_SEND=Limit(2, 60)):
            first = self.send(self.client, "key")
            for _ in range(3):
                self.assert_replayed(self.send(self.client, "key"), first)
            second = self.send(self.client, "another")
            third = self.send(self.client, "third")
            again = self.send(self.client, "key")

        self.assertEqual([second.status_code, third.status_code, again.status_code], [201, 429, 201])
        self.assertEqual(again.json(), first.json())

    def test_replay_shows_that_the_message_was_read(self):
        first = self.send(self.client, "key").json()
        self.as_user(self.bob).post("/api/conversation/alice/read", {"up_to": first["id"]})

        again = self.send(self.client, "key").json()

        self.assertTime(again["read"])
        self.assertEqual(again, {**first, "read": again["read"]})

    def test_requires_a_token(self):
        self.send(self.client, "key")

        self.assertEqual(self.send(APIClient(), "key").status_code, 401)

    def test_location_and_links_keep_the_port(self):
        for _ in range(2):
            response = self.client.post(
                "/api/message", {"receiver": "bob", "content": "hi"}, headers={"host": "localhost:8443"}
            )
        page = self.client.get("/api/message?page_size=1", headers={"host": "localhost:8443"}).json()

        self.assertEqual(response["Location"], f"http://localhost:8443/api/message/{response.json()['id']}")
        self.assertEqual(page["next"], "http://localhost:8443/api/message?page=2&page_size=1")

    def test_location_is_the_full_url_of_the_message(self):
        response = self.send(self.client, None)

        self.assertEqual(response["Location"], f"http://testserver/api/message/{response.json()['id']}")
        for user in (self.alice, self.bob):
            self.assertEqual(self.as_user(user).get(response["Location"]).json(), response.json())


class ParallelIdempotencyTests(IdempotencyAssertions, ConcurrentTestCase):
    def sending(self, key: str, content: str = "hi"):
        client = self.as_user(self.alice)
        return lambda: self.send(client, key, content=content)

    def test_eight_requests_with_one_key_store_one_message(self):
        responses = self.in_parallel(*[self.sending("key") for _ in range(8)])

        message = as_json(Message.objects.get())
        self.assertEqual([response.status_code for response in responses], [201] * 8)
        self.assertEqual([response.json() for response in responses], [message] * 8)
        self.assertEqual(sum("Idempotency-Replayed" not in response for response in responses), 1)
        self.assertEqual(self.events(), [SENT])
        self.assert_counters_agree()

    def test_two_contents_with_one_key_store_one_message(self):
        for number in range(5):
            responses = self.in_parallel(self.sending(f"key-{number}", "hi"), self.sending(f"key-{number}", "ho"))

            self.assertEqual(sorted(response.status_code for response in responses), [201, 422])
            self.assertEqual(Message.objects.count(), number + 1)
        self.assertEqual(self.events(), [SENT] * 5)
        self.assert_counters_agree()
