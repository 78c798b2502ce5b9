"""The plans of the lists: a page of a time range must cost what its messages cost, not those of the mailbox."""

import re
from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.testing.cases import ApiTestCase
from messageservice.models import Conversation, Message

FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
DAYS, MESSAGES_A_DAY = 10, 300
PERIODS = (
    "date=2020-01-02",
    "since=2020-01-10T00:00:00Z",
    "until=2020-01-02T00:00:00Z",
    "since=2020-01-05T06:00:00Z&until=2020-01-05T18:00:00Z",
)
LATEST, UNREAD = "conversation_latest", "conversation_unread"
SENT, RECEIVED = "message_sent_on_day", "message_received_on_day"


class PlanTests(ApiTestCase):
    def indexes(self, path: str, table: str = "message") -> set[str]:
        """The indexes of the table that the list's statement uses, the primary key aside."""
        with CaptureQueriesContext(connection) as queries:
            response = self.as_user(self.alice).get(path)
        self.assertEqual(response.status_code, 200, response.content)
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {queries[-1]['sql']}")
            self.plan = "\n".join(str(row) for row in cursor.fetchall())
        return set(re.findall(rf"\b{table}_\w+", self.plan))


class TimeRangePlanTests(PlanTests):
    """alice and bob have sent each other so many messages that an index in the order of ids looks cheaper for a page."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        Message.objects.bulk_create(
            Message(
                sender=cls.alice if place % 2 else cls.bob,
                receiver=cls.bob if place % 2 else cls.alice,
                content="hi",
                created=FIRST_DAY + place * timedelta(days=1) / MESSAGES_A_DAY,
                sender_place=place,
                receiver_place=place,
            )
            for place in range(DAYS * MESSAGES_A_DAY)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def test_a_range_is_read_by_its_own_index(self):
        last = Message.objects.newest_first()[0].pk
        for path, partner, indexes in (
            ("/api/message", "user", {SENT, RECEIVED}),
            ("/api/message/sent", "receiver", {SENT}),
            ("/api/message/received", "sender", {RECEIVED}),
        ):
            for filters in ("", f"&{partner}=bob"):
                for position in ("", "&page=2", f"&before={last}", "&after=1"):
                    for period in PERIODS:
                        with self.subTest(path=path, period=period, filters=filters, position=position):
                            self.assertEqual(self.indexes(f"{path}?{period}{filters}{position}"), indexes)


class ConversationPlanTests(PlanTests):
    """alice has so many conversations that reading all of them would cost more than a page."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        partners = User.objects.bulk_create(User(username=f"partner{number}") for number in range(2000))
        messages = Message.objects.bulk_create(
            Message(sender=partner, receiver=cls.alice, content="hi", sender_place=1, receiver_place=place)
            for place, partner in enumerate(partners)
        )
        Conversation.objects.bulk_create(
            Conversation(owner=cls.alice, partner=partner, last_message=message, received=1, unread=message.pk % 2)
            for partner, message in zip(partners, messages, strict=True)
        )
        cls.middle = messages[len(messages) // 2].pk
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def test_a_page_before_an_id_is_read_by_the_index_of_last_messages(self):
        for filters, index in (("", LATEST), ("&unread=false", LATEST), ("&unread=true", UNREAD)):
            with self.subTest(filters=filters):
                self.assertEqual(self.indexes(f"/api/conversation?before={self.middle}{filters}", "conversation"), {index})
                self.assertRegex(self.plan, r"last_message_id <=? \d+|last_message_id<\?")
