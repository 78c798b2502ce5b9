import re
import threading
import time
from io import StringIO

from django.core.management import CommandError, call_command
from django.db import connection, transaction

from config.testing.cases import ApiTestCase, ConcurrentTestCase
from messageservice.models import Message


def skip_ids(*arguments: str) -> tuple[int, int]:
    """Run the command and return the next id before and after, which it prints."""
    out = StringIO()
    call_command("skip_ids", *arguments, stdout=out)
    new, old = re.fullmatch(
        r"The next message gets the id (\d+)\. Without the skip it would get (\d+)\.\n", out.getvalue()
    ).groups()
    return int(old), int(new)


class SkipIdsTests(ApiTestCase):
    def send(self):
        """Send a message from alice to bob, and return its id."""
        return self.as_user(self.alice).post("/api/message", {"receiver": "bob", "content": "hi"}).json()["id"]

    def test_skips_a_hundred_million_ids_by_default(self):
        first = self.send()

        old, new = skip_ids()

        self.assertEqual((old, new), (first + 1, first + 100_000_001))
        self.assertEqual(self.send(), new)

    def test_skips_the_given_number_of_ids(self):
        first = self.send()

        skips = [skip_ids("1"), skip_ids("10000000000")]

        for old, new in skips:
            self.assertGreater(old, first)
            self.assertLess(old, new)
        self.assertLessEqual(skips[0][1], skips[1][0])
        self.assertEqual(self.send(), skips[1][1])

    def test_poller_who_has_seen_a_lost_message_gets_the_next_one(self):
        lost = self.send() + 50  # the largest id that bob has seen; the restored database does not know it

        skip_ids("100")
        sent = self.send()

        page = self.as_user(self.bob).get(f"/api/message?after={lost}").json()
        self.assertEqual([message["id"] for message in page["results"]], [sent])

    def test_before_the_first_message(self):
        _, new = skip_ids("7")

        self.assertEqual(self.send(), new)

    def test_starts_from_the_largest_id_that_is_stored(self):
        last = Message.objects.create(
            id=self.send() + 10**12, sender=self.alice, receiver=self.bob, content="hi", sender_place=9, receiver_place=9
        )

        self.assertEqual(skip_ids("5"), (last.id + 1, last.id + 6))

    def test_rejects_an_invalid_number_of_ids(self):
        first = self.send()

        for n in ("0", "-1", "1.5", "1e6", "1_000", "٣", "many", "", " 1", "10000000001", "9" * 30):
            with (
                self.subTest(n=n),
                self.assertRaisesRegex(CommandError, r"\A[^\n]+ is not a whole number from 1 to \d+\.\Z"),
            ):
                skip_ids(n)
        self.assertLess(self.send(), first + 100)


class ParallelSkipIdsTests(ConcurrentTestCase):
    def test_waits_for_messages_that_are_being_sent(self):
        skips = []

        def skip():
            skips.append(skip_ids("1"))
            connection.close()

        thread = threading.Thread(target=skip)
        with transaction.atomic():
            message = Message.objects.create(
                sender=self.alice, receiver=self.bob, content="hi", sender_place=9, receiver_place=9
            )
            thread.start()
            time.sleep(0.5)
            self.assertEqual(skips, [])
        thread.join()

        self.assertGreater(skips[0][0], message.id)
