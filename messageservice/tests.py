import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.parse import parse_qsl, urlsplit

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from rest_framework.test import APIClient

from accounts.authentication import issue_token
from blocking.models import Block
from config.testing.cases import PASSWORD, ApiTestCase, ConcurrentTestCase, delete_after_lookup
from config.testing.service import run_service
from messageservice.models import Mailbox, Message
from messageservice.sending import lock_or_create
from messageservice.testing import (
    EMPTY_PAGE,
    NO_SUCH_PAGE,
    MessageAssertions,
    as_json,
    make_message,
    wait_until_lock_is_awaited,
)


class SendTests(MessageAssertions, ApiTestCase):
    def post(self, body, path="/api/message", media_type="application/json"):
        """Send alice's request. The body is sent as ASCII, so that it can hold invalid text, such as a lone surrogate."""
        return self.as_user(self.alice).post(path, json.dumps(body), content_type=media_type)

    def assert_rejected(self, response, *fields: str) -> None:
        self.assert_invalid(response, *fields)
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [])

    def test_stores_and_returns_the_message(self):
        response = self.post({"receiver": "bob", "content": "hi"})

        message = Message.objects.get()
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response.json(), as_json(message))
        self.assertTime(response.json()["created"])
        self.assertEqual((message.sender, message.receiver, message.content), (self.alice, self.bob, "hi"))
        self.assertIsNone(message.read)
        self.assertEqual(self.events(), [("Successful Message", "alice", "bob")])

    def test_returns_six_digits_of_a_second_even_if_they_are_zeros(self):
        with mock.patch("django.utils.timezone.now", return_value=datetime(2020, 1, 5, tzinfo=UTC)):
            response = self.post({"receiver": "bob", "content": "hi"})

        self.assertEqual(response.json()["created"], "2020-01-05T00:00:00.000000Z")

    def test_requires_a_token(self):
        response = APIClient().post("/api/message", {"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [])

    def test_ignores_a_sender_in_the_body(self):
        response = self.post(
            {"receiver": "bob", "content": "hi", "sender": "carol", "id": 7_000_000, "created": "2020-01-05T00:00:00Z"}
        )

        message = Message.objects.get()
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response.json(), as_json(message))
        self.assertEqual(message.sender, self.alice)
        self.assertNotEqual(message.pk, 7_000_000)
        self.assertGreater(message.created.year, 2020)

    def test_keeps_content_to_the_letter(self):
        contents = (
            " \t leading and trailing \n ",
            "one\ntwo\r\nthree\rfour\u2028five",
            "\U0001f389 \U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\u202b\u05e9\u05dc\u05d5\u05dd\u202c \u0645\u0631\u062d\u0628\u0627",
            "e\u0301 is not \u00e9",
            "\u200b",
            "\x01\x7f\ufeff\uffff",
            '<b>"&amp;\\u0041%41+</b>',
            "0",
            "null",
        )
        for content in contents:
            with self.subTest(content=content):
                response = self.post({"receiver": "bob", "content": content})

                self.assertEqual(response.status_code, 201)
                self.assertEqual(response.json()["content"], content)
                listed = self.as_user(self.bob).get("/api/message/received").json()["results"]
                self.assertEqual(listed[0], response.json())

    def test_accepts_ten_thousand_characters(self):
        content = " " + "\U0001f389" * 9_999

        response = self.post({"receiver": "bob", "content": content})

        self.assertEqual(response.status_code, 201)
        self.assertEqual(response.json()["content"], content)
        self.assertEqual(Message.objects.get().content, content)

    def test_reads_every_media_type(self):
        body = {"receiver": "bob", "content": " 1 + 1 = 2 & é\r\n"}
        client = self.as_user(self.alice)
        requests = {
            "JSON": lambda: client.post("/api/message", body, format="json"),
            "JSON labelled as a form": lambda: self.post(body, media_type="application/x-www-form-urlencoded"),
            "form": lambda: client.post(
                "/api/message",
                "receiver=bob&content=+1+%2B+1+%3D+2+%26+%C3%A9%0D%0A",
                content_type="application/x-www-form-urlencoded",
            ),
            "multipart": lambda: client.post("/api/message", body, format="multipart"),
        }
        for media_type, request in requests.items():
            with self.subTest(media_type=media_type):
                response = request()

                self.assertEqual(response.status_code, 201, response.content)
                self.assertEqual(response.json(), as_json(Message.objects.newest_first()[0]))
                self.assertEqual({name: response.json()[name] for name in body}, body)

    def test_rejects_a_receiver_who_does_not_exist(self):
        blank_or_broken = ("", " ", "bob ", " bob", "bob\n", "bob\0", "\0", "\ud800", "bob\udfff")
        for receiver in ("nobody", "bo", "bobb", *blank_or_broken, "b" * 900_000):
            with self.subTest(receiver=receiver[:9]):
                response = self.post({"receiver": receiver, "content": "hi"})

                self.assert_rejected(response, "receiver")

    def test_rejects_a_receiver_that_is_not_a_string(self):
        User.objects.create(username="True")
        User.objects.create(username="12")
        for receiver in (None, 12, 1.5, True, False, ["bob"], {"username": "bob"}, [], {}, self.bob.pk):
            with self.subTest(receiver=receiver):
                response = self.post({"receiver": receiver, "content": "hi"})

                self.assert_rejected(response, "receiver")

    def test_rejects_blank_content(self):
        for content in ("", " ", "\n", " \t\r\n", "\u00a0", "\u2003\u3000", "\u2028\u0085"):
            with self.subTest(content=content):
                response = self.post({"receiver": "bob", "content": content})

                self.assert_rejected(response, "content")

    def test_rejects_content_that_is_not_a_string(self):
        for content in (None, 12, 0, 1.5, True, ["hi"], {"text": "hi"}, [], {}):
            with self.subTest(content=content):
                response = self.post({"receiver": "bob", "content": content})

                self.assert_rejected(response, "content")

    def test_rejects_content_that_is_too_long_or_not_text(self):
        for content in ("x" * 10_001, "x" * 900_000, " " * 10_000 + "x", "hi\0", "\0", "\ud800", "hi \udfff there"):
            with self.subTest(content=content[:9], length=len(content)):
                response = self.post({"receiver": "bob", "content": content})

                self.assert_rejected(response, "content")

    def test_names_every_wrong_field(self):
        bodies = (
            ({"receiver": "bob"}, ["content"]),
            ({"content": "hi"}, ["receiver"]),
            ({}, ["receiver", "content"]),
            ({"Receiver": "bob", "contents": "hi"}, ["receiver", "content"]),
            ({"receiver": "nobody", "content": " "}, ["receiver", "content"]),
        )
        for body, fields in bodies:
            with self.subTest(body=body):
                response = self.post(body)

                self.assert_rejected(response, *fields)

    def test_rejects_a_body_that_is_not_an_object(self):
        for body in (None, [], ["receiver", "content"], "bob", 12, True):
            with self.subTest(body=body):
                response = self.post(body)

                self.assert_rejected(response, "non_field_errors")

    def test_rejects_url_parameters(self):
        parameters = (("foo=1", "foo"), ("receiver=bob", "receiver"), ("page=1", "page"), ("page_size=", "page_size"))
        for query, name in parameters:
            with self.subTest(query=query):
                response = self.post({"receiver": "bob", "content": "hi"}, path=f"/api/message?{query}")

                self.assert_rejected(response, name)

    def test_stores_a_message_to_the_sender_once(self):
        response = self.post({"receiver": "alice", "content": "milk"})

        message = Message.objects.get()
        self.assertEqual(response.status_code, 201)
        self.assertEqual(response.json(), as_json(message))
        for path in ("/api/message", "/api/message/sent", "/api/message/received"):
            page = self.as_user(self.alice).get(path).json()
            self.assertEqual(page, {**EMPTY_PAGE, "count": 1, "results": [as_json(message)]}, path)
        self.assertEqual(self.events(), [("Successful Message", "alice", "alice")])
        self.assert_counters_agree()

    def test_rejects_a_sender_blocked_by_the_receiver(self):
        Block.objects.create(blocker=self.bob, blocked=self.alice)

        response = self.post({"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 403)
        self.assertEqual(response.json(), {"detail": "This user does not receive messages from you."})
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [("Blocked Message", "alice", "bob")])
        self.assert_counters_agree()

    def test_rejects_a_deactivated_receiver(self):
        make_message(self.bob, self.alice)
        User.objects.filter(pk__in=[self.bob.pk, self.carol.pk]).update(is_active=False)
        before = Message.objects.count(), self.events()
        for receiver in ("bob", "carol"):  # with a mailbox, and without
            with self.subTest(receiver):
                response = self.post({"receiver": receiver, "content": "hi"})

                self.assertEqual(response.status_code, 400)
                self.assertEqual(response.json(), {"receiver": ["This user's account is deactivated."]})
                self.assertEqual((Message.objects.count(), self.events()), before)
        self.assert_counters_agree()
        User.objects.update(is_active=True)
        self.assertEqual(self.post({"receiver": "bob", "content": "hi"}).status_code, 201)

    def test_only_a_block_by_the_receiver_stops_a_message(self):
        Block.objects.create(blocker=self.alice, blocked=self.bob)
        Block.objects.create(blocker=self.bob, blocked=self.carol)
        Block.objects.create(blocker=self.carol, blocked=self.alice)

        response = self.post({"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 201)
        self.assertEqual(response.json(), as_json(Message.objects.get()))
        self.assertEqual(self.events(), [("Successful Message", "alice", "bob")])

    def test_keeps_secrets_out_of_the_logs(self):
        credentials = {"username": "alice", "password": PASSWORD}
        token = APIClient().post("/api/auth/login", credentials).json()["token"]
        client = APIClient(headers={"authorization": f"Token {token}"})
        secret = "the cat sleeps at noon"
        body = {"receiver": "bob", "content": secret}

        good = client.post("/api/message", body)
        wrong = [
            client.post("/api/message", {**body, "receiver": secret}),
            client.post("/api/message", f'{{"content": "{secret}', content_type="application/json"),
            client.post("/api/message", f"[{json.dumps(body)}]", content_type="application/json"),
            client.post("/api/message", {"content": body}),
            client.post(f"/api/message?{secret}={token}", body),
            client.get(f"/api/message/sent?receiver={secret}&date={token}"),
        ]
        Mailbox.objects.update(total=0)  # the next message wants a place that is taken, which a constraint forbids
        with self.assertLogs("django.request", "ERROR"):
            broken = client.post("/api/message", body)

        self.assertEqual(good.status_code, 201)
        self.assertEqual([response.status_code for response in wrong], [400] * len(wrong))
        self.assertEqual((broken.status_code, broken.json()), (500, {"detail": "Something went wrong"}))
        for log, lines in {"requests": 9, "activity": 2, "debug": 1}.items():
            self.assertEqual(len(self.log_lines(log)), lines, log)
            text = (self.log_folder / f"{log}.log").read_text()
            for leak in (secret, "cat sleeps", PASSWORD, token):
                self.assertNotIn(leak, text)

    def test_keeps_places_and_counters(self):
        clients = {name: self.as_user(getattr(self, name)) for name in ("alice", "bob", "carol")}
        sends = (
            "alice>bob bob>alice alice>alice alice>bob carol>alice carol>carol bob>carol alice>carol carol>bob alice>alice"
        )

        for send in sends.split():
            sender, receiver = send.split(">")
            response = clients[sender].post("/api/message", {"receiver": receiver, "content": send})

            self.assertEqual(response.status_code, 201)
            self.assert_counters_agree()

        self.assertEqual(Mailbox.objects.values_list("total", "sent", "received").get(user=self.alice), (7, 5, 4))


class ListTests(MessageAssertions):
    """What all three lists have in common. Each subclass gives its path, and the sender and receiver of its messages."""

    path: str
    wrong_parameters = (
        ("foo=1", "foo"),
        ("foo=", "foo"),
        ("Page=1", "Page"),
        ("%00=1", "\0"),
        ("%ff=1", "\ufffd"),
        ("page=", "page"),
        ("page=1&page=1", "page"),
        ("page_size=", "page_size"),
        ("page_size=5&page_size=6", "page_size"),
        ("date=", "date"),
    )

    def sender_and_receiver(self) -> tuple[User, User]:
        """Sender and receiver of the messages on the list: alice and bob."""
        return self.alice, self.bob

    def fill(self, number: int, **fields) -> list[Message]:
        """Create that many messages on alice's list and return them, newest first."""
        return [
            make_message(*self.sender_and_receiver(), content=f"number {position}", **fields) for position in range(number)
        ][::-1]

    def get(self, query: str = "", user: User | None = None):
        return self.as_user(user or self.alice).get(f"{self.path}?{query}" if query else self.path)

    def ids(self, query: str = "") -> list[int]:
        response = self.get(query)
        self.assertEqual(response.status_code, 200, response.content)
        return [row["id"] for row in response.json()["results"]]

    def split(self, url: str) -> tuple[str, dict[str, str]]:
        return url.partition("?")[0], dict(parse_qsl(urlsplit(url).query))

    def walk(self, url: str, direction: str) -> tuple[list[list[int]], str]:
        """Return the ids on each page from this page to the last in the direction, and the URL of the last page."""
        client, pages = self.as_user(self.alice), []
        for _ in range(50):
            page = client.get(url).json()
            pages.append([row["id"] for row in page["results"]])
            if page[direction] is None:
                return pages, url
            url = page[direction]
        raise AssertionError("The links lead nowhere.")

    def assert_visited_once(self, query: str, messages: list[Message], size: int) -> None:
        """Assert that following `next` returns these messages, `size` per page, and following `previous` leads back."""
        ids = [message.pk for message in messages]
        pages = [ids[start : start + size] for start in range(0, len(ids), size)]

        forth, last = self.walk(f"{self.path}?{query}", "next")
        back, _ = self.walk(last, "previous")

        self.assertEqual(forth, pages)
        self.assertEqual(back, pages[::-1])

    def test_requires_a_token(self):
        response = APIClient().get(self.path)

        self.assertEqual(response.status_code, 401)
        self.assertEqual(response.json(), {"detail": "Authentication credentials were not provided."})
        self.assertEqual(response["WWW-Authenticate"], "Token")

    def test_shows_messages_newest_first(self):
        first, second = make_message(*self.sender_and_receiver(), "one"), make_message(*self.sender_and_receiver(), " two\n")

        response = self.get()

        self.assertEqual(response.status_code, 200)
        self.assertEqual(
            response.json(),
            {"count": 2, "next": None, "previous": None, "results": [as_json(second), as_json(first)]},
        )

    def test_shows_six_digits_of_a_second_even_if_they_are_zeros(self):
        make_message(*self.sender_and_receiver(), created=datetime(2020, 1, 5, tzinfo=UTC))

        response = self.get()

        self.assertEqual(response.json()["results"][0]["created"], "2020-01-05T00:00:00.000000Z")

    def test_shows_nothing_to_other_users(self):
        self.fill(2)

        response = self.get(user=self.carol)

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), EMPTY_PAGE)

    def test_leaves_out_the_messages_of_others(self):
        make_message(self.bob, self.carol)
        make_message(self.carol, self.bob)
        make_message(self.bob, self.bob)

        response = self.get()

        self.assertEqual(response.json(), EMPTY_PAGE)

    def test_still_shows_what_was_sent_before_a_block(self):
        (message,) = self.fill(1)
        Block.objects.create(blocker=self.bob, blocked=self.alice)
        Block.objects.create(blocker=self.alice, blocked=self.bob)

        response = self.get()

        self.assertEqual(response.json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(message)]})

    def test_has_twenty_rows_per_page_by_default(self):
        messages = self.fill(21)

        response = self.get()

        page = response.json()
        self.assertEqual(page["results"], [as_json(message) for message in messages[:20]])
        self.assertEqual(page["count"], 21)
        self.assertIsNone(page["previous"])
        self.assertEqual(self.split(page["next"]), (f"http://testserver{self.path}", {"page": "2"}))

    def test_has_page_size_rows_per_page(self):
        ids = [message.pk for message in self.fill(101)]

        for size in (1, 2, 99, 100):
            with self.subTest(size=size):
                self.assertEqual(self.ids(f"page_size={size}"), ids[:size])

    def test_rejects_a_wrong_page_size(self):
        self.fill(1)
        for size in ("0", "-1", "101", "x", "1.5", "1e1", "9" * 30, "%EF%BC%91", "%201", "%2B1", "1%00", "%ff", "1_0"):
            with self.subTest(size=size):
                self.assert_invalid(self.get(f"page_size={size}"), "page_size")

    def test_responds_404_for_a_page_that_does_not_exist(self):
        self.fill(1)
        beyond = ("9" * digits for digits in (15, 16, 18, 30, 5000))
        for page in ("0", "-1", "x", "2", "1.5", *beyond, "%EF%BC%91", "%ff", "1%00", "last"):
            with self.subTest(page=page[:30]):
                response = self.get(f"page={page}")

                self.assertEqual(response.status_code, 404)
                self.assertEqual(response.json(), NO_SUCH_PAGE)

    def test_responds_404_for_the_page_after_a_full_one(self):
        self.fill(4)

        response = self.get("page_size=2&page=3")

        self.assertEqual(response.status_code, 404)
        self.assertEqual(response.json(), NO_SUCH_PAGE)

    def test_has_a_first_page_if_there_are_no_messages(self):
        for query in ("", "page=1", "page=1&page_size=1"):
            with self.subTest(query=query):
                response = self.get(query)

                self.assertEqual(response.status_code, 200)
                self.assertEqual(response.json(), EMPTY_PAGE)

    def test_orders_by_id_even_if_the_clock_was_set_back(self):
        noon = datetime(2020, 1, 5, 12, tzinfo=UTC)
        messages = [
            make_message(*self.sender_and_receiver(), created=noon - timedelta(hours=hours)) for hours in (1, 3, 0, 2)
        ]

        self.assertEqual(self.ids(), [message.pk for message in messages[::-1]])

    def test_visits_every_message_once_from_page_to_page(self):
        # All at the same moment, so that time alone is no order.
        messages = self.fill(7, created=datetime(2020, 1, 5, tzinfo=UTC))

        self.assert_visited_once("page_size=3", messages, 3)
        self.assert_visited_once("page_size=7", messages, 7)

    def test_rejects_parameters_that_are_unknown_empty_or_repeated(self):
        self.fill(1)
        for query, name in self.wrong_parameters:
            with self.subTest(query=query):
                self.assert_invalid(self.get(query), name)

    def test_names_every_unknown_parameter(self):
        self.assert_invalid(self.get("foo=1&page_size=&bar=2"), "foo", "bar", "page_size")


class FilteredListTests(ListTests):
    """What the sent and the received list have in common. `partner` is the parameter that names the other user."""

    partner: str

    def with_partner(self, user: User, **fields) -> Message:
        """Create a message on alice's list; the other user is `partner`."""
        pair = [user if member == self.bob else member for member in self.sender_and_receiver()]
        return make_message(*pair, **fields)

    def test_rejects_wrong_filters(self):
        self.fill(1)
        queries = (
            (f"{self.partner}=", self.partner),
            (f"{self.partner}=bob&{self.partner}=carol", self.partner),
            (f"{self.partner}=bob&{self.partner}=bob", self.partner),
            ("date=2020-01-05&date=2020-01-05", "date"),
            ("Date=2020-01-05", "Date"),
            ("content=hi", "content"),
            ("user=bob", "user"),
        )
        for query, name in queries:
            with self.subTest(query=query):
                self.assert_invalid(self.get(query), name)

    def test_filters_by_partner(self):
        to_bob = self.with_partner(self.bob)
        self.with_partner(self.carol)
        to_self = make_message(self.alice, self.alice)

        response = self.get(f"{self.partner}=bob")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(to_bob)]})
        self.assertEqual(self.ids(f"{self.partner}=alice"), [to_self.pk])

    def test_is_empty_for_a_partner_without_messages(self):
        self.with_partner(self.carol)
        make_message(self.bob, self.carol)
        make_message(self.carol, self.bob)

        response = self.get(f"{self.partner}=bob")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), EMPTY_PAGE)

    def test_rejects_a_partner_who_does_not_exist(self):
        names = ("nobody", "%20", "%20bob", "bob%0A", "bob%00", "%00", "%ff", "bob%ff", "%ED%A0%80", "*")
        for name in (*names, "b" * 9000, str(self.bob.pk)):
            with self.subTest(name=name[:9]):
                self.assert_invalid(self.get(f"{self.partner}={name}"), self.partner)

    def test_filters_by_day_in_utc(self):
        midnight = datetime(2020, 1, 5, tzinfo=UTC)
        instant, day = timedelta(microseconds=1), timedelta(days=1)
        for created in (midnight - instant, midnight, midnight + day - instant, midnight + day):
            self.with_partner(self.bob, created=created)

        response = self.get("date=2020-01-05")

        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json()["count"], 2)
        self.assertEqual(
            [row["created"] for row in response.json()["results"]],
            ["2020-01-05T23:59:59.999999Z", "2020-01-05T00:00:00.000000Z"],
        )

    def test_filters_by_the_first_and_the_last_day_of_the_calendar(self):
        days = {
            "0001-01-01": (datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, 23, 59, 59, 999_999, tzinfo=UTC)),
            "9999-12-31": (datetime(9999, 12, 31, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
        }
        for day, (morning, night) in days.items():
            with self.subTest(day=day):
                before = self.get(f"date={day}")
                messages = [self.with_partner(self.bob, created=created) for created in (morning, night)]

                after = self.get(f"date={day}")

                self.assertEqual((before.status_code, before.json()), (200, EMPTY_PAGE))
                self.assertEqual((after.status_code, after.json()["count"]), (200, 2))
                self.assertEqual([row["id"] for row in after.json()["results"]], [message.pk for message in messages[::-1]])

    def test_rejects_an_invalid_date(self):
        self.fill(1)
        loose = "2020-1-0 2020-1-5 03/30/2020 20200105 2020-W01-1 2020-001 2020-01-05T00:00:00Z today 1578182400"
        beyond_the_calendar = "2020-13-01 2020-02-30 2021-02-29 2020-00-01 2020-01-00 0000-01-01 10000-01-01 -2020-01-05"
        full_width = "%EF%BC%92%EF%BC%90%EF%BC%92%EF%BC%90-01-05"
        padded = f"%202020-01-05 2020-01-05%20 2020-01-05%0A 2020-01-05%00 %ff {full_width}"
        for date in f"{loose} {beyond_the_calendar} {padded}".split():
            with self.subTest(date=date):
                self.assert_invalid(self.get(f"date={date}"), "date")

    def test_combines_filters(self):
        day = datetime(2020, 1, 5, 12, tzinfo=UTC)
        wanted = self.with_partner(self.bob, created=day)
        self.with_partner(self.carol, created=day)
        self.with_partner(self.bob, created=day + timedelta(days=1))

        response = self.get(f"date=2020-01-05&{self.partner}=bob")

        self.assertEqual(response.json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(wanted)]})

    def test_names_every_wrong_filter(self):
        self.assert_invalid(self.get(f"{self.partner}=nobody&date=2020-02-30"), self.partner, "date")

    def test_keeps_filters_and_page_size_in_links(self):
        plus = User.objects.create(username="a+b@example.org")
        for _ in range(3):
            self.with_partner(plus, created=datetime(2020, 1, 5, tzinfo=UTC))
        filters = {self.partner: plus.username, "date": "2020-01-05", "page_size": "1"}
        query = f"{self.partner}=a%2Bb%40example.org&date=2020-01-05&page_size=1"

        first, third = self.get(query).json(), self.get(f"{query}&page=3").json()

        second = (f"http://testserver{self.path}", {**filters, "page": "2"})
        self.assertEqual(self.split(first["next"]), second)
        self.assertEqual(self.split(third["previous"]), second)

    def test_visits_every_filtered_message_once_from_page_to_page(self):
        messages = []
        for _ in range(5):
            messages.insert(0, self.with_partner(self.bob, created=datetime(2020, 1, 5, tzinfo=UTC)))
            self.with_partner(self.carol, created=datetime(2020, 1, 5, tzinfo=UTC))

        self.assert_visited_once(f"{self.partner}=bob&page_size=2", messages, 2)
        self.assert_visited_once(f"date=2020-01-05&{self.partner}=bob&page_size=3", messages, 3)

    def test_responds_404_for_a_filtered_page_that_does_not_exist(self):
        self.with_partner(self.bob)
        for _ in range(2):
            self.with_partner(self.carol)

        response = self.get(f"{self.partner}=bob&page_size=1&page=2")

        self.assertEqual(response.status_code, 404)
        self.assertEqual(response.json(), NO_SUCH_PAGE)


class MailboxTests(ListTests, ApiTestCase):
    path = "/api/message"
    wrong_parameters = (*ListTests.wrong_parameters, ("receiver=bob", "receiver"), ("sender=bob", "sender"))

    def test_shows_both_directions_and_each_message_once(self):
        sent, received = make_message(self.alice, self.bob), make_message(self.bob, self.alice)
        to_self = make_message(self.alice, self.alice)

        response = self.get()

        self.assertEqual(
            response.json(),
            {**EMPTY_PAGE, "count": 3, "results": [as_json(to_self), as_json(received), as_json(sent)]},
        )

    def test_visits_and_counts_each_message_to_self_once(self):
        messages = []
        for _ in range(6):
            for ends in ((self.alice, self.alice), (self.alice, self.bob), (self.alice, self.alice), (self.bob, self.alice)):
                messages.insert(0, make_message(*ends))

        page = self.get("page_size=5&page=3").json()

        self.assertEqual(
            page,
            {
                "count": 24,
                "next": "http://testserver/api/message?page=4&page_size=5",
                "previous": "http://testserver/api/message?page=2&page_size=5",
                "results": [as_json(message) for message in messages[10:15]],
            },
        )
        self.assert_visited_once("page_size=5", messages, 5)

    def test_visits_every_message_of_a_mixed_mailbox_once(self):
        messages = []
        for _ in range(3):
            for sender in (self.alice, self.bob, self.carol):
                messages.insert(0, make_message(sender, self.alice))
                make_message(self.bob, sender if sender != self.alice else self.carol)
            messages.insert(0, make_message(self.alice, self.carol))

        self.assert_visited_once("page_size=5", messages, 5)
        self.assert_visited_once("page_size=1", messages, 1)


class SentTests(FilteredListTests, ApiTestCase):
    path = "/api/message/sent"
    partner = "receiver"
    wrong_parameters = (*ListTests.wrong_parameters, ("sender=bob", "sender"))

    def test_leaves_out_what_was_received(self):
        make_message(self.bob, self.alice)
        sent = make_message(self.alice, self.bob)

        response = self.get()

        self.assertEqual(response.json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(sent)]})


class ReceivedTests(FilteredListTests, ApiTestCase):
    path = "/api/message/received"
    partner = "sender"
    wrong_parameters = (*ListTests.wrong_parameters, ("receiver=bob", "receiver"))

    def sender_and_receiver(self) -> tuple[User, User]:
        return self.bob, self.alice

    def test_leaves_out_what_was_sent(self):
        make_message(self.alice, self.bob)
        received = make_message(self.bob, self.alice)

        response = self.get()

        self.assertEqual(response.json(), {**EMPTY_PAGE, "count": 1, "results": [as_json(received)]})


class ParallelSendTests(MessageAssertions, ConcurrentTestCase):
    def sending(self, sender: User, receiver: User):
        client = self.as_user(sender)
        return lambda: client.post("/api/message", {"receiver": receiver.username, "content": "hi"})

    def assert_all_stored(self, responses: list) -> None:
        self.assertEqual([response.status_code for response in responses], [201] * len(responses))
        newest = Message.objects.newest_first()[: len(responses)]
        self.assertCountEqual([response.json()["id"] for response in responses], [message.pk for message in newest])
        self.assertEqual(len(self.events()), Message.objects.count())
        self.assert_counters_agree()

    def test_rejects_a_receiver_who_has_just_been_deleted(self):
        with delete_after_lookup("bob"):
            response = self.as_user(self.alice).post("/api/message", {"receiver": "bob", "content": "hi"})

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"receiver": ["There is no such user."]})
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [])

    def send_while_bob_changes(self, change: Callable[[QuerySet], object]):
        """Send alice's message to bob, which reads bob, and then waits for a transaction that changes bob."""
        client, changing = self.as_user(self.alice), threading.Event()

        def change_bob():
            with transaction.atomic():
                change(User.objects.filter(pk=self.bob.pk))
                changing.set()
                wait_until_lock_is_awaited()

        def send():
            changing.wait()
            return client.post("/api/message", {"receiver": "bob", "content": "hi"})

        return self.in_parallel(change_bob, send)[1]

    def test_rejects_a_receiver_who_is_deactivated_while_the_send_waits(self):
        def deactivate(bob):
            lock_or_create(self.bob, self.bob)
            bob.update(is_active=False)

        response = self.send_while_bob_changes(deactivate)

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"receiver": ["This user's account is deactivated."]})
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [])

    def test_rejects_a_receiver_who_is_deleted_while_the_send_waits(self):
        response = self.send_while_bob_changes(lambda bob: bob.delete())

        self.assertEqual(response.status_code, 400)
        self.assertEqual(response.json(), {"receiver": ["There is no such user."]})
        self.assertFalse(Message.objects.exists())
        self.assertEqual(self.events(), [])

    def test_many_senders_write_to_one_receiver(self):
        senders = [User.objects.create(username=f"sender{number}") for number in range(16)]

        responses = self.in_parallel(*[self.sending(sender, self.bob) for sender in senders])

        self.assert_all_stored(responses)

    def test_two_users_write_to_each_other(self):
        make_message(self.alice, self.bob)

        responses = self.in_parallel(*[self.sending(self.alice, self.bob), self.sending(self.bob, self.alice)] * 10)

        self.assert_all_stored(responses)

    def test_one_user_sends_many_messages(self):
        receivers = [self.alice, self.bob, self.carol] * 6

        responses = self.in_parallel(*[self.sending(self.alice, receiver) for receiver in receivers])

        self.assert_all_stored(responses)

    def test_first_messages_between_a_newcomer_and_a_user_with_messages(self):
        for number in range(5):
            newcomer, partner = (User.objects.create(username=f"{name}{number}") for name in ("newcomer", "partner"))
            make_message(partner, partner)

            responses = self.in_parallel(*[self.sending(newcomer, partner), self.sending(partner, newcomer)] * 5)

            self.assert_all_stored(responses)

    def test_first_messages_of_everybody(self):
        users = [self.alice, self.bob, self.carol, User.objects.create(username="dave")]

        responses = self.in_parallel(*[self.sending(sender, receiver) for sender in users for receiver in users])

        self.assert_all_stored(responses)


class SendInManyProcessesTests(MessageAssertions, ConcurrentTestCase):
    """The service itself, in four processes."""

    def test_many_senders_write_to_one_receiver(self):
        names = [f"sender{number}" for number in range(8)]
        tokens = {name: issue_token(User.objects.create(username=name))[1] for name in names}
        tokens["bob"] = issue_token(self.bob)[1]
        body = {"receiver": "bob", "content": "hi"}

        with run_service(self.log_folder) as service:
            all_responses = self.in_parallel(
                *[
                    lambda token=tokens[name]: [service.request("POST", "/api/message", body, token) for _ in range(5)]
                    for name in names
                ]
            )
            lists = {
                name: service.request("GET", f"/api/message/{path}?page_size=100", token=tokens[name])[1]
                for name, path in (("bob", "received"), *((name, "sent") for name in names))
            }

        stored_messages = [message for responses in all_responses for _, message in responses]
        self.assertEqual([status for responses in all_responses for status, _ in responses], [201] * 40)
        self.assertEqual(lists["bob"]["count"], 40)
        self.assertEqual(lists["bob"]["results"], sorted(stored_messages, key=lambda message: -message["id"]))
        for name, responses in zip(names, all_responses, strict=True):
            self.assertEqual(lists[name]["results"], [message for _, message in responses][::-1])
        self.assertCountEqual(self.events(), [("Successful Message", name, "bob") for name in names] * 5)
        self.assert_counters_agree()

    def test_block_holds_from_its_response_on(self):
        token, token_of_blocker = issue_token(self.alice)[1], issue_token(self.bob)[1]
        sent, blocked = threading.Event(), threading.Event()

        def send() -> list[tuple[bool, int]]:
            """Return whether each attempt began after the block's response, and its status. Ends after five that did."""
            tries = []
            try:
                while sum(late for late, _ in tries) < 5:
                    late = blocked.is_set()
                    status, _ = service.request("POST", "/api/message", {"receiver": "bob", "content": "hi"}, token)
                    tries.append((late, status))
                    sent.set()
            finally:
                sent.set()  # a service that is broken must not leave the other thread waiting
            return tries

        def block() -> int:
            try:
                sent.wait()
                return service.request("POST", "/api/block", {"blocked": "alice"}, token_of_blocker)[0]
            finally:
                blocked.set()

        with run_service(self.log_folder) as service:
            block_status, *tries = self.in_parallel(block, *[send] * 8)

        tries = [a_try for of_one_thread in tries for a_try in of_one_thread]
        statuses = [status for _, status in tries]
        self.assertEqual(block_status, 201)
        self.assertEqual([status for late, status in tries if late], [403] * 40)
        self.assertEqual(set(statuses), {201, 403})
        self.assertEqual(Message.objects.count(), statuses.count(201))
        self.assertCountEqual(
            self.events(),
            [
                ("Block User", "bob", "alice"),
                *[("Successful Message", "alice", "bob")] * statuses.count(201),
                *[("Blocked Message", "alice", "bob")] * statuses.count(403),
            ],
        )
        self.assert_counters_agree()
