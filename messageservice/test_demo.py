import re
from datetime import timedelta
from io import StringIO
from unittest.mock import patch

from django.contrib.auth.models import User, UserManager
from django.core.management import CommandError, call_command
from django.db import transaction
from django.test import override_settings
from rest_framework.test import APIClient, APITestCase

from blocking.models import Block
from config.environment import Limit
from config.testing.cases import ApiTestMixin
from messageservice.models import Message
from messageservice.testing import MessageAssertions

NAMES = ["demo-alice", "demo-bob", "demo-carol"]


def demo() -> str:
    """Run the command and return the password that it prints."""
    out = StringIO()
    call_command("demo", stdout=out)
    return re.search("password (.+)", out.getvalue())[1]


class DemoTests(MessageAssertions, ApiTestMixin, APITestCase):
    def log_in(self, username: str, password: str) -> APIClient:
        response = self.client.post("/api/auth/login", {"username": username, "password": password})
        self.assertEqual(response.status_code, 200)
        return APIClient(headers={"authorization": f"Token {response.json()['token']}"})

    def test_creates_users_messages_and_a_block(self):
        demo()

        self.assertEqual(list(User.objects.order_by("username").values_list("username", flat=True)), NAMES)
        self.assertEqual(str(Block.objects.get()), "demo-carol blocks demo-alice")
        messages = list(Message.objects.order_by("pk"))
        times = [message.created for message in messages]
        self.assertEqual(times, sorted(times))
        self.assertGreater(times[-1] - times[0], timedelta(days=2))
        self.assertEqual({message.read is None for message in messages}, {True, False})
        self.assert_counters_agree()

    def test_its_users_can_log_in_send_and_read(self):
        password = demo()

        for name in NAMES:
            self.log_in(name, password)
        alice = self.log_in("demo-alice", password)
        self.assertEqual(len(alice.get("/api/conversation").json()["results"]), 2)
        unread = alice.get("/api/message/received?sender=demo-bob&unread=true").json()
        self.assertEqual(unread["count"], 2)
        to_bob = alice.post("/api/message", {"receiver": "demo-bob", "content": "With pleasure!"})
        self.assertEqual(to_bob.status_code, 201)
        to_carol = alice.post("/api/message", {"receiver": "demo-carol", "content": "Umbrellas!"})
        self.assertEqual(to_carol.status_code, 403)

    def test_rejects_to_run_twice(self):
        password = demo()
        messages = list(Message.objects.values())

        with self.assertRaisesMessage(CommandError, "There are demo users already."):
            demo()

        self.assertEqual(list(Message.objects.values()), messages)
        self.log_in("demo-bob", password)

    def test_rejects_a_name_taken_in_another_letter_case(self):
        User.objects.create(username="Demo-Bob")

        with self.assertRaisesMessage(CommandError, "There are demo users already."):
            demo()

        self.assertEqual(User.objects.count(), 1)

    def test_rejects_names_that_another_process_takes_in_the_meantime(self):
        create = UserManager.create_user

        def create_later(manager, name, **fields):
            User.objects.create(username=name)
            with transaction.atomic():
                return create(manager, name, **fields)

        with (
            patch.object(UserManager, "create_user", create_later),
            self.assertRaisesMessage(CommandError, "There are demo users already."),
        ):
            demo()

        self.assertFalse(Message.objects.exists())

    def test_keeps_other_users(self):
        User.objects.create(username="alice", password="untouched")

        demo()

        self.assertEqual(User.objects.count(), 4)
        self.assertEqual(User.objects.get(username="alice").password, "untouched")

    @override_settings(LIMIT_SEND=Limit(1, 3600), LIMIT_SIGNUP=Limit(1, 3600), PASSWORD_MIN_LENGTH=100)
    def test_ignores_the_send_limit(self):
        password = demo()

        self.assertGreaterEqual(len(password), 100)
        self.log_in("demo-alice", password)
