"""GET /api/message/<id>, GET /api/conversation, POST /api/conversation/<username>/read, and the filter `user`."""

import threading
from io import BytesIO
from unittest import skipUnless

from django.contrib.auth.models import User
from django.db import connection, transaction
from rest_framework.test import APIClient

from accounts.authentication import issue_token
from blocking.models import Block
from config.testing.cases import ApiTestCase, ConcurrentTestCase, make_user
from config.testing.service import run_service
from messageservice.models import Conversation, Mailbox, Message
from messageservice.sending import lock_or_create
from messageservice.testing import (
    EMPTY_PAGE,
    LISTS,
    NO_SUCH_PAGE,
    MessageAssertions,
    as_json,
    make_message,
    time_json,
    wait_until_lock_is_awaited,
)

NOT_FOUND = {"detail": "Not found."}
NO_SUCH_MESSAGE = {"up_to": ["There is no such message in this conversation."]}
READ = ("Read Conversation", "alice", "bob")


class ReadAssertions(MessageAssertions):
    def mark(self, up_to, partner: str = "bob", client: APIClient | None = None):
        """Send alice's request to mark the partner's messages as read."""
        return (client or self.as_user(self.alice)).post(f"/api/conversation/{partner}/read", {"up_to": up_to})

    def reads(self) -> list[tuple[str, str, str]]:
        return [event for event in self.events() if event[0] == "Read Conversation"]

    def read_of(self, *messages: Message) -> list[bool]:
        """Return whether each of the messages was read."""
        return [Message.objects.get(pk=message.pk).read is not None for message in messages]


class MessageTests(MessageAssertions, ApiTestCase):
    def test_shows_the_message_to_sender_and_receiver(self):
        message = make_message(self.alice, self.bob, " to the letter\n")

        for user in (self.alice, self.bob):
            response = self.as_user(user).get(f"/api/message/{message.pk}")

            self.assertEqual((response.status_code, response.json()), (200, as_json(message)))

    def test_shows_a_message_to_self(self):
        message = make_message(self.alice, self.alice)

        response = self.as_user(self.alice).get(f"/api/message/{message.pk}")

        self.assertEqual((response.status_code, response.json()), (200, as_json(message)))

    def test_shows_it_despite_blocks(self):
        message = make_message(self.alice, self.bob)
        Block.objects.create(blocker=self.bob, blocked=self.alice)
        Block.objects.create(blocker=self.alice, blocked=self.bob)

        for user in (self.alice, self.bob):
            self.assertEqual(self.as_user(user).get(f"/api/message/{message.pk}").json(), as_json(message))

    def test_responds_404_to_other_users(self):
        message = make_message(self.alice, self.bob)

        response = self.as_user(self.carol).get(f"/api/message/{message.pk}")

        self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))

    def test_responds_404_for_an_id_without_a_message(self):
        message = make_message(self.alice, self.bob)
        client = self.as_user(self.alice)
        numbers = (str(message.pk + 1), "0", str(2**63 - 1), str(2**63), "9" * 30, "9" * 5000)
        others = (
            "x",
            "-1",
            "1.5",
            "+1",
            "%201",
            "%00",
            f"{message.pk}%00",
            f"{message.pk}%0A",
            f"{message.pk}/",
            "%EF%BC%91",
        )
        for pk in (*numbers, *others):
            with self.subTest(pk=pk[:30]):
                response = client.get(f"/api/message/{pk}")

                self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))

    def test_requires_a_token(self):
        message = make_message(self.alice, self.bob)

        self.assertEqual(APIClient().get(f"/api/message/{message.pk}").status_code, 401)

    def test_rejects_url_parameters(self):
        message = make_message(self.alice, self.bob)
        for query in ("foo=1", "page=1", "before=1", "user=bob", "unread=true"):
            with self.subTest(query=query):
                response = self.as_user(self.alice).get(f"/api/message/{message.pk}?{query}")

                self.assert_invalid(response, query.partition("=")[0])

    def test_rejects_other_methods(self):
        message = make_message(self.alice, self.bob)
        for method in ("post", "put", "patch", "delete"):
            with self.subTest(method=method):
                response = getattr(self.as_user(self.alice), method)(f"/api/message/{message.pk}")

                self.assertEqual(response.status_code, 405)
        self.assertEqual(Message.objects.count(), 1)


class PartnerListTests(MessageAssertions, ApiTestCase):
    """GET /api/message?user=; pages, cursors and random filters are in test_cursors.py."""

    def get(self, query: str, user=None):
        return self.as_user(user or self.alice).get(f"/api/message?{query}")

    def test_shows_both_directions_and_no_other_user(self):
        sent, received = make_message(self.alice, self.bob), make_message(self.bob, self.alice)
        for ends in ((self.alice, self.carol), (self.carol, self.bob), (self.bob, self.carol), (self.bob, self.bob)):
            make_message(*ends)
        to_self = make_message(self.alice, self.alice)

        self.assertEqual(
            self.get("user=bob").json(), {**EMPTY_PAGE, "count": 2, "results": [as_json(received), as_json(sent)]}
        )
        self.assertEqual(self.get("user=alice", self.bob).json(), self.get("user=bob").json())
        self.assertEqual(self.get("user=alice").json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(to_self)]})

    def test_is_empty_if_they_never_wrote_to_each_other(self):
        make_message(self.alice, self.carol)
        make_message(self.carol, self.bob)
        for name in ("bob", "alice"):
            with self.subTest(name=name):
                response = self.get(f"user={name}")

                self.assertEqual((response.status_code, response.json()), (200, EMPTY_PAGE))

    def test_rejects_a_user_who_does_not_exist(self):
        make_message(self.alice, self.bob)
        for name in ("nobody", "", "%20bob", "bob%00", "%00", "%ff", "b" * 9000, str(self.bob.pk)):
            with self.subTest(name=name[:9]):
                self.assert_invalid(self.get(f"user={name}"), "user")
        self.assert_invalid(self.get("user=bob&user=carol"), "user")

    def test_has_pages_that_keep_the_filter(self):
        messages = [make_message(*ends) for ends in ((self.alice, self.bob), (self.bob, self.alice)) * 2]
        make_message(self.alice, self.carol)

        second = self.get("user=bob&page_size=1&page=2").json()

        self.assertEqual(
            second,
            {
                "count": 4,
                "next": "http://testserver/api/message?page=3&page_size=1&user=bob",
                "previous": "http://testserver/api/message?page_size=1&user=bob",
                "results": [as_json(messages[2])],
            },
        )
        self.assertEqual(self.get("user=bob&page_size=1&page=5").status_code, 404)


class UnreadFilterTests(ReadAssertions, ApiTestCase):
    def get(self, query: str):
        return self.as_user(self.alice).get(f"/api/message/received?{query}")

    def test_returns_unread_or_read_messages(self):
        day = f"{make_message(self.alice, self.bob).created:%Y-%m-%d}"
        first, second = make_message(self.bob, self.alice), make_message(self.bob, self.alice)
        carols, to_self = make_message(self.carol, self.alice), make_message(self.alice, self.alice)
        self.mark(first.pk)
        expected = {
            "unread=true": [carols, second],
            "unread=false": [to_self, first],
            "unread=true&sender=bob": [second],
            "unread=false&sender=bob": [first],
            "unread=true&sender=carol": [carols],
            "unread=false&sender=carol": [],
            "unread=true&sender=alice": [],
            "unread=false&sender=alice": [to_self],
            f"unread=true&date={day}": [carols, second],
            f"unread=false&date={day}&sender=bob": [first],
            "unread=true&date=2020-01-05": [],
        }
        for query, messages in expected.items():
            with self.subTest(query=query):
                page = self.get(query).json()

                self.assertEqual([row["id"] for row in page["results"]], [message.pk for message in messages])
                self.assertEqual(page, {**EMPTY_PAGE, "count": len(messages), "results": page["results"]})

    def test_has_pages_that_keep_the_filter(self):
        for _ in range(3):
            make_message(self.bob, self.alice)

        page = self.get("unread=true&page_size=2").json()

        self.assertEqual((page["count"], len(page["results"])), (3, 2))
        self.assertEqual(page["next"], "http://testserver/api/message/received?page=2&page_size=2&unread=true")
        self.assertEqual(self.get("unread=true&page_size=2&page=3").status_code, 404)
        self.assertEqual(self.get("unread=false&page=2").status_code, 404)

    def test_rejects_a_value_that_is_neither_true_nor_false(self):
        for value in ("True", "FALSE", "1", "0", "", "yes", "null", "%20true", "true%00", "%ff", "true&unread=true"):
            with self.subTest(value=value):
                self.assert_invalid(self.get(f"unread={value}"), "unread")

    def test_belongs_to_received_messages_only(self):
        for path in ("/api/message", "/api/message/sent"):
            with self.subTest(path=path):
                self.assert_invalid(self.as_user(self.alice).get(f"{path}?unread=true"), "unread")


class ConversationListTests(ReadAssertions, ApiTestCase):
    path = "/api/conversation"

    def get(self, query: str = "", user=None):
        return self.as_user(user or self.alice).get(f"{self.path}?{query}" if query else self.path)

    def users(self, query: str = "") -> list[str]:
        return [row["user"] for row in self.get(query).json()["results"]]

    def test_has_a_row_for_each_partner_latest_first(self):
        make_message(self.bob, self.alice)
        from_carol = make_message(self.carol, self.alice)
        to_self = make_message(self.alice, self.alice)
        make_message(self.bob, self.carol)
        make_message(self.bob, self.alice)
        to_bob = make_message(self.alice, self.bob)

        response = self.get()

        self.assertEqual(response.status_code, 200)
        self.assertEqual(
            response.json(),
            {
                **EMPTY_PAGE,
                "count": 3,
                "results": [
                    {"user": "bob", "last_message": as_json(to_bob), "unread": 2},
                    {"user": "alice", "last_message": as_json(to_self), "unread": 0},
                    {"user": "carol", "last_message": as_json(from_carol), "unread": 1},
                ],
            },
        )
        self.assertEqual(
            self.get(user=self.bob).json()["results"][0],
            {"user": "alice", "last_message": as_json(to_bob), "unread": 1},
        )

    def test_a_new_message_moves_its_conversation_to_the_top(self):
        make_message(self.alice, self.bob)
        make_message(self.carol, self.alice)
        before = self.users()

        make_message(self.bob, self.alice)

        self.assertEqual((before, self.users()), (["carol", "bob"], ["bob", "carol"]))

    def test_shows_when_the_last_message_was_read(self):
        message = make_message(self.bob, self.alice)
        self.mark(message.pk)

        for user in (self.alice, self.bob):
            (row,) = self.get(user=user).json()["results"]

            self.assertEqual(row["last_message"], as_json(Message.objects.get()))
            self.assertTime(row["last_message"]["read"])
            self.assertEqual(row["unread"], 0)

    def test_filters_conversations_by_unread(self):
        message = make_message(self.bob, self.alice)
        make_message(self.carol, self.alice)
        make_message(self.alice, self.alice)
        make_message(self.alice, make_user("dave"))

        self.assertEqual((self.users("unread=true"), self.users("unread=false")), (["carol", "bob"], ["dave", "alice"]))
        self.assertEqual(self.get("unread=true").json()["count"], 2)
        self.mark(message.pk)
        self.assertEqual((self.users("unread=true"), self.users("unread=false")), (["carol"], ["dave", "alice", "bob"]))

    def test_is_empty_if_there_are_no_messages(self):
        make_message(self.bob, self.carol)
        for query in ("", "unread=true", "unread=false", "page=1"):
            with self.subTest(query=query):
                self.assertEqual(self.get(query).json(), EMPTY_PAGE)

    def test_has_pages(self):
        for number in range(21):
            make_message(make_user(f"user{number}"), self.alice)
        names = [f"user{number}" for number in range(20, -1, -1)]

        page = self.get().json()

        self.assertEqual((page["count"], page["previous"]), (21, None))
        self.assertEqual([row["user"] for row in page["results"]], names[:20])
        self.assertEqual(page["next"], "http://testserver/api/conversation?page=2")
        self.assertEqual(self.users("page=2"), names[20:])
        self.assertEqual(
            self.get("unread=true&page_size=10&page=2").json(),
            {
                "count": 21,
                "next": "http://testserver/api/conversation?page=3&page_size=10&unread=true",
                "previous": "http://testserver/api/conversation?page_size=10&unread=true",
                "results": self.get("page_size=10&page=2").json()["results"],
            },
        )
        for number in ("3", "0", "9" * 15, "9" * 16, "9" * 30):
            with self.subTest(page=number):
                response = self.get(f"page={number}")

                self.assertEqual((response.status_code, response.json()), (404, NO_SUCH_PAGE))
        self.assert_invalid(self.get("page_size=101"), "page_size")

    def test_before_shows_the_conversations_with_older_last_messages(self):
        make_message(make_user("dave"), self.alice)
        first, second, third = (make_message(user, self.alice) for user in (self.bob, self.carol, self.alice))
        make_message(self.bob, self.carol)

        page = self.get(f"before={third.pk}&page_size=1").json()

        self.assertEqual(
            page,
            {
                "next": f"http://testserver/api/conversation?before={second.pk}&page_size=1",
                "previous": None,
                "results": [{"user": "carol", "last_message": as_json(second), "unread": 1}],
            },
        )
        self.assertEqual(self.walk(f"before={third.pk}"), [["carol", "bob", "dave"]])
        self.assertEqual(self.walk(f"before={first.pk}"), [["dave"]])
        self.assertEqual(self.walk(f"before={first.pk + 1}&page_size=2"), [["bob", "dave"]])

    def walk(self, query: str) -> list[list[str]]:
        """Return the users on each page, from the first to the last that `next` leads to."""
        url, pages = f"{self.path}?{query}", []
        while url:
            page = self.as_user(self.alice).get(url).json()
            self.assertEqual((page.keys(), page["previous"]), ({"next", "previous", "results"}, None))
            pages.append([row["user"] for row in page["results"]])
            url = page["next"]
        return pages

    def test_before_combines_with_unread(self):
        for number in range(7):
            make_message(make_user(f"user{number}"), self.alice)
        for number in (1, 2, 5):
            self.mark(Message.objects.get(sender__username=f"user{number}").pk, f"user{number}")

        self.assertEqual(self.walk("before=9999999999&unread=true&page_size=3"), [["user6", "user4", "user3"], ["user0"]])
        self.assertEqual(self.walk("before=9999999999&unread=false&page_size=1"), [["user5"], ["user2"], ["user1"]])

    def test_before_has_twenty_rows_by_default(self):
        for number in range(21):
            make_message(make_user(f"user{number}"), self.alice)

        self.assertEqual([len(page) for page in self.walk(f"before={10**18}")], [20, 1])

    def test_following_next_visits_every_conversation_that_does_not_move(self):
        for number in range(9):
            make_message(make_user(f"user{number}"), self.alice)
        seen, url = [], f"{self.path}?before={10**18}&page_size=2"

        while url:
            page = self.as_user(self.alice).get(url).json()
            seen += [row["user"] for row in page["results"]]
            make_message(User.objects.get(username="user0"), self.alice)
            make_message(User.objects.get(username=seen[0]), self.alice)
            make_message(make_user(f"newcomer{len(seen)}"), self.alice)
            url = page["next"]

        self.assertEqual(seen, [f"user{number}" for number in range(8, 0, -1)])

    def test_before_accepts_any_whole_number(self):
        largest = 2**63 - 1
        make_message(self.bob, self.alice)
        Conversation.objects.create(
            owner=self.alice,
            partner=self.carol,
            last_message=Message.objects.create(
                pk=largest, sender=self.carol, receiver=self.alice, content="hi", sender_place=1, receiver_place=2
            ),
        )
        for start, pages in {
            "0": [[]],
            "1": [[]],
            "0" * 40 + "1": [[]],
            str(largest): [["bob"]],
            str(largest + 1): [["carol"], ["bob"]],
            str(largest + 2): [["carol"], ["bob"]],
            "9" * 5000: [["carol"], ["bob"]],
        }.items():
            with self.subTest(start=start[:30]):
                self.assertEqual(self.walk(f"before={start}&page_size=1"), pages)

    def test_rejects_a_before_that_is_invalid_repeated_or_combined_with_a_page(self):
        make_message(self.bob, self.alice)
        for value in [
            "-1",
            "-0",
            "1.5",
            "x",
            "1x",
            "0x1",
            "1e3",
            "1_0",
            "%2B1",
            "%201",
            "1%20",
            "1%0A",
            "1%00",
            "%00",
            "%ff",
            "%EF%BC%91",
            "null",
        ]:
            with self.subTest(value=value):
                self.assert_invalid(self.get(f"before={value}"), "before")
        self.assert_invalid(self.get("before="), "before")
        self.assert_invalid(self.get("before=1&before=1"), "before")
        self.assert_invalid(self.get("before=1&page=1"), "before", "page")
        self.assert_invalid(self.get("before=1&page_size=101"), "page_size")
        self.assert_invalid(self.get("before=1&unread=x"), "unread")
        self.assert_invalid(self.get("before=1&after=1"), "after")

    def test_before_and_the_missing_count_are_described(self):
        description = self.client.get("/api/schema").json()
        parameters = {parameter["name"]: parameter for parameter in description["paths"][self.path]["get"]["parameters"]}
        page = description["components"]["schemas"]["PaginatedConversationList"]

        self.assertEqual(parameters["before"]["schema"], {"type": "integer", "format": "int64", "minimum": 0})
        self.assertIn("last message", parameters["before"]["description"])
        self.assertEqual(page["required"], ["next", "previous", "results"])
        self.assertIn("count", page["properties"])

    def test_rejects_parameters_that_are_unknown_empty_repeated_or_wrong(self):
        for query in ("after=0", "user=bob", "date=2020-01-05", "foo=1", "unread=", "unread=1", "unread=True"):
            with self.subTest(query=query):
                self.assert_invalid(self.get(query), query.partition("=")[0])
        self.assert_invalid(self.get("unread=true&unread=true"), "unread")

    def test_requires_a_token(self):
        self.assertEqual(APIClient().get(self.path).status_code, 401)

    def test_rejects_other_methods(self):
        for method in ("post", "put", "delete"):
            self.assertEqual(getattr(self.as_user(self.alice), method)(self.path).status_code, 405)


class ReadTests(ReadAssertions, ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)

    def assert_rejected(self, response) -> None:
        self.assert_invalid(response, "up_to")
        self.assertFalse(Message.objects.filter(read__isnull=False).exists())
        self.assertEqual(self.reads(), [])

    def test_marks_messages_up_to_and_including_the_given_one(self):
        messages = [make_message(self.bob, self.alice) for _ in range(3)]

        response = self.mark(messages[1].pk)

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 1}))
        self.assertEqual(self.read_of(*messages), [True, True, False])
        self.assertEqual(self.reads(), [READ])
        self.assert_counters_agree()

    def test_marks_all_messages_up_to_the_last(self):
        messages = [make_message(self.bob, self.alice) for _ in range(3)]

        response = self.mark(messages[-1].pk)

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 0}))
        self.assertEqual(self.read_of(*messages), [True] * 3)
        self.assertEqual(len(set(Message.objects.values_list("read"))), 1)
        self.assert_counters_agree()

    def test_sender_and_receiver_see_the_time(self):
        message = make_message(self.bob, self.alice)
        unread = [self.as_user(user).get(f"/api/message/{message.pk}").json() for user in (self.alice, self.bob)]

        self.mark(message.pk)

        read = time_json(Message.objects.get().read)
        self.assertEqual(unread, [as_json(message)] * 2)
        self.assertIsNone(unread[0]["read"])
        self.assertTime(read)
        for user, path in ((self.alice, "received"), (self.bob, "sent")):
            client = self.as_user(user)
            self.assertEqual(client.get(f"/api/message/{message.pk}").json(), {**as_json(message), "read": read})
            for page in (client.get("/api/message").json(), client.get(f"/api/message/{path}").json()):
                self.assertEqual(page["results"], [{**as_json(message), "read": read}])

    def test_accepts_a_message_that_the_reader_sent(self):
        first, own, last = (
            make_message(self.bob, self.alice),
            make_message(self.alice, self.bob),
            make_message(self.bob, self.alice),
        )

        response = self.mark(own.pk)

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 1}))
        self.assertEqual(self.read_of(first, own, last), [True, False, False])
        self.assert_counters_agree()

    def test_is_repeatable_and_never_undone(self):
        first, second, third = (make_message(self.bob, self.alice) for _ in range(3))
        self.mark(second.pk)
        read = Message.objects.get(pk=first.pk).read

        responses = [self.mark(up_to.pk) for up_to in (second, first)]

        self.assertEqual([response.json() for response in responses], [{"user": "bob", "unread": 1}] * 2)
        self.assertEqual(self.reads(), [READ])
        self.assertEqual(self.mark(third.pk).json(), {"user": "bob", "unread": 0})
        self.assertEqual([Message.objects.get(pk=message.pk).read for message in (first, second)], [read, read])
        self.assertGreater(Message.objects.get(pk=third.pk).read, read)
        self.assertEqual(self.reads(), [READ, READ])
        self.assert_counters_agree()

    def test_marks_only_messages_from_that_user_to_the_reader(self):
        others = [
            make_message(*ends)
            for ends in (
                (self.carol, self.alice),
                (self.alice, self.bob),
                (self.alice, self.carol),
                (self.carol, self.bob),
                (self.bob, self.carol),
            )
        ]
        message = make_message(self.bob, self.alice)

        response = self.mark(message.pk)

        self.assertEqual(response.json(), {"user": "bob", "unread": 0})
        self.assertEqual(self.read_of(message, *others), [True] + [False] * 5)
        self.assert_counters_agree()

    def test_message_to_self_is_read_from_the_start(self):
        response = self.client.post("/api/message", {"receiver": "alice", "content": "milk"}).json()
        message = Message.objects.get()

        marked = self.mark(message.pk, partner="alice")

        self.assertEqual(response["read"], response["created"])
        self.assertEqual((marked.status_code, marked.json()), (200, {"user": "alice", "unread": 0}))
        self.assertEqual(as_json(Message.objects.get()), response)
        self.assertEqual(self.reads(), [])
        self.assert_counters_agree()

    def test_works_with_a_deactivated_user(self):
        message = make_message(self.bob, self.alice)
        User.objects.filter(pk=self.bob.pk).update(is_active=False)

        response = self.mark(message.pk)

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 0}))
        for path in ("/api/message?user=bob", "/api/message/received?sender=bob", "/api/conversation"):
            self.assertEqual(self.client.get(path).json()["count"], 1, path)
        self.assertEqual(self.client.get("/api/message/sent?receiver=bob").json(), EMPTY_PAGE)

    def test_works_with_a_block_between_the_two(self):
        message = make_message(self.bob, self.alice)
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        response = self.mark(message.pk)

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 0}))
        self.assertEqual(self.read_of(message), [True])

    def test_reads_a_form(self):
        message = make_message(self.bob, self.alice)

        response = self.client.post(
            "/api/conversation/bob/read", f"up_to={message.pk}", content_type="application/x-www-form-urlencoded"
        )

        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 0}))

    def test_rejects_an_invalid_id(self):
        pk = make_message(self.bob, self.alice).pk
        texts = ("", " ", "x", "1.5", f" {pk}", f"+{pk}", f"{pk}.0", f"{pk}_0", f"{pk}\0", "9" * 30, "9" * 5000, "１")  # noqa: RUF001
        for up_to in (None, True, False, 0, -1, 1.5, float(pk), 1e300, 10**30, 2**63, [], [pk], {}, {"id": pk}, *texts):
            with self.subTest(up_to=str(up_to)[:30]):
                self.assert_rejected(self.mark(up_to))

    def test_rejects_a_file(self):
        file = BytesIO(b"hello")
        file.name = str(make_message(self.bob, self.alice).pk)

        response = self.as_user(self.alice).post("/api/conversation/bob/read", {"up_to": file}, format="multipart")

        self.assert_rejected(response)

    def test_rejects_a_body_without_up_to(self):
        make_message(self.bob, self.alice)

        self.assert_rejected(self.client.post("/api/conversation/bob/read"))
        self.assert_rejected(self.client.post("/api/conversation/bob/read", {"upto": 1}))
        self.assert_invalid(self.client.post("/api/conversation/bob/read", [1]), "non_field_errors")

    def test_rejects_a_message_of_another_conversation(self):
        make_message(self.bob, self.alice)
        others = [
            make_message(*ends)
            for ends in ((self.carol, self.alice), (self.alice, self.carol), (self.bob, self.carol), (self.bob, self.bob))
        ]
        for pk in (*[message.pk for message in others], others[-1].pk + 1, 2**63 - 1):
            with self.subTest(pk=pk):
                response = self.mark(pk)

                self.assertEqual(response.json(), NO_SUCH_MESSAGE)
                self.assertEqual(response.status_code, 400)
                self.assertFalse(Message.objects.get(sender=self.bob, receiver=self.alice).read)
        self.assertEqual(self.reads(), [])
        self.assert_counters_agree()

    def test_responds_404_without_a_conversation(self):
        message = make_message(self.bob, self.alice)
        names = ("nobody", "carol", "alice", "bob%00", "%00", "%ff", "bob%20", "bob%0A", "b" * 5000)
        for name in (*names, "..", str(self.bob.pk)):
            for body in ({"up_to": message.pk}, {}):
                with self.subTest(name=name[:9], body=body):
                    response = self.client.post(f"/api/conversation/{name}/read", body)

                    self.assertEqual((response.status_code, response.json()), (404, NOT_FOUND))
        self.assertEqual(self.read_of(message), [False])
        self.assertEqual(self.reads(), [])

    def test_requires_a_token(self):
        message = make_message(self.bob, self.alice)

        self.assertEqual(self.mark(message.pk, client=APIClient()).status_code, 401)
        self.assertEqual(self.read_of(message), [False])

    def test_rejects_url_parameters_and_other_methods(self):
        message = make_message(self.bob, self.alice)

        self.assert_invalid(self.client.post("/api/conversation/bob/read?up_to=1", {"up_to": message.pk}), "up_to")
        for method in ("get", "put", "patch", "delete"):
            self.assertEqual(getattr(self.client, method)("/api/conversation/bob/read").status_code, 405)
        self.assertEqual(self.read_of(message), [False])


class NoGetChangesAnythingTests(ReadAssertions, ApiTestCase):
    def contents(self) -> list[tuple]:
        rows = []
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608 - the database's own names
                rows.append((table, sorted(cursor.fetchall(), key=repr)))
        return rows

    def test_no_get_changes_anything(self):
        message = make_message(self.bob, self.alice)
        for ends in ((self.alice, self.bob), (self.alice, self.alice), (self.carol, self.alice)):
            make_message(*ends)
        Block.objects.create(blocker=self.alice, blocked=self.carol)
        clients = [self.as_user(user) for user in (self.alice, self.bob, make_user("dave"))]
        paths = [f"/api/message/{message.pk}", "/api/conversation", "/api/conversation?unread=true", "/api/block"]
        paths += ["/api/auth/user", "/api/message/received?unread=true", "/api/message?user=bob", "/healthz", "/readyz"]
        paths += [f"{path}{query}" for path in LISTS for query in ("", "?page=2&page_size=1", "?before=9", "?after=0")]
        before = self.contents()

        for client in clients:
            for path in paths:
                self.assertIn(client.get(path).status_code, (200, 404), path)
                self.assertIn(client.head(path).status_code, (200, 404), path)

        self.assertEqual(self.contents(), before)
        self.assertIsNone(Message.objects.get(pk=message.pk).read)


class ParallelReadTests(ReadAssertions, ConcurrentTestCase):
    ROUNDS = 5

    def test_reads_and_sends_in_both_directions(self):
        last = [make_message(self.alice, self.bob), make_message(self.bob, self.alice)][-1].pk
        alice, bob = ([self.as_user(user) for _ in range(5)] for user in (self.alice, self.bob))
        actions = (
            lambda client, partner: client.post("/api/message", {"receiver": partner, "content": "hi"}),
            lambda client, partner: self.mark(client.get("/api/message").json()["results"][0]["id"], partner, client),
            lambda client, partner: self.mark(last, partner, client),
        )

        statuses = self.in_parallel(
            *[
                lambda action=action, client=client, partner=partner: [
                    action(client, partner).status_code for _ in range(self.ROUNDS)
                ]
                for clients, partner in ((alice, "bob"), (bob, "alice"))
                for action, client in zip((actions[0], actions[0], *actions), clients, strict=True)
            ]
        )

        expected = [[status] * self.ROUNDS for status in (201, 201, 201, 200, 200)]
        self.assertEqual(statuses, expected * 2)
        self.assert_counters_agree()

    def test_only_one_of_many_requests_marks_the_messages(self):
        message = make_message(self.bob, self.alice)
        clients = [self.as_user(self.alice) for _ in range(8)]

        responses = self.in_parallel(*[lambda client=client: self.mark(message.pk, client=client) for client in clients])

        self.assertEqual([response.json() for response in responses], [{"user": "bob", "unread": 0}] * 8)
        self.assertEqual(self.reads(), [READ])
        self.assert_counters_agree()

    @skipUnless(connection.vendor == "postgresql", "SQLite has one lock for the whole database")
    def test_locks_the_mailbox_before_it_marks_messages(self):
        """A transaction that holds the mailbox, as a repair does, can go on to change the messages without a deadlock."""
        message, client, holds_mailbox = make_message(self.bob, self.alice), self.as_user(self.alice), threading.Event()

        def hold_mailbox_then_change_message():
            with transaction.atomic():
                lock_or_create(self.alice, self.alice)
                holds_mailbox.set()
                wait_until_lock_is_awaited()
                return Message.objects.filter(pk=message.pk, read=None).update(content="changed")

        def read():
            holds_mailbox.wait()
            return self.mark(message.pk, client=client)

        changed, response = self.in_parallel(hold_mailbox_then_change_message, read)

        self.assertEqual(changed, 1)
        self.assertEqual((response.status_code, response.json()), (200, {"user": "bob", "unread": 0}))
        self.assert_counters_agree()

    def test_reads_and_sends_in_four_processes(self):
        names = ("alice", "bob")
        tokens = {name: issue_token(getattr(self, name))[1] for name in names}
        make_message(self.alice, self.bob)

        def send(name: str, partner: str) -> set[int]:
            body = {"receiver": partner, "content": "hi"}
            return {service.request("POST", "/api/message", body, tokens[name])[0] for _ in range(10)}

        def read(name: str, partner: str) -> set[int]:
            statuses = set()
            for _ in range(10):
                newest = service.request("GET", "/api/message?page_size=1", token=tokens[name])[1]["results"][0]["id"]
                path = f"/api/conversation/{partner}/read"
                statuses.add(service.request("POST", path, {"up_to": newest}, tokens[name])[0])
            return statuses

        with run_service(self.log_folder) as service:
            statuses = self.in_parallel(
                *[
                    lambda action=action, ends=ends: action(*ends)
                    for action in (send, read)
                    for ends in (names, names[::-1])
                    for _ in range(3)
                ]
            )

        self.assertEqual(statuses, [{201}] * 6 + [{200}] * 6)
        self.assertEqual(Message.objects.count(), 61)
        self.assertEqual(self.log_lines("debug"), [])
        self.assert_counters_agree()
        self.assertEqual(Mailbox.objects.get(user=self.alice).total, 61)
        self.assertEqual(Conversation.objects.count(), 2)
