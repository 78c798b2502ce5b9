"""The command check_mailboxes: finds and repairs every kind of damage, and can do both while clients send and read."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import StringIO
from typing import NamedTuple
from unittest import skipUnless
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F

from config.testing.cases import ApiTestCase, ConcurrentTestCase, make_user
from config.testing.service import test_database_url
from messageservice.actions import mark_read, send_message
from messageservice.comparisons import compare
from messageservice.management.commands import check_mailboxes
from messageservice.models import Conversation, Mailbox, Message
from messageservice.sending import lock_or_create
from messageservice.testing import MessageAssertions, make_message, wait_until_lock_is_awaited

CONTENT = "nobody else's business"
LARGEST_NUMBER = 2**63 - 1  # that a database can store


class Outcome(NamedTuple):
    text: str
    status: int

    @property
    def differences(self) -> list[str]:
        """Each as `alice: sent 0 5`: the mailbox or conversation, the figure, as it is stored and as it should be."""
        return [
            f"{where}: {figure} {stored} {expected}"
            for where, _, figures in (line.partition(": ") for line in self.text.splitlines()[:-1])
            for figure, stored, expected in re.findall(r"(\w+) is (\d+), should be (\d+)", figures)
        ]


def check(**options: bool) -> Outcome:
    out, status = StringIO(), 0
    try:
        call_command("check_mailboxes", stdout=out, stderr=out, **options)
    except CommandError as error:
        status = error.returncode
    return Outcome(out.getvalue(), status)


class DamageTests(MessageAssertions, ApiTestCase):
    """Six messages between alice and bob, and of carol to herself; one was replayed, one read, and a seventh rejected."""

    def setUp(self):
        super().setUp()
        self.clients = {user.username: self.as_user(user) for user in (self.alice, self.bob, self.carol)}
        ends = ("alice", "bob"), ("bob", "alice"), ("alice", "alice"), ("alice", "bob"), ("carol", "alice"), ("bob", "alice")
        self.ids = [self.send(*pair, headers={"Idempotency-Key": f"key{n}"}).json()["id"] for n, pair in enumerate(ends)]
        self.send("alice", "bob", headers={"Idempotency-Key": "key3"})
        self.clients["bob"].post("/api/conversation/alice/read", {"up_to": self.ids[0]})
        self.clients["bob"].post("/api/block", {"blocked": "carol"})
        self.assertEqual(self.send("carol", "bob").status_code, 403)

    def send(self, sender: str, receiver: str, **options):
        return self.clients[sender].post("/api/message", {"receiver": receiver, "content": CONTENT}, **options)

    def place(self, number: int, end: str, place: int) -> None:
        """Change the place of one of the six messages, counted from 1, in its sender's or receiver's mailbox."""
        Message.objects.filter(pk=self.ids[number - 1]).update(**{f"{end}_place": place})

    def assert_found_and_repaired(self, *differences: str) -> None:
        found = check()
        repaired = check(repair=True)
        afterwards = check()

        self.assertCountEqual(found.differences, differences)
        self.assertCountEqual(repaired.differences, differences)
        self.assertEqual(afterwards.differences, [])
        self.assertEqual((found.status, repaired.status, afterwards.status), (1, 0, 0))
        self.assertNotIn(CONTENT, str((found, repaired)))

    def assert_service_goes_on(self) -> None:
        self.assert_counters_agree()
        for name, client in self.clients.items():
            own = Message.objects.involving(getattr(self, name)).newest_first().values_list("pk", flat=True)
            page = client.get("/api/message").json()
            self.assertEqual([row["id"] for row in page["results"]], list(own))
            self.assertEqual(page["count"], len(own))
            for number, pk in enumerate(own, start=1):
                (row,) = client.get(f"/api/message?page_size=1&page={number}").json()["results"]
                self.assertEqual(row["id"], pk)
            partners = [row["last_message"]["id"] for row in client.get("/api/conversation").json()["results"]]
            self.assertEqual(partners, sorted(partners, reverse=True))
        for ends in (("alice", "bob"), ("bob", "alice"), ("alice", "alice"), ("carol", "alice"), ("bob", "carol")):
            self.assertEqual(self.send(*ends).status_code, 201)
        up_to = Message.objects.newest_first().sent_by(self.bob).received_by(self.alice).values_list("pk", flat=True)[0]
        read = self.clients["alice"].post("/api/conversation/bob/read", {"up_to": up_to})
        self.assertEqual(read.json(), {"user": "bob", "unread": 0})
        self.assert_counters_agree()
        self.assertEqual((check().differences, check().status), ([], 0))

    def assert_damage(self, name: str, damage: Callable, *differences: str) -> None:
        with self.subTest(name), transaction.atomic():
            try:
                damage()
                self.assert_found_and_repaired(*differences)
                self.assert_service_goes_on()
            finally:
                transaction.set_rollback(True)

    def test_finds_no_difference_if_nothing_is_damaged(self):
        for options in ({}, {"repair": True}):
            outcome = check(**options)

            self.assertEqual((outcome.differences, outcome.status), ([], 0))
            self.assertIn("3 users", outcome.text)
        self.assert_service_goes_on()

    def test_finds_no_difference_without_messages(self):
        make_user("dave")
        Mailbox.objects.create(user=make_user("erin"))

        outcome = check()

        self.assertEqual((outcome.differences, outcome.status), ([], 0))
        self.assertFalse(Mailbox.objects.filter(user__username="dave").exists())

    def test_figures_of_a_mailbox(self):
        mailbox = Mailbox.objects.filter(user=self.alice)
        for field, right in {"total": 6, "sent": 3, "received": 4, "unread": 3, "conversations": 3}.items():
            for wrong in (0, right + 1, LARGEST_NUMBER):
                self.assert_damage(
                    f"{field} {wrong}",
                    lambda field=field, wrong=wrong: mailbox.update(**{field: wrong}),
                    f"alice: {field} {wrong} {right}",
                )

    def test_all_figures_of_a_mailbox_at_once(self):
        self.assert_damage(
            "all",
            lambda: Mailbox.objects.filter(user=self.bob).update(total=0, sent=0, received=0, unread=0, conversations=0),
            "bob: total 0 4",
            "bob: sent 0 2",
            "bob: received 0 2",
            "bob: unread 0 1",
            "bob: conversations 0 1",
        )

    def test_figures_of_a_conversation(self):
        conversation = Conversation.objects.filter(owner=self.alice, partner=self.bob)
        for field, right in {"sent": 2, "received": 2, "unread": 2, "last_message_id": self.ids[5]}.items():
            wrongs = (self.ids[0], self.ids[4]) if field == "last_message_id" else (0, right + 1, LARGEST_NUMBER)
            for wrong in wrongs:
                self.assert_damage(
                    f"{field} {wrong}",
                    lambda field=field, wrong=wrong: conversation.update(**{field: wrong}),
                    f"alice, conversation with bob: {field} {wrong} {right}",
                )

    def conversation(self, where: str, *figures: tuple[int, int]) -> list[str]:
        """Return the expected differences of a conversation; `figures` are the stored and expected values."""
        fields = ("sent", "received", "unread", "last_message_id")
        return [
            f"{where}: {field} {stored} {expected}"
            for field, (stored, expected) in zip(fields, figures, strict=True)
            if stored != expected
        ]

    def test_rows_that_are_missing(self):
        mailbox = [
            f"alice: {figure}" for figure in ("total 0 6", "sent 0 3", "received 0 4", "unread 0 3", "conversations 0 3")
        ]
        with_bob = self.conversation("alice, conversation with bob", (0, 2), (0, 2), (0, 2), (0, self.ids[5]))
        with_self = self.conversation("alice, conversation with alice", (0, 1), (0, 1), (0, 0), (0, self.ids[2]))
        with_carol = self.conversation("alice, conversation with carol", (0, 0), (0, 1), (0, 1), (0, self.ids[4]))
        self.assert_damage("mailbox", lambda: Mailbox.objects.filter(user=self.alice).delete(), *mailbox)
        self.assert_damage(
            "conversation", lambda: Conversation.objects.filter(owner=self.alice, partner=self.bob).delete(), *with_bob
        )
        self.assert_damage(
            "conversation with oneself",
            lambda: Conversation.objects.filter(owner=self.alice, partner=self.alice).delete(),
            *with_self,
        )
        self.assert_damage(
            "all",
            lambda: (Mailbox.objects.all().delete(), Conversation.objects.all().delete()),
            *mailbox,
            *with_self,
            *with_bob,
            *with_carol,
            *("bob: total 0 4", "bob: sent 0 2", "bob: received 0 2", "bob: unread 0 1", "bob: conversations 0 1"),
            *self.conversation("bob, conversation with alice", (0, 2), (0, 2), (0, 1), (0, self.ids[5])),
            *("carol: total 0 1", "carol: sent 0 1", "carol: conversations 0 1"),
            *self.conversation("carol, conversation with alice", (0, 1), (0, 0), (0, 0), (0, self.ids[4])),
        )

    def test_rows_without_messages(self):
        dave, first = make_user("dave"), self.ids[0]
        self.assert_damage(
            "conversation",
            lambda: Conversation.objects.create(owner=self.bob, partner=self.carol, sent=1, last_message_id=first),
            *self.conversation("bob, conversation with carol", (1, 0), (0, 0), (0, 0), (first, 0)),
        )
        self.assert_damage(
            "conversation with oneself",
            lambda: Conversation.objects.create(owner=self.bob, partner=self.bob, last_message_id=first),
            f"bob, conversation with bob: last_message_id {first} 0",
        )
        self.assert_damage(
            "conversation without a mailbox",
            lambda: Conversation.objects.create(owner=dave, partner=self.bob, last_message_id=first),
            f"dave, conversation with bob: last_message_id {first} 0",
        )
        self.assert_damage(
            "figures without a message",
            lambda: Mailbox.objects.create(user=dave, total=2, unread=1),
            "dave: total 2 0",
            "dave: unread 1 0",
        )

    def test_places(self):
        def swap_first_and_fourth():
            self.place(1, "sender", 7)
            self.place(4, "sender", 1)
            self.place(1, "sender", 4)

        def swap_first_and_second():
            self.place(1, "sender", 2)
            self.place(2, "receiver", 1)

        def shift():
            for end in ("sender", "receiver"):
                places = {f"{end}_place": F(f"{end}_place") + 100}
                Message.objects.filter(**{end: self.alice}).update(**places)

        def split_and_swap():
            self.place(5, "receiver", 9)
            self.place(3, "receiver", 5)
            self.place(5, "receiver", 3)
            self.place(3, "sender", 9)

        for name, damage, misplaced in (
            ("gap", lambda: self.place(6, "receiver", 9), 1),
            ("doubled at both ends", lambda: self.place(2, "receiver", 1), 1),
            ("none", lambda: self.place(1, "sender", 0), 1),
            ("furthest", lambda: self.place(1, "sender", LARGEST_NUMBER), 1),
            ("two of one's own", lambda: self.place(3, "receiver", 8), 1),
            ("two of one's own, doubled", lambda: self.place(3, "sender", 2), 1),
            ("order", swap_first_and_fourth, 2),
            ("order at both ends", swap_first_and_second, 2),
            ("shifted", shift, 7),  # six messages, one with both ends here
            ("all sorts", split_and_swap, 3),
        ):
            self.assert_damage(name, damage, f"alice: misplaced {misplaced} 0")

    def test_places_in_a_mailbox_without_figures(self):
        mailbox, figures = Mailbox.objects.filter(user=self.carol), ("total 0 1", "sent 0 1", "conversations 0 1")
        for name, damage in {
            "missing": mailbox.delete,
            "zero": lambda: mailbox.update(total=0, sent=0, received=0, unread=0, conversations=0),
        }.items():
            self.assert_damage(
                name,
                lambda damage=damage: (damage(), self.place(5, "sender", 9)),
                *(f"carol: {figure}" for figure in (*figures, "misplaced 1 0")),
            )

    def test_repairs_the_counters_not_the_messages(self):
        self.assert_damage(
            "one is gone",
            lambda: Message.objects.filter(pk=self.ids[1]).delete(),
            *("alice: misplaced 5 0", "alice: total 6 5", "alice: received 4 3", "alice: unread 3 2"),
            *(f"alice, conversation with bob: {figure} 2 1" for figure in ("received", "unread")),
            *("bob: misplaced 2 0", "bob: total 4 3", "bob: sent 2 1", "bob, conversation with alice: sent 2 1"),
        )
        self.assert_damage(
            "one was read behind the counters",
            lambda: Message.objects.filter(pk=self.ids[4]).update(read=F("created")),
            "alice: unread 3 2",
            "alice, conversation with carol: unread 1 0",
        )
        self.assert_damage(
            "one to oneself was made unread",
            lambda: Message.objects.filter(pk=self.ids[2]).update(read=None),
            "alice: unread 3 4",
            "alice, conversation with alice: unread 0 1",
        )

    def test_repairs_all_figures_of_all_users(self):
        Mailbox.objects.update(total=0, sent=9)
        Conversation.objects.filter(owner=self.alice).delete()
        for number, place in ((1, 11), (2, 1), (4, 2)):
            self.place(number, "sender", place)

        self.assertIn("3 repaired", check(repair=True).text)
        self.assertEqual(check(repair=True).differences, [])
        self.assert_service_goes_on()

    def test_a_check_changes_nothing(self):
        Mailbox.objects.update(total=0)
        Conversation.objects.filter(owner=self.alice).delete()
        self.place(1, "sender", 9)
        before = [list(model.objects.order_by("pk").values()) for model in (Message, Mailbox, Conversation)]

        self.assertEqual(check(), check())

        after = [list(model.objects.order_by("pk").values()) for model in (Message, Mailbox, Conversation)]
        self.assertEqual(after, before)

    def test_a_repair_keeps_the_window_of_the_send_limit(self):
        Mailbox.objects.update(sent=9)
        before = list(Mailbox.objects.order_by("pk").values("window_sent", "window_ends"))

        check(repair=True)

        self.assertEqual(list(Mailbox.objects.order_by("pk").values("window_sent", "window_ends")), before)

    def test_checks_all_batches(self):
        dave = make_user("dave")
        make_message(dave, self.carol)
        Mailbox.objects.update(unread=7)

        with patch.object(check_mailboxes, "BATCH", 3):
            found = check()

        self.assertEqual({line.partition(":")[0] for line in found.differences}, {"alice", "bob", "carol", "dave"})
        self.assertIn("4 users", found.text)

    def test_number_of_queries_does_not_grow_with_messages(self):
        for more in (0, 30):
            for _ in range(more):
                make_message(self.alice, self.bob)
            with self.subTest(more), self.assertNumQueries(3):
                check()


class DeletedUserTests(ApiTestCase):
    def test_reports_a_user_who_is_deleted_after_the_comparison(self):
        pk = self.alice.pk
        Mailbox.objects.create(user=self.alice, total=1)

        def compare_then_delete(first, last):
            differences = compare(first, last)
            self.alice.delete()
            return differences

        with patch.object(check_mailboxes, "compare", compare_then_delete):
            outcome = check()

        self.assertEqual(outcome.differences, [f"a user who was deleted (id {pk}): total 1 0"])
        self.assertEqual(outcome.status, 1)


class ProcessTests(ConcurrentTestCase):
    """The command in a process of its own, as an operator runs it."""

    def test_exits_with_1_if_something_differs(self):
        make_message(self.alice, self.bob, CONTENT)
        Mailbox.objects.filter(user=self.bob).update(received=0)

        for arguments, differences, status in (
            ([], ["bob: received 0 1"], 1),
            (["--repair"], ["bob: received 0 1"], 0),
            ([], [], 0),
        ):
            done = subprocess.run(  # noqa: S603 - this project's own command
                [sys.executable, "manage.py", "check_mailboxes", *arguments],
                cwd=settings.BASE_DIR,
                env={**os.environ, "DATABASE_URL": test_database_url(), "LOG_DIR": str(self.log_folder)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

            self.assertEqual((Outcome(done.stdout, done.returncode).differences, done.returncode), (differences, status))
            self.assertEqual(done.stderr.count("\n"), status)  # a line that names --repair


class UnderLoadTests(MessageAssertions, ConcurrentTestCase):
    MESSAGES_EACH = 15

    def life(self, sender: User, receiver: User) -> Callable:
        """Return a function that sends and marks as read, in turns, and returns the statuses of the responses."""
        client = self.as_user(sender)

        def live() -> set[int]:
            statuses = set()
            for _ in range(self.MESSAGES_EACH):
                sent = client.post("/api/message", {"receiver": receiver.username, "content": CONTENT})
                read = client.post(f"/api/conversation/{receiver.username}/read", {"up_to": sent.json().get("id")})
                statuses |= {sent.status_code, read.status_code}
            return statuses

        return live

    def lives(self) -> list[Callable]:
        users = self.alice, self.bob, self.carol
        return [self.life(sender, receiver) for sender in users for receiver in users]

    def under_load(self, action: Callable) -> list:
        """Repeat the action until all clients have ended, and return its results."""
        lives, ended = self.lives(), []

        def live(one: Callable) -> set[int]:
            try:
                return one()
            finally:
                ended.append(one)

        def repeat() -> list:
            done = []
            while len(ended) < len(lives):
                done.append(action())
            return done

        results, *statuses = self.in_parallel(repeat, *(lambda one=one: live(one) for one in lives))
        self.assertEqual(statuses, [{201, 200}] * len(lives))
        return results

    def test_a_check_under_load_finds_no_difference(self):
        outcomes = self.under_load(check)

        self.assertGreater(len(outcomes), 3)
        self.assertEqual([outcome for outcome in outcomes if outcome.status or outcome.differences], [])
        self.assertEqual(Message.objects.count(), 9 * self.MESSAGES_EACH)
        self.assert_counters_agree()

    def test_a_repair_makes_no_request_fail(self):
        first = [make_message(*ends).pk for ends in ((self.alice, self.bob), (self.alice, self.bob), (self.bob, self.alice))]

        def damage_and_repair() -> Outcome:
            """Damage that makes no send or read fail: wrong places of old messages, and figures that are too high."""
            with transaction.atomic():
                lock_or_create(self.alice, self.alice)
                Mailbox.objects.filter(user=self.alice).update(sent=F("sent") + 5, unread=F("unread") + 5)
                Conversation.objects.filter(owner=self.alice).update(unread=F("unread") + 1)
                for pk, place in zip(first[:2], (0, 1), strict=True):
                    Message.objects.filter(pk=pk).update(sender_place=place)
            return check(repair=True)

        outcomes = self.under_load(damage_and_repair)

        self.assertGreater(len(outcomes), 3)
        for outcome in outcomes:
            self.assertIn("alice: misplaced 2 0", outcome.differences)
            self.assertEqual(outcome.status, 0)
            self.assertEqual({line.partition(":")[0].partition(",")[0] for line in outcome.differences}, {"alice"})
        self.assert_counters_agree()
        self.assertEqual(check().status, 0)

    def while_a_message_is_being_sent(self, action: Callable, seconds: float) -> tuple:
        """Run the action while a message from alice to bob is written but not committed; return its result and seconds."""
        written = threading.Event()

        def send():
            with transaction.atomic():
                send_message(sender=self.alice, receiver=self.bob, content=CONTENT)
                written.set()
                time.sleep(seconds)

        def do():
            written.wait()
            began = time.monotonic()
            return action(), time.monotonic() - began

        return self.in_parallel(send, do)[1]

    def test_a_check_does_not_wait_for_a_send(self):
        make_message(self.alice, self.bob)

        outcome, seconds = self.while_a_message_is_being_sent(check, seconds=2)

        self.assertEqual((outcome.differences, outcome.status), ([], 0))
        self.assertLess(seconds, 1.5)

    def test_a_repair_counts_a_message_that_was_being_sent(self):
        make_message(self.alice, self.bob)
        Mailbox.objects.filter(user=self.alice).update(sent=7)

        outcome, _ = self.while_a_message_is_being_sent(lambda: check(repair=True), seconds=0.5)

        self.assertEqual(outcome.differences, ["alice: sent 8 2"])
        self.assert_counters_agree()

    @skipUnless(connection.vendor == "postgresql", "SQLite has one lock for the whole database")
    def test_a_repair_of_the_sender_waits_while_messages_are_being_marked_as_read(self):
        message = make_message(self.alice, self.bob)
        Mailbox.objects.filter(user=self.alice).update(sent=7)
        marked = threading.Event()

        def read():
            with transaction.atomic():
                mark_read(conversation=Conversation.objects.get(owner=self.bob), up_to=message.pk)
                marked.set()
                wait_until_lock_is_awaited()

        def repair():
            marked.wait()
            return check(repair=True)

        _, outcome = self.in_parallel(read, repair)

        self.assertEqual((outcome.status, outcome.differences), (0, ["alice: sent 7 1"]))
        self.assertEqual(Message.objects.filter(read=None).count(), 0)
        self.assert_counters_agree()
