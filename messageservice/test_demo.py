import re
from datetime import timedelta
from io import StringIO

from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import override_settings
from rest_framework.test import APIClient, APITestCase

from blocking.models import Block
from config.environment import Limit
from config.testing.cases import ApiTestMixin
from messageservice.models import Conversation, Mailbox, Message

NAMES = ["demo-alice", "demo-bob", "demo-carol"]


def demo(**options):
    out = StringIO()
    call_command("demo", stdout=out, **options)
    return out.getvalue()


def password_in(text):
    return re.search("password: (.+)", text)[1]


class DemoTests(ApiTestMixin, APITestCase):
    """Without alice, bob and carol: the demo wants an empty database."""

    def log_in(self, username, password):
        response = self.client.post("/api/auth/login", {"username": username, "password": password})
        self.assertEqual(response.status_code, 200)
        return APIClient(headers={"authorization": f"Token {response.json()['token']}"})

    def test_makes_users_messages_and_a_block(self):
        demo()

        self.assertEqual(list(User.objects.order_by("username").values_list("username", flat=True)), NAMES)
        self.assertEqual(str(Block.objects.get()), "demo-carol blocks demo-alice")
        messages = list(Message.objects.order_by("pk"))
        times = [message.created for message in messages]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[-1] - times[0], timedelta(days=2))
        self.assertTrue(any(message.read for message in messages))
        self.assertFalse(all(message.read for message in messages))

    def test_counts_what_it_made(self):
        demo()

        for user in User.objects.all():
            with self.subTest(user):
                mailbox, messages = Mailbox.objects.of(user), Message.objects.involving(user)
                self.assertEqual(mailbox.total, messages.count())
                self.assertEqual(mailbox.unread, messages.received_by(user).unread().count())
                conversations = Conversation.objects.of(user)
                self.assertEqual(sum(conversation.unread for conversation in conversations), mailbox.unread)

    def test_what_it_prints_can_be_gone_on_with(self):
        password = password_in(demo())

        for name in NAMES:
            alice = self.log_in(name, password)
        alice = self.log_in("demo-alice", password)
        self.assertEqual(len(alice.get("/api/conversation").json()["results"]), 2)
        unread = alice.get("/api/message/received?sender=demo-bob&unread=true").json()
        self.assertEqual(unread["count"], 2)
        to_bob = alice.post("/api/message", {"receiver": "demo-bob", "content": "With pleasure!"})
        self.assertEqual(to_bob.status_code, 201)
        to_carol = alice.post("/api/message", {"receiver": "demo-carol", "content": "Umbrellas!"})
        self.assertEqual(to_carol.status_code, 403)

    def test_a_second_run_changes_the_password_alone(self):
        first = demo()
        User.objects.filter(username="demo-bob").update(is_active=False)
        before = list(Message.objects.values()), list(Block.objects.values())

        second = demo()

        self.assertEqual((list(Message.objects.values()), list(Block.objects.values())), before)
        self.assertEqual(User.objects.count(), 3)
        self.assertEqual(second.replace(password_in(second), password_in(first)), first)
        self.log_in("demo-bob", password_in(second))

    def test_a_second_run_does_not_set_up_again_what_was_lifted(self):
        demo()
        Block.objects.all().delete()

        demo()

        self.assertFalse(Block.objects.exists())

    def test_refuses_where_there_are_other_users(self):
        User.objects.create(username="alice")

        with self.assertRaisesMessage(CommandError, "--beside-other-users"):
            demo()

        self.assertEqual(User.objects.count(), 1)

    def test_adds_beside_other_users_when_told(self):
        User.objects.create(username="alice", password="untouched")

        demo(beside_other_users=True)

        self.assertEqual(User.objects.count(), 4)
        self.assertEqual(User.objects.get(username="alice").password, "untouched")

    @override_settings(LIMIT_SEND=Limit(1, 3600), LIMIT_SIGNUP=Limit(1, 3600), PASSWORD_MIN_LENGTH=100)
    def test_no_limit_stops_it(self):
        password = password_in(demo())

        self.assertGreaterEqual(len(password), 100)
        alice = self.log_in("demo-alice", password)
        response = alice.post("/api/message", {"receiver": "demo-bob", "content": "hi"})
        self.assertEqual(response.status_code, 201)

    def test_names_an_address_that_a_client_on_this_machine_can_call(self):
        for host, address in {
            "127.0.0.1": "127.0.0.1:8000",
            "0.0.0.0": "127.0.0.1:8000",  # noqa: S104 - what an operator may set
            "::": "[::1]:8000",
            "192.0.2.7": "192.0.2.7:8000",
        }.items():
            with self.subTest(host), override_settings(HOST=host, PORT=8000):
                self.assertIn(f"http://{address}/api/auth/login", demo())
