"""The command check_mailboxes: finds every kind of damage, repairs it, and can do both while the service is written to."""

import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import StringIO
from typing import NamedTuple
from unittest import skipUnless
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F

from config.database.sql import fetch_one
from config.testing.cases import ApiTestCase, ConcurrentTestCase, make_user
from config.testing.service import test_database_url
from messageservice.actions import send_message
from messageservice.management.commands import check_mailboxes
from messageservice.models import Conversation, Mailbox, Message
from messageservice.testing import MessageAssertions, stored

CONTENT = "nobody else's business"
FURTHEST_PLACE = 2**63 - 1  # that a database can store


class Outcome(NamedTuple):
    lines: list[str]
    status: int


def check(**options: bool) -> Outcome:
    out, status = StringIO(), 0
    try:
        call_command("check_mailboxes", stdout=out, stderr=out, **options)
    except SystemExit as end:
        status = end.code
    return Outcome(out.getvalue().splitlines(), status)


class MixedLifeTests(MessageAssertions, ApiTestCase):
    """Six messages: alice's with bob, with carol and with herself; one sent twice, one refused, one read."""

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
        """Store another place for one of the six messages, counted from 1, at its sender's or receiver's end."""
        Message.objects.filter(pk=self.ids[number - 1]).update(**{f"{end}_place": place})

    def assert_found_and_repaired(self, *differences: str) -> None:
        """Each difference as `alice: sent|5|6`: what it is about, what is stored, and what should be."""
        parts = [difference.split("|") for difference in differences]
        users = len({what.partition(":")[0] for what, _, _ in parts})
        counted = f"{User.objects.count()} mailboxes, {Message.objects.count()} messages"
        differ = "1 user differs" if users == 1 else f"{users} users differ"

        found = check()
        repaired = check(repair=True)
        afterwards = check()

        self.assertEqual(
            found.lines,
            [
                *(f"{what} is {stored}, should be {right}" for what, stored, right in parts),
                f"{counted}: {differ}; run again with --repair",
            ],
        )
        self.assertEqual(
            repaired.lines,
            [
                *(f"{what} was {stored}, is {right} now" for what, stored, right in parts),
                f"{counted}: {'1 user' if users == 1 else f'{users} users'} repaired",
            ],
        )
        self.assertEqual(afterwards.lines, [f"{counted}: all agree"])
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
        self.assertEqual((check().lines[-1].partition(": ")[2], check().status), ("all agree", 0))

    def assert_damage(self, name: str, damage: Callable, *differences: str) -> None:
        with self.subTest(name), transaction.atomic():
            try:
                damage()
                self.assert_found_and_repaired(*differences)
                self.assert_service_goes_on()
            finally:
                transaction.set_rollback(True)

    def test_all_agree_where_nothing_is_damaged(self):
        for options in ({}, {"repair": True}):
            self.assertEqual(check(**options), Outcome(["3 mailboxes, 6 messages: all agree"], 0))
        self.assert_service_goes_on()

    def test_all_agree_where_there_are_no_messages(self):
        make_user("dave")
        Mailbox.objects.create(user=make_user("erin"))

        self.assertEqual(check(), Outcome(["5 mailboxes, 6 messages: all agree"], 0))
        self.assertFalse(Mailbox.objects.filter(user__username="dave").exists())

    def test_figures_of_a_mailbox(self):
        mailbox = Mailbox.objects.filter(user=self.alice)
        for field, right in {"total": 6, "sent": 3, "received": 4, "unread": 3, "conversations": 3}.items():
            for wrong in (0, right + 1):
                self.assert_damage(
                    f"{field} {wrong}",
                    lambda field=field, wrong=wrong: mailbox.update(**{field: wrong}),
                    f"alice: {field}|{wrong}|{right}",
                )

    def test_all_figures_of_a_mailbox_at_once(self):
        self.assert_damage(
            "all",
            lambda: Mailbox.objects.filter(user=self.bob).update(total=0, sent=0, received=0, unread=0, conversations=0),
            "bob: total|0|4",
            "bob: sent|0|2",
            "bob: received|0|2",
            "bob: unread|0|1",
            "bob: conversations|0|1",
        )

    def test_figures_of_a_conversation(self):
        conversation = Conversation.objects.filter(owner=self.alice, partner=self.bob)
        for field, right in {"sent": 2, "received": 2, "unread": 2, "last_message": self.ids[5]}.items():
            wrongs = (self.ids[0], self.ids[4]) if field == "last_message" else (0, right + 1)
            for wrong in wrongs:
                self.assert_damage(
                    f"{field} {wrong}",
                    lambda field=field, wrong=wrong: conversation.update(**{field: wrong}),
                    f"alice: {field.replace('_', ' ')} in conversation with bob|{wrong}|{right}",
                )

    def test_rows_that_are_missing(self):
        self.assert_damage(
            "mailbox",
            lambda: Mailbox.objects.filter(user=self.alice).delete(),
            "alice: mailbox|absent|there with total 6, sent 3, received 4, unread 3, conversations 3",
        )
        self.assert_damage(
            "conversation",
            lambda: Conversation.objects.filter(owner=self.alice, partner=self.bob).delete(),
            f"alice: conversation with bob|absent|there with sent 2, received 2, unread 2, last message {self.ids[5]}",
        )
        self.assert_damage(
            "conversation with oneself",
            lambda: Conversation.objects.filter(owner=self.alice, partner=self.alice).delete(),
            f"alice: conversation with alice|absent|there with sent 1, received 1, unread 0, last message {self.ids[2]}",
        )
        self.assert_damage(
            "all",
            lambda: (Mailbox.objects.all().delete(), Conversation.objects.all().delete()),
            "alice: mailbox|absent|there with total 6, sent 3, received 4, unread 3, conversations 3",
            f"alice: conversation with alice|absent|there with sent 1, received 1, unread 0, last message {self.ids[2]}",
            f"alice: conversation with bob|absent|there with sent 2, received 2, unread 2, last message {self.ids[5]}",
            f"alice: conversation with carol|absent|there with sent 0, received 1, unread 1, last message {self.ids[4]}",
            "bob: mailbox|absent|there with total 4, sent 2, received 2, unread 1, conversations 1",
            f"bob: conversation with alice|absent|there with sent 2, received 2, unread 1, last message {self.ids[5]}",
            "carol: mailbox|absent|there with total 1, sent 1, received 0, unread 0, conversations 1",
            f"carol: conversation with alice|absent|there with sent 1, received 0, unread 0, last message {self.ids[4]}",
        )

    def test_rows_that_are_superfluous(self):
        dave = make_user("dave")
        self.assert_damage(
            "conversation",
            lambda: Conversation.objects.create(owner=self.bob, partner=self.carol, sent=1, last_message_id=self.ids[0]),
            "bob: conversation with carol|there|absent",
        )
        self.assert_damage(
            "conversation with oneself",
            lambda: Conversation.objects.create(owner=self.bob, partner=self.bob, last_message_id=self.ids[0]),
            "bob: conversation with bob|there|absent",
        )
        self.assert_damage(
            "conversation without a mailbox",
            lambda: Conversation.objects.create(owner=dave, partner=self.bob, last_message_id=self.ids[0]),
            "dave: conversation with bob|there|absent",
        )
        self.assert_damage(
            "figures without a message",
            lambda: Mailbox.objects.create(user=dave, total=2, unread=1),
            "dave: total|2|0",
            "dave: unread|1|0",
        )

    def test_places(self):
        first, second, third, last = (self.ids[number] for number in (0, 1, 2, 5))

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

        for name, damage, difference in (
            ("gap", lambda: self.place(6, "receiver", 9), f"place of message {last}|9|6"),
            ("doubled at both ends", lambda: self.place(2, "receiver", 1), f"place of message {second}|1|2"),
            ("none", lambda: self.place(1, "sender", 0), f"place of message {first}|0|1"),
            ("furthest", lambda: self.place(1, "sender", FURTHEST_PLACE), f"place of message {first}|{FURTHEST_PLACE}|1"),
            ("two of one's own", lambda: self.place(3, "receiver", 8), f"place of message {third}|8|3"),
            ("two of one's own, doubled", lambda: self.place(3, "sender", 2), f"place of message {third}|2|3"),
            ("order", swap_first_and_fourth, f"place of message {first}, the first of 2 out of place,|4|1"),
            ("order at both ends", swap_first_and_second, f"place of message {first}, the first of 2 out of place,|2|1"),
            ("shifted", shift, f"place of message {first}, the first of 6 out of place,|101|1"),
            ("all sorts", split_and_swap, f"place of message {third}, the first of 2 out of place,|9|3"),
        ):
            self.assert_damage(name, damage, f"alice: {difference}")

    def test_messages_are_the_truth(self):
        self.assert_damage(
            "one is gone",
            lambda: Message.objects.filter(pk=self.ids[1]).delete(),
            f"alice: place of message {self.ids[2]}, the first of 4 out of place,|3|2",
            "alice: total|6|5",
            "alice: received|4|3",
            "alice: unread|3|2",
            "alice: received in conversation with bob|2|1",
            "alice: unread in conversation with bob|2|1",
            f"bob: place of message {self.ids[3]}, the first of 2 out of place,|3|2",
            "bob: total|4|3",
            "bob: sent|2|1",
            "bob: sent in conversation with alice|2|1",
        )
        self.assert_damage(
            "one was read behind the counters",
            lambda: Message.objects.filter(pk=self.ids[4]).update(read=F("created")),
            "alice: unread|3|2",
            "alice: unread in conversation with carol|1|0",
        )
        self.assert_damage(
            "one to oneself was made unread",
            lambda: Message.objects.filter(pk=self.ids[2]).update(read=None),
            "alice: unread|3|4",
            "alice: unread in conversation with alice|0|1",
        )

    def test_repairs_everything_of_everybody_at_once(self):
        def damage():
            Mailbox.objects.update(total=0, sent=9)
            Conversation.objects.filter(owner=self.alice).delete()
            for number, place in ((1, 11), (2, 1), (4, 2)):
                self.place(number, "sender", place)

        damage()

        self.assertEqual(check(repair=True).lines[-1], "3 mailboxes, 6 messages: 3 users repaired")
        self.assertEqual(check(repair=True).lines, ["3 mailboxes, 6 messages: all agree"])
        self.assert_service_goes_on()

    def test_a_check_changes_nothing(self):
        Mailbox.objects.update(total=0)
        Conversation.objects.filter(owner=self.alice).delete()
        self.place(1, "sender", 9)
        before = [list(model.objects.order_by("pk").values()) for model in (Message, Mailbox, Conversation)]

        self.assertEqual(check(), check())

        after = [list(model.objects.order_by("pk").values()) for model in (Message, Mailbox, Conversation)]
        self.assertEqual(after, before)

    def test_a_repair_leaves_the_window_of_the_send_limit_alone(self):
        Mailbox.objects.update(sent=9)
        before = list(Mailbox.objects.order_by("pk").values("window_sent", "window_ends"))

        check(repair=True)

        self.assertEqual(list(Mailbox.objects.order_by("pk").values("window_sent", "window_ends")), before)

    def test_goes_through_all_batches(self):
        dave = make_user("dave")
        stored(dave, self.carol)
        Mailbox.objects.update(unread=7)

        with patch.object(check_mailboxes, "BATCH", 3):
            found = check()

        self.assertEqual([line.partition(":")[0] for line in found.lines[:-1]], ["alice", "bob", "carol", "dave"])
        self.assertEqual(found.lines[-1], "4 mailboxes, 7 messages: 4 users differ; run again with --repair")

    def test_costs_the_same_however_many_messages_there_are(self):
        for more in (0, 30):
            for _ in range(more):
                stored(self.alice, self.bob)
            with self.subTest(more), self.assertNumQueries(4):
                check()


class ProcessTests(ConcurrentTestCase):
    """The command as an operator calls it, in a process of its own."""

    def setUp(self):
        super().setUp()
        stored(self.alice, self.bob, CONTENT)

    def run_command(self, *arguments: str, **streams: int) -> subprocess.CompletedProcess:
        return subprocess.run(  # noqa: S603 - this project's own command
            [sys.executable, "manage.py", "check_mailboxes", *arguments],
            cwd=settings.BASE_DIR,
            env={**os.environ, "DATABASE_URL": test_database_url(), "LOG_DIR": str(self.log_folder)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
            **streams,
        )

    def test_says_by_its_status_whether_something_differs(self):
        Mailbox.objects.filter(user=self.bob).update(received=0)

        for arguments, line, status in (
            ([], "bob: received is 0, should be 1\n3 mailboxes, 1 message: 1 user differs; run again with --repair\n", 1),
            (["--repair"], "bob: received was 0, is 1 now\n3 mailboxes, 1 message: 1 user repaired\n", 0),
            ([], "3 mailboxes, 1 message: all agree\n", 0),
        ):
            done = self.run_command(*arguments, stderr=subprocess.PIPE)

            self.assertEqual((done.stdout, done.stderr, done.returncode), (line, "", status))

    def test_shows_progress_on_a_terminal(self):
        Mailbox.objects.filter(user=self.bob).update(received=0)
        terminal, its_other_end = pty.openpty()
        try:
            done = self.run_command(stderr=its_other_end)
        finally:
            os.close(its_other_end)
        shown = b""
        with os.fdopen(terminal, "rb", buffering=0) as screen, suppress(OSError):  # it ends in an error, as a terminal does
            while more := screen.read(1000):
                shown += more

        back = "\r\033[K"
        self.assertEqual(shown.decode(), f"{back}{back}3 of 3 users{back}")
        self.assertEqual(done.stdout.splitlines()[0], "bob: received is 0, should be 1")


class BesideTheServiceTests(MessageAssertions, ConcurrentTestCase):
    MESSAGES_EACH = 15

    def life(self, sender: User, receiver: User) -> Callable:
        """Sends, each followed by marking as read what came in; the statuses of the answers."""
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

    def beside_the_lives(self, deed: Callable) -> list:
        """What the deed returned each time, done again and again until all who write have ended."""
        lives, ended = self.lives(), []

        def live(one: Callable) -> set[int]:
            try:
                return one()
            finally:
                ended.append(one)

        def repeat() -> list:
            done = []
            while len(ended) < len(lives):
                done.append(deed())
            return done

        results, *statuses = self.at_once(repeat, *(lambda one=one: live(one) for one in lives))
        self.assertEqual(statuses, [{201, 200}] * len(lives))
        return results

    def test_nothing_that_is_being_written_differs(self):
        outcomes = self.beside_the_lives(check)

        self.assertGreater(len(outcomes), 3)
        self.assertEqual([outcome for outcome in outcomes if outcome.status or len(outcome.lines) != 1], [])
        self.assert_counters_agree()
        self.assertEqual(check().lines, [f"3 mailboxes, {9 * self.MESSAGES_EACH} messages: all agree"])

    def test_a_repair_disturbs_nobody(self):
        first = [stored(*ends).pk for ends in ((self.alice, self.bob), (self.alice, self.bob), (self.bob, self.alice))]

        def damage_and_repair() -> Outcome:
            """What sends and reads can live with: places of what they are past, and figures that are too high."""
            with transaction.atomic():
                Mailbox.objects.lock(self.alice, self.alice)
                Mailbox.objects.filter(user=self.alice).update(sent=F("sent") + 5, unread=F("unread") + 5)
                Conversation.objects.filter(owner=self.alice).update(unread=F("unread") + 1)
                for pk, place in zip(first[:2], (0, 1), strict=True):
                    Message.objects.filter(pk=pk).update(sender_place=place)
            return check(repair=True)

        outcomes = self.beside_the_lives(damage_and_repair)

        self.assertGreater(len(outcomes), 3)
        for outcome in outcomes:
            self.assertIn(f"alice: place of message {first[0]}, the first of 2 out of place, was 0, is 1 now", outcome.lines)
            self.assertEqual(outcome.status, 0)
            self.assertEqual({line.partition(":")[0] for line in outcome.lines[:-1]}, {"alice"})
        self.assert_counters_agree()
        self.assertEqual(check().status, 0)

    def while_a_message_is_being_sent(self, deed: Callable, seconds: float) -> tuple:
        """What the deed returns, done while a message from alice to bob is written but not committed, and its seconds."""
        written = threading.Event()

        def send():
            with transaction.atomic():
                send_message(sender=self.alice, receiver=self.bob, content=CONTENT)
                written.set()
                time.sleep(seconds)

        def do():
            written.wait()
            began = time.monotonic()
            return deed(), time.monotonic() - began

        return self.at_once(send, do)[1]

    def test_a_check_waits_for_nobody(self):
        stored(self.alice, self.bob)

        outcome, seconds = self.while_a_message_is_being_sent(check, seconds=2)

        self.assertEqual(outcome, Outcome(["3 mailboxes, 1 message: all agree"], 0))
        self.assertLess(seconds, 1.5)

    def test_a_repair_counts_what_was_being_sent(self):
        stored(self.alice, self.bob)
        Mailbox.objects.filter(user=self.alice).update(sent=7)

        outcome, _ = self.while_a_message_is_being_sent(lambda: check(repair=True), seconds=0.5)

        self.assertEqual(outcome.lines[0], "alice: sent was 8, is 2 now")
        self.assert_counters_agree()

    @staticmethod
    def somebody_waits() -> bool:
        """For a lock, in this database."""
        fetch_one("SELECT pg_stat_clear_snapshot()")  # within a transaction the server would show what it showed at first
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return fetch_one(waiting) != (0,)

    @skipUnless(connection.vendor == "postgresql", "SQLite has but one lock")
    def test_a_repair_gives_way_to_who_holds_its_messages(self):
        """bob marks two messages as read, the later one first, and wants the other when the repair has it."""
        first, second = stored(self.alice, self.bob), stored(self.alice, self.bob)
        for message, place in ((first, 3), (second, 4)):
            Message.objects.filter(pk=message.pk).update(sender_place=place)
        holds_second = threading.Event()

        def read():
            with transaction.atomic():
                Mailbox.objects.lock(self.bob, self.bob)
                Message.objects.filter(pk=second.pk).update(read=F("created"))
                holds_second.set()
                deadline = time.monotonic() + 10
                while not self.somebody_waits() and time.monotonic() < deadline:
                    time.sleep(0.01)
                Message.objects.filter(pk=first.pk).update(read=F("created"))
                Mailbox.objects.filter(user=self.bob).update(unread=0)
                Conversation.objects.filter(owner=self.bob).update(unread=0)

        def repair():
            holds_second.wait()
            return check(repair=True)

        _, outcome = self.at_once(read, repair)

        self.assertEqual(outcome.status, 0)
        self.assertEqual(Message.objects.filter(read=None).count(), 0)
        self.assertEqual(check().lines, ["3 mailboxes, 2 messages: all agree"])
        self.assert_counters_agree()
