"""The plans of the lists: a page of one day must cost what the messages of that day cost, not those of the mailbox."""

import re
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.testing.cases import ApiTestCase
from messageservice.models import Message

FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
DAYS, MESSAGES_A_DAY = 10, 300
SENT, RECEIVED = "message_sent_on_day", "message_received_on_day"


class DayPlanTests(ApiTestCase):
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

    def indexes(self, path: str) -> set[str]:
        """The indexes of messages that the list's statement uses, the primary key aside."""
        with CaptureQueriesContext(connection) as queries:
            response = self.as_user(self.alice).get(path)
        self.assertEqual(response.status_code, 200, response.content)
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {queries[-1]['sql']}")
            plan = "\n".join(str(row) for row in cursor.fetchall())
        return set(re.findall(r"\bmessage_\w+", plan))

    def test_a_day_is_read_by_its_own_index(self):
        last = Message.objects.newest_first()[0].pk
        for path, partner, indexes in (
            ("/api/message", "user", {SENT, RECEIVED}),
            ("/api/message/sent", "receiver", {SENT}),
            ("/api/message/received", "sender", {RECEIVED}),
        ):
            for filters in ("", f"&{partner}=bob"):
                for position in ("", "&page=2", f"&before={last}", "&after=1"):
                    with self.subTest(path=path, filters=filters, position=position):
                        self.assertEqual(self.indexes(f"{path}?date=2020-01-02{filters}{position}"), indexes)
