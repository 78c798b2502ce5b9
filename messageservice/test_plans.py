"""The query plans of the lists. A page of a time range must read only messages of the range, not the whole mailbox."""

import re
from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.authentication import AuthToken
from config.testing.cases import ApiTestCase
from messageservice.listings import MessageListing
from messageservice.models import Conversation, Mailbox, Message

FIRST_DAY, LAST_DAY = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
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
        """Return the indexes of the table that the list's statement uses, without the primary key."""
        with CaptureQueriesContext(connection) as queries:
            response = self.as_user(self.alice).get(path)
        self.assertEqual(response.status_code, 200, response.content)
        return self.indexes_of(queries[-1]["sql"], table)

    def indexes_of(self, statement: str, table: str) -> set[str]:
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {statement}")
            self.plan = "\n".join(str(row) for row in cursor.fetchall())
        return set(re.findall(rf"\b{table}_\w+", self.plan))


class IndexPlanTests(PlanTests):
    """Each index has a query that needs it. alice has some hundreds of the messages, most of them with bob."""

    @classmethod
    def setUpTestData(cls):
        super().setUpTestData()
        others = User.objects.bulk_create(User(username=f"other{number}") for number in range(300))
        pairs = [(cls.alice, cls.bob), (cls.bob, cls.alice)] * 100 + [(cls.alice, other) for other in others]
        pairs += [(other, cls.carol) for other in others] * 10
        Message.objects.bulk_create(
            Message(
                sender=sender,
                receiver=receiver,
                content="hi",
                read=None if number % 50 else FIRST_DAY,
                sender_place=number,
                receiver_place=number,
                idempotency_key=f"key {number}" if number % 10 == 0 else None,
            )
            for number, (sender, receiver) in enumerate(pairs)
        )
        last = Message.objects.newest_first()[0]
        Mailbox.objects.create(user=cls.alice, total=499, sent=400, received=100, unread=98)
        Conversation.objects.create(owner=cls.alice, partner=cls.bob, sent=100, received=100, unread=98, last_message=last)
        AuthToken.objects.bulk_create(
            AuthToken(digest=f"{number:0128}", token_key="", user=user, created=FIRST_DAY, expiry=LAST_DAY)
            for number, user in enumerate([cls.alice, *others] * 10)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def test_each_index_on_messages_serves_a_list(self):
        last = Message.objects.newest_first()[0].pk
        sent, received = {"message_sent"}, {"message_received"}
        for path, indexes in (
            (f"/api/message?before={last}", sent | received),
            ("/api/message?after=1", sent | received),
            ("/api/message/sent", sent),
            ("/api/message/received", received),
            ("/api/message?user=bob", {"message_between"}),
            ("/api/message/sent?receiver=bob&after=1", {"message_between"}),
            ("/api/message/received?unread=true", {"message_unread"}),
        ):
            with self.subTest(path=path):
                self.assertEqual(self.indexes(path), indexes)

    def test_a_page_of_the_mailbox_is_a_range_of_places(self):
        self.indexes("/api/message?page=2")

        for index in ("sender_place>", "receiver_place>") if connection.vendor == "sqlite" else ("of_sender", "of_receiver"):
            self.assertIn(index, self.plan)

    def test_a_message_is_found_by_its_key(self):
        with CaptureQueriesContext(connection) as queries:
            MessageListing.sent_by(self.alice).with_key("key 10")

        self.assertEqual(self.indexes_of(queries[0]["sql"], "message"), {"message_once_per_key"})

    def test_a_token_is_found_by_its_digest_and_by_its_user(self):
        key, by_user = ("knox_authtoken_pkey", "knox_authtoken_user_id_\\w+")
        if connection.vendor == "sqlite":
            key = "sqlite_autoindex_knox_authtoken_1"
        with CaptureQueriesContext(connection) as queries:
            self.as_user(self.alice).get("/api/auth/session")
        _, holder, listed, _ = [query["sql"] for query in queries]

        self.indexes_of(holder, "knox")
        self.assertRegex(self.plan, rf"\b{key}\b")
        self.indexes_of(listed, "knox")
        self.assertRegex(self.plan, rf"\b{by_user}\b")

    def test_a_token_has_no_other_index(self):
        with connection.cursor() as cursor:
            constraints = connection.introspection.get_constraints(cursor, AuthToken._meta.db_table)

        indexes = [one["columns"] for one in constraints.values() if one["index"] or one["primary_key"]]
        self.assertCountEqual(indexes, [["digest"], ["user_id"]])


class TimeRangePlanTests(PlanTests):
    """alice and bob have so many messages that an index in the order of ids looks cheaper to the planner."""

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
