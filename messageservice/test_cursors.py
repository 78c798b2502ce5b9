"""The cursors of the three message lists, and all lists compared with a plain Python model of them."""

import random
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode, urlsplit

from rest_framework.test import APIClient

from config.testing.cases import ApiTestCase, make_user
from messageservice.actions import mark_read
from messageservice.models import Conversation, Message
from messageservice.testing import (
    EMPTY_PAGE,
    LISTS,
    MessageAssertions,
    as_json,
    expected_page,
    expected_rows,
    make_message,
    time_json,
)

DAY = datetime(2020, 1, 5, 12, tzinfo=UTC)
LARGEST_ID = 2**63 - 1
EMPTY_CURSOR_PAGE = {"next": None, "previous": None, "results": []}
SENDS = "alice>bob bob>alice bob>carol carol>alice alice>alice alice>carol carol>bob bob>alice alice>bob"
ON_DAY = {"date": "2020-01-05"}
SINCE, UNTIL = {"since": "2020-01-06T12:00:00.000000Z"}, {"until": "2020-01-06T12:00:00.000000Z"}
FILTERED_LISTS = (
    ("/api/message", {}),
    ("/api/message", {"user": "bob"}),
    ("/api/message", {"user": "alice"}),
    ("/api/message", ON_DAY),
    ("/api/message", {"user": "bob", **ON_DAY}),
    ("/api/message", SINCE),
    ("/api/message", {"user": "bob", **UNTIL}),
    ("/api/message/sent", {}),
    ("/api/message/sent", UNTIL),
    ("/api/message/sent", {"receiver": "bob", **SINCE, "until": "2020-01-07T00:00:00.000000Z"}),
    ("/api/message/sent", {"receiver": "bob"}),
    ("/api/message/sent", {"receiver": "bob", **ON_DAY}),
    ("/api/message/received", {}),
    ("/api/message/received", {"sender": "bob"}),
    ("/api/message/received", ON_DAY),
    ("/api/message/received", {"unread": "true"}),
    ("/api/message/received", {"unread": "false"}),
    ("/api/message/received", {"sender": "bob", "unread": "true", **ON_DAY}),
    ("/api/message/received", {"sender": "bob", "unread": "true", **ON_DAY, **UNTIL}),
    ("/api/message/received", {"unread": "true", **SINCE}),
)


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


class CursorAssertions(MessageAssertions):
    def page(self, client: APIClient, path: str, **parameters) -> dict:
        response = client.get(path, parameters)
        self.assertEqual(response.status_code, 200, response.content)
        return response.json()

    def assert_page(self, client, path, rows, *, direction, start, size, filters) -> None:
        """Assert that the page at an id, and the pages that its two links lead to, have the expected part of `rows`."""
        page = self.page(client, path, **{direction: start}, page_size=size, **filters)

        results, onward, back = expected_page(rows, direction, start, size)
        self.assertEqual(page.keys(), {"next", "previous", "results"})
        self.assertEqual(page["results"], results)
        opposite = {"before": "after", "after": "before"}[direction]
        for link, leads, expected in (("next", direction, onward), ("previous", opposite, back)):
            if not expected:
                self.assertIsNone(page[link], link)
                continue
            parameters = query_of(page[link])
            self.assertTrue(page[link].startswith(f"http://testserver{path}?"))
            self.assertTrue(parameters.pop(leads).isdigit())
            self.assertEqual(parameters, {**filters, "page_size": str(size)})
            self.assertEqual(client.get(page[link]).json()["results"], expected, link)


class CursorTests(CursorAssertions, ApiTestCase):
    def setUp(self):
        super().setUp()
        self.client = self.as_user(self.alice)

    def fill(self, rounds: int = 2) -> None:
        """Create messages in all directions, on two days, the first of bob's read; `rows` has them as in responses."""
        for position, send in enumerate(SENDS.split() * rounds):
            sender, receiver = (getattr(self, name) for name in send.split(">"))
            make_message(sender, receiver, created=DAY + timedelta(days=position % 2))
        first = Message.objects.sent_by(self.bob).received_by(self.alice).order_by("pk")[0]
        mark_read(conversation=Conversation.objects.get(owner=self.alice, partner=self.bob), up_to=first.pk)
        self.rows = [as_json(message) for message in Message.objects.select_related("sender", "receiver").newest_first()]

    def walk(self, path: str, **parameters) -> list[list[int]]:
        """Return the ids on each page, from the first to the last that `next` leads to."""
        url, pages = f"{path}?{urlencode(parameters)}", []
        while url:
            page = self.client.get(url).json()
            pages.append([row["id"] for row in page["results"]])
            self.assertLess(len(pages), 100, "The links lead nowhere.")
            url = page["next"]
        return pages

    def test_before_shows_the_next_older_messages(self):
        first, second, third, fourth = (make_message(self.alice, self.bob, str(number)) for number in range(4))

        page = self.page(self.client, "/api/message", before=fourth.pk, page_size=2)

        self.assertEqual(
            page,
            {
                "next": f"http://testserver/api/message?before={second.pk}&page_size=2",
                "previous": f"http://testserver/api/message?after={third.pk}&page_size=2",
                "results": [as_json(third), as_json(second)],
            },
        )
        self.assertEqual(self.client.get(page["next"]).json()["results"], [as_json(first)])
        self.assertEqual(self.client.get(page["previous"]).json()["results"], [as_json(fourth)])

    def test_after_shows_the_next_newer_messages_newest_first(self):
        first, second, third, fourth = (make_message(self.bob, self.alice, str(number)) for number in range(4))

        page = self.page(self.client, "/api/message/received", after=first.pk, page_size=2)

        self.assertEqual(
            page,
            {
                "next": f"http://testserver/api/message/received?after={third.pk}&page_size=2",
                "previous": f"http://testserver/api/message/received?before={second.pk}&page_size=2",
                "results": [as_json(third), as_json(second)],
            },
        )
        self.assertEqual(self.client.get(page["next"]).json()["results"], [as_json(fourth)])
        self.assertEqual(self.client.get(page["previous"]).json()["results"], [as_json(first)])

    def test_has_twenty_rows_by_default(self):
        messages = [make_message(self.alice, self.alice) for _ in range(21)]
        ids = [message.pk for message in messages[::-1]]

        for path in LISTS:
            with self.subTest(path=path):
                before, after = self.page(self.client, path, before=ids[0] + 1), self.page(self.client, path, after=0)

                self.assertEqual([row["id"] for row in before["results"]], ids[:20])
                self.assertEqual([row["id"] for row in after["results"]], ids[1:])

    def test_following_links_visits_every_row_once(self):
        self.fill()
        for path, filters in FILTERED_LISTS:
            ids = [row["id"] for row in expected_rows(path, "alice", self.rows, filters)]
            for size in (1, 3, 100):
                with self.subTest(path=path, filters=filters, size=size):
                    older = [ids[start : start + size] for start in range(0, len(ids), size)]
                    newer = [ids[::-1][start : start + size][::-1] for start in range(0, len(ids), size)]

                    self.assertTrue(ids)
                    self.assertEqual(self.walk(path, before=self.rows[0]["id"] + 1, page_size=size, **filters), older)
                    self.assertEqual(self.walk(path, after=0, page_size=size, **filters), newer)

    def test_starts_at_any_id_whether_or_not_it_exists(self):
        self.fill(rounds=1)
        newest, oldest = self.rows[0]["id"], self.rows[-1]["id"]
        starts = (*range(max(0, oldest - 2), newest + 4), 0, LARGEST_ID, LARGEST_ID + 1, 10**18 - 1, 10**18, int("9" * 30))
        for path in LISTS:
            rows = expected_rows(path, "alice", self.rows, {})
            for start in starts:
                for direction in ("before", "after"):
                    with self.subTest(path=path, direction=direction, start=start):
                        self.assert_page(self.client, path, rows, direction=direction, start=start, size=2, filters={})

    def test_accepts_the_largest_id_that_a_database_stores(self):
        ids = [1, 10**18 - 1, 10**18, 10**18 + 1, LARGEST_ID - 1, LARGEST_ID]
        for place, pk in enumerate(ids, start=1):
            Message.objects.create(
                pk=pk, sender=self.bob, receiver=self.alice, content="hi", sender_place=place, receiver_place=place
            )
        beyond = (LARGEST_ID + 1, LARGEST_ID + 2, 10**19, 10**30)

        for path in ("/api/message", "/api/message?user=bob", "/api/message/received", "/api/message/received?unread=true"):
            path, _, query = path.partition("?")
            filters = dict(parse_qsl(query))
            for size in (1, 2, 100):
                older, newer = ids[::-1], [ids[start : start + size][::-1] for start in range(0, len(ids), size)]
                with self.subTest(path=path, filters=filters, size=size):
                    self.assertEqual(self.walk(path, after=0, page_size=size, **filters), newer)
                    for start in beyond:
                        pages = [older[first : first + size] for first in range(0, len(older), size)]
                        self.assertEqual(self.walk(path, before=start, page_size=size, **filters), pages)
                    self.assertEqual(self.walk(path, before=LARGEST_ID, page_size=100, **filters), [older[1:]])
            for start in (LARGEST_ID, *beyond):
                page = self.page(self.client, path, after=start, page_size=2, **filters)

                self.assertEqual((page["next"], page["results"]), (None, []))
                self.assertEqual([row["id"] for row in self.client.get(page["previous"]).json()["results"]], older[:2])
        self.assertEqual(self.client.get(f"/api/message/{LARGEST_ID}").json()["id"], LARGEST_ID)

    def test_filtered_lists_start_at_any_id(self):
        self.fill()
        starts = (0, *(row["id"] for row in self.rows[::5]), self.rows[0]["id"] + 1, int("9" * 30))
        for path, filters in FILTERED_LISTS:
            rows = expected_rows(path, "alice", self.rows, filters)
            for start in starts:
                for direction in ("before", "after"):
                    with self.subTest(path=path, filters=filters, direction=direction, start=start):
                        self.assert_page(self.client, path, rows, direction=direction, start=start, size=2, filters=filters)

    def test_shows_each_message_to_self_once(self):
        for _ in range(6):
            for ends in ((self.alice, self.alice), (self.alice, self.bob), (self.alice, self.alice), (self.bob, self.alice)):
                make_message(*ends)
        self.rows = [as_json(message) for message in Message.objects.select_related("sender", "receiver").newest_first()]

        for path in LISTS:
            rows = expected_rows(path, "alice", self.rows, {})
            for start in (0, rows[-1]["id"], rows[9]["id"], rows[0]["id"], rows[0]["id"] + 1):
                for direction in ("before", "after"):
                    with self.subTest(path=path, direction=direction, start=start):
                        self.assert_page(self.client, path, rows, direction=direction, start=start, size=5, filters={})

    def test_combines_a_day_and_a_partner_with_a_cursor(self):
        """Pages have only the messages of the day, whether the id is of the day before, the day itself or the day after."""
        for days in (-1, 0, 1):
            for ends in (
                (self.alice, self.bob),
                (self.bob, self.alice),
                (self.carol, self.alice),
                (self.alice, self.carol),
            ) * 3:
                make_message(*ends, created=DAY + timedelta(days=days))
        self.rows = [as_json(message) for message in Message.objects.select_related("sender", "receiver").newest_first()]
        starts = (0, *(row["id"] for row in self.rows[::4]), self.rows[0]["id"] + 1)

        for path, partner in zip(LISTS, ("user", "receiver", "sender"), strict=True):
            for filters in (ON_DAY, {partner: "bob", **ON_DAY}):
                rows = expected_rows(path, "alice", self.rows, filters)
                self.assertEqual(
                    self.page(self.client, path, **filters), {**EMPTY_PAGE, "count": len(rows), "results": rows}
                )
                for start in starts:
                    for direction in ("before", "after"):
                        with self.subTest(path=path, filters=filters, direction=direction, start=start):
                            self.assert_page(
                                self.client, path, rows, direction=direction, start=start, size=2, filters=filters
                            )

    def test_accepts_leading_zeros(self):
        message = make_message(self.alice, self.bob)

        page = self.page(self.client, "/api/message", after=f"{0:040}{message.pk - 1}")

        self.assertEqual(page["results"], [as_json(message)])

    def test_is_empty_if_there_are_no_messages(self):
        make_message(self.bob, self.carol)
        for path, filters in FILTERED_LISTS:
            for cursor in ({"before": "0"}, {"before": "9" * 5000}, {"after": "0"}, {"after": "9" * 5000}):
                with self.subTest(path=path, filters=filters, cursor=[*cursor]):
                    self.assertEqual(self.page(self.client, path, **cursor, **filters), EMPTY_CURSOR_PAGE)

    def test_following_links_shows_messages_that_arrive_meanwhile(self):
        seen, url = [], "/api/message/received?after=0&page_size=2"
        messages = [make_message(self.bob, self.alice) for _ in range(5)]

        for _ in range(6):
            page = self.client.get(url).json()
            seen += [row["id"] for row in page["results"]][::-1]
            if len(messages) < 8:
                messages.append(make_message(self.carol, self.alice))
                make_message(self.alice, self.carol)
            url = page["next"] or f"/api/message/received?after={seen[-1]}&page_size=2"

        self.assertEqual(seen, [message.pk for message in messages])
        self.assertEqual(self.client.get(url).json()["results"], [])

    def test_rejects_an_invalid_id(self):
        make_message(self.alice, self.bob)
        values = "-1 -0 1.5 1.0 x 1x 0x1 1e3 1_0 %2B1 %201 1%20 1%0A 1%00 %00 %ff %EF%BC%91 %D9%A1 null true"
        for path in LISTS:
            for name in ("before", "after"):
                for value in values.split():
                    with self.subTest(path=path, name=name, value=value):
                        self.assert_invalid(self.client.get(f"{path}?{name}={value}"), name)

    def test_rejects_cursors_that_are_empty_repeated_or_misspelt(self):
        for path in LISTS:
            for query, name in (
                ("before=", "before"),
                ("after=", "after"),
                ("before=1&before=2", "before"),
                ("after=1&after=1", "after"),
                ("Before=1", "Before"),
                ("cursor=1", "cursor"),
            ):
                with self.subTest(path=path, query=query):
                    self.assert_invalid(self.client.get(f"{path}?{query}"), name)

    def test_rejects_cursors_combined_with_each_other_or_a_page(self):
        make_message(self.alice, self.bob)
        for path in LISTS:
            for names in (("before", "after"), ("before", "page"), ("after", "page"), ("before", "after", "page")):
                with self.subTest(path=path, names=names):
                    self.assert_invalid(self.client.get(path, dict.fromkeys(names, 1)), *names)

    def test_rejects_wrong_filters_and_page_sizes_with_a_cursor(self):
        for query, name in (
            ("before=9&user=nobody", "user"),
            ("after=0&date=2020-02-30", "date"),
            ("after=0&since=2020-02-30T00:00:00Z", "since"),
            ("before=9&until=2020-02-28", "until"),
            ("before=9&page_size=101", "page_size"),
            ("after=0&page_size=0", "page_size"),
        ):
            with self.subTest(query=query):
                self.assert_invalid(self.client.get(f"/api/message?{query}"), name)

    def test_requires_a_token(self):
        for path in LISTS:
            with self.subTest(path=path):
                self.assertEqual(APIClient().get(f"{path}?after=0").status_code, 401)


class RandomTests(CursorAssertions, ApiTestCase):
    """After random sends and read marks, every list, page and cursor must equal a plain model of all messages."""

    SEED = 1
    STEPS = 300
    NAMES = ("alice", "bob", "carol", "dave", "erin", "frank")

    def setUp(self):
        super().setUp()
        self.random = random.Random(self.SEED)  # noqa: S311 - no secret
        self.users = {"alice": self.alice, "bob": self.bob, "carol": self.carol}
        self.users |= {name: make_user(name) for name in self.NAMES if name not in self.users}
        self.clients = {name: self.as_user(user) for name, user in self.users.items()}
        self.rows: list[dict] = []  # all messages as responses show them, newest first

    def test_every_response_equals_a_plain_model(self):
        actions = {self.send: 6, self.read: 2, self.look_at_page: 5, self.look_from_id: 8, self.look_at_conversations: 2}
        for step in range(self.STEPS):
            (action,) = self.random.choices([*actions], [*actions.values()])
            with self.subTest(seed=self.SEED, step=step, action=action.__name__):
                action()

        self.assertGreater(len(self.rows), self.STEPS // 8)
        self.assert_counters_agree()

    def a_user(self) -> str:
        """Choose mostly alice or bob, so that their lists grow long. frank only writes to himself."""
        return self.random.choices(self.NAMES, (8, 8, 4, 2, 1, 1))[0]

    def an_id(self) -> int:
        newest = self.rows[0]["id"] if self.rows else 0
        oldest = self.rows[-1]["id"] if self.rows else 0
        return self.random.choice((0, newest + 1, 10**30, *[self.random.randint(oldest, newest)] * 9))

    def a_time(self) -> str:
        """Choose a time, often that of a message."""
        return time_json(DAY + timedelta(days=self.random.randint(0, 2), hours=self.random.randint(-12, 12)))

    def a_list(self) -> tuple[str, str, dict[str, str], list[dict]]:
        """Choose a user, one of their lists and filters for it; return them with the expected rows."""
        user, path = self.a_user(), self.random.choice(LISTS)
        day = DAY + timedelta(days=self.random.randint(0, 3))
        possible = {
            "/api/message": {"user": self.a_user()},
            "/api/message/sent": {"receiver": self.a_user()},
            "/api/message/received": {"sender": self.a_user(), "unread": self.random.choice(("true", "false"))},
        }[path] | {"date": f"{day:%Y-%m-%d}", "since": self.a_time(), "until": self.a_time()}
        filters = {name: value for name, value in possible.items() if self.random.random() < 0.3}
        return user, path, filters, expected_rows(path, user, self.rows, filters)

    def send(self) -> None:
        sender, receiver = self.a_user(), self.a_user()
        if "frank" in (sender, receiver):
            sender = receiver = "frank"
        created = DAY + timedelta(days=self.random.randint(0, 2), hours=self.random.randint(-11, 11))
        message = make_message(self.users[sender], self.users[receiver], str(len(self.rows)), created)
        self.rows.insert(0, as_json(message))

    def read(self) -> None:
        reader, partner, up_to = self.a_user(), self.a_user(), self.an_id()
        response = self.clients[reader].post(f"/api/conversation/{partner}/read", {"up_to": up_to})

        conversation = expected_rows("/api/message", reader, self.rows, {"user": partner})
        if up_to not in [row["id"] for row in conversation]:
            self.assertEqual(response.status_code, 400 if conversation else 404)
            return
        self.assertEqual(response.status_code, 200)
        unread = [row for row in conversation if row["receiver"] == reader and row["read"] is None]
        marked = [row for row in unread if row["id"] <= up_to]
        for row in marked:
            row["read"] = time_json(Message.objects.get(pk=marked[0]["id"]).read)
        self.assertEqual(response.json(), {"user": partner, "unread": len(unread) - len(marked)})

    def look_at_page(self) -> None:
        user, path, filters, rows = self.a_list()
        number, size = self.random.randint(1, 4), self.random.choice((1, 2, 3, 5, 20, 100))
        response = self.clients[user].get(path, {**filters, "page": number, "page_size": size})

        start = (number - 1) * size
        if number > 1 and start >= len(rows):
            self.assertEqual(response.status_code, 404)
            return
        page = response.json()
        self.assertEqual((page["count"], page["results"]), (len(rows), rows[start : start + size]))
        self.assertEqual(page["next"] is not None, start + size < len(rows))
        self.assertEqual(page["previous"] is not None, number > 1)

    def look_from_id(self) -> None:
        user, path, filters, rows = self.a_list()
        self.assert_page(
            self.clients[user],
            path,
            rows,
            direction=self.random.choice(("before", "after")),
            start=self.an_id(),
            size=self.random.choice((1, 2, 3, 5, 20, 100)),
            filters=filters,
        )

    def look_at_conversations(self) -> None:
        user = self.a_user()
        unread = self.random.choice((None, "true", "false"))
        filters = {"unread": unread} if unread else {}
        start = self.an_id()
        page = self.page(self.clients[user], "/api/conversation", page_size=100, **filters)
        older = self.page(self.clients[user], "/api/conversation", page_size=2, before=start, **filters)

        conversations = {}
        for row in expected_rows("/api/message", user, self.rows, {}):
            partner = row["receiver"] if row["sender"] == user else row["sender"]
            conversation = conversations.setdefault(partner, {"user": partner, "last_message": row, "unread": 0})
            conversation["unread"] += row["receiver"] == user and row["read"] is None
        expected = [row for row in conversations.values() if unread is None or (row["unread"] > 0) == (unread == "true")]
        self.assertEqual(page, {**EMPTY_PAGE, "count": len(expected), "results": expected})
        expected = [row for row in expected if row["last_message"]["id"] < start]
        self.assertEqual((older["results"], older["next"] is None), (expected[:2], len(expected) <= 2))
