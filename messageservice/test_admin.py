from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.testing.cases import AdminTestCase, make_user
from messageservice.actions import send_message
from messageservice.models import Message

LIST = "/admin/messageservice/message/"


class MessageTests(AdminTestCase):
    def send(self, sender, receiver, content="hi"):
        row, _ = send_message(sender=sender, receiver=receiver, content=content)
        return Message.objects.get(pk=row.id)

    def queries(self, path):
        with CaptureQueriesContext(connection) as queries:
            self.page(path)
        return [query["sql"] for query in queries]

    def test_lists_newest_first(self):
        first = self.send(self.alice, self.bob, "<b>first</b> " + 100 * "x")
        second = self.send(self.bob, self.carol)

        self.assertEqual(self.list_rows(LIST), [second, first])
        html = self.page(LIST)
        self.assertIn("&lt;b&gt;first&lt;/b&gt; xxx", html)
        self.assertNotIn(80 * "x", html)
        self.assertNotIn("?o=", html)

    def test_shows_the_whole_message(self):
        message = self.send(self.alice, self.bob, 100 * "x")

        html = self.page(f"{LIST}{message.pk}/change/")

        for shown in (f'<div class="readonly">{message.pk}</div>', 100 * "x", "alice", "bob"):
            self.assertIn(shown, html)

    def test_shows_times_in_utc(self):
        message = self.send(self.alice, self.bob)
        Message.objects.update(read=message.created)

        for path in (LIST, f"{LIST}{message.pk}/change/"):
            with self.subTest(path):
                self.assertEqual(self.page(path).count(f"{message.created:%Y-%m-%d %H:%M:%S} UTC"), 2)

    def test_cannot_add_change_or_delete_a_message(self):
        message = self.send(self.alice, self.bob, "before")

        self.assertEqual(self.admin.get(f"{LIST}add/").status_code, 403)
        for action in ("change", "delete"):
            response = self.admin.post(f"{LIST}{message.pk}/{action}/", {"content": "after", "post": "yes"})
            self.assertEqual(response.status_code, 403)
        self.admin.post(LIST, {"action": "delete_selected", "_selected_action": [message.pk], "post": "yes"})
        self.assertEqual(Message.objects.get().content, "before")

    def test_searches_by_user(self):
        sent = self.send(self.alice, self.bob)
        received = self.send(self.carol, self.alice)
        self.send(self.bob, self.carol)
        to_herself = self.send(self.alice, self.alice)

        self.assertEqual(self.list_rows(f"{LIST}?q=alice"), [to_herself, received, sent])

    def test_searches_by_two_users(self):
        sent = self.send(self.alice, self.bob)
        self.send(self.carol, self.alice)
        received = self.send(self.bob, self.alice)

        self.assertEqual(self.list_rows(f"{LIST}?q=Bob+aLICE+BOB"), [received, sent])

    def test_searches_by_sender_or_receiver(self):
        sent = self.send(self.alice, self.bob)
        received = self.send(self.carol, self.alice)
        to_herself = self.send(self.alice, self.alice)

        self.assertEqual(self.list_rows(f"{LIST}?q=from:Alice"), [to_herself, sent])
        self.assertEqual(self.list_rows(f"{LIST}?q=to:Alice"), [to_herself, received])

    def test_searches_by_id(self):
        first = self.send(self.alice, self.bob)
        self.send(self.alice, self.bob)

        self.assertEqual(self.list_rows(f"{LIST}?q={first.pk}"), [first])
        self.assertEqual(self.list_rows(f"{LIST}?q=+00{first.pk}+"), [first])

    def test_searches_a_number_as_id_and_as_username(self):
        other = self.send(self.alice, self.bob)
        number = make_user(str(other.pk))
        to_number = [self.send(self.alice, number) for _ in range(50)][::-1]

        pages = [self.list_rows(f"{LIST}?q={other.pk}&p={page}") for page in (1, 2)]
        self.assertEqual(pages, [[other, *to_number[:49]], to_number[49:]])
        self.assertIn("51 messages", self.page(f"{LIST}?q={other.pk}"))
        self.assertEqual(self.list_rows(f"{LIST}?q=to:{other.pk}"), to_number)

    def test_shows_a_message_once_if_its_id_is_the_name_of_its_receiver(self):
        number = make_user(str(self.send(self.alice, self.bob).pk + 1))
        message = self.send(self.alice, number)

        self.assertEqual((number.username, self.list_rows(f"{LIST}?q={message.pk}")), (str(message.pk), [message]))

    def test_the_page_of_a_user_links_to_their_messages(self):
        sent = self.send(self.alice, self.bob)
        received = self.send(self.carol, self.alice)

        links = self.links(f"/admin/auth/user/{self.alice.pk}/change/")

        self.assertEqual(self.list_rows(links["Messages sent"]), [sent])
        self.assertEqual(self.list_rows(links["Messages received"]), [received])

    def test_searches_only_whole_names_and_ids(self):
        self.send(self.alice, self.bob)

        for names in (
            "ali",
            "alice+nobody",
            "alice+bob+carol",
            "hi",
            "from:",
            "cc:alice",
            "from:alice+bob",
            "0",
            5000 * "9",
        ):
            with self.subTest(names):
                self.assertEqual(self.list_rows(f"{LIST}?q={names}"), [])

    def test_pages_hold_every_message_once(self):
        messages = [self.send(self.alice, (self.bob, self.alice)[number % 2]) for number in range(120)]
        newest_first = messages[::-1]

        for query in ("", "q=alice&"):
            with self.subTest(query):
                pages = [self.list_rows(f"{LIST}?{query}p={page}") for page in (1, 2, 3)]
                self.assertEqual([len(page) for page in pages], [50, 50, 20])
                self.assertEqual([message for page in pages for message in page], newest_first)
        self.assertEqual(self.list_rows(f"{LIST}?q=alice+bob&p=2"), newest_first[1::2][50:])

    def test_number_of_queries_does_not_grow_with_rows(self):
        number = self.send(self.alice, self.bob).pk
        for query in ("", "?q=alice", "?q=alice+bob", "?q=from:alice", "?q=to:bob", f"?q={number}"):
            self.send(self.alice, self.bob)
            with_one = self.queries(f"{LIST}{query}")

            for _ in range(3):
                self.send(self.alice, self.bob)
            with_more = self.queries(f"{LIST}{query}")

            with self.subTest(query):
                self.assertEqual(len(with_one), len(with_more))
                self.assertFalse([query for query in with_more if "COUNT(" in query])
                rows = [query for query in with_more if 'FROM "messageservice_message"' in query]
                self.assertFalse([query for query in rows if "JOIN" in query])

    def test_no_url_runs_a_query_without_an_index(self):
        for lookup in ("content__contains=x", "created__year=2026", "sender__username__startswith=a"):
            with self.subTest(lookup):
                self.assertEqual(self.admin.get(f"{LIST}?{lookup}").status_code, 400)


class DeleteUserTests(AdminTestCase):
    def setUp(self):
        super().setUp()
        send_message(sender=self.alice, receiver=self.bob, content="hi")

    def test_rejects_deleting_the_sender_or_receiver_of_a_message(self):
        for user in (self.alice, self.bob):
            with self.subTest(user):
                path = f"/admin/auth/user/{user.pk}/delete/"

                self.assertIn("would require deleting the following protected related objects", self.page(path))
                self.assertEqual(self.admin.post(path, {"post": "yes"}).status_code, 200)
                self.assertTrue(User.objects.filter(pk=user.pk).exists())

    def test_rejects_deleting_several_users_if_one_has_a_message(self):
        selected = {"action": "delete_selected", "_selected_action": [self.bob.pk, self.carol.pk], "post": "yes"}

        response = self.admin.post("/admin/auth/user/", selected)

        self.assertContains(response, "would require deleting the following protected related objects")
        self.assertEqual(User.objects.count(), 4)
