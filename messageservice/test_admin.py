from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from config.testing.cases import AdminTestCase
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

        self.assertEqual(self.listed(LIST), [second, first])
        html = self.page(LIST)
        self.assertIn("&lt;b&gt;first&lt;/b&gt; xxx", html)
        self.assertNotIn(80 * "x", html)
        self.assertNotIn("?o=", html)

    def test_shows_one_whole(self):
        message = self.send(self.alice, self.bob, 100 * "x")

        html = self.page(f"{LIST}{message.pk}/change/")

        for shown in (100 * "x", "alice", "bob"):
            self.assertIn(shown, html)

    def test_can_only_be_looked_at(self):
        message = self.send(self.alice, self.bob, "before")

        self.assertEqual(self.admin.get(f"{LIST}add/").status_code, 403)
        for deed in ("change", "delete"):
            response = self.admin.post(f"{LIST}{message.pk}/{deed}/", {"content": "after", "post": "yes"})
            self.assertEqual(response.status_code, 403)
        self.admin.post(LIST, {"action": "delete_selected", "_selected_action": [message.pk], "post": "yes"})
        self.assertEqual(Message.objects.get().content, "before")

    def test_finds_what_a_user_sent_or_received(self):
        sent = self.send(self.alice, self.bob)
        received = self.send(self.carol, self.alice)
        self.send(self.bob, self.carol)
        to_herself = self.send(self.alice, self.alice)

        self.assertEqual(self.listed(f"{LIST}?q=alice"), [to_herself, received, sent])

    def test_finds_the_conversation_of_two(self):
        sent = self.send(self.alice, self.bob)
        self.send(self.carol, self.alice)
        received = self.send(self.bob, self.alice)

        self.assertEqual(self.listed(f"{LIST}?q=Bob+aLICE+BOB"), [received, sent])

    def test_finds_whole_names_alone(self):
        self.send(self.alice, self.bob)

        for names in ("ali", "alice+nobody", "alice+bob+carol", "hi"):
            with self.subTest(names):
                self.assertEqual(self.listed(f"{LIST}?q={names}"), [])

    def test_pages_hold_every_message_once(self):
        messages = [self.send(self.alice, (self.bob, self.alice)[number % 2]) for number in range(120)]
        newest_first = messages[::-1]

        for query in ("", "q=alice&"):
            with self.subTest(query):
                pages = [self.listed(f"{LIST}?{query}p={page}") for page in (1, 2, 3)]
                self.assertEqual([len(page) for page in pages], [50, 50, 20])
                self.assertEqual([message for page in pages for message in page], newest_first)
        self.assertEqual(self.listed(f"{LIST}?q=alice+bob&p=2"), newest_first[1::2][50:])

    def test_costs_the_same_for_more(self):
        for query in ("", "?q=alice", "?q=alice+bob"):
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

    def test_no_url_asks_for_what_no_index_serves(self):
        for lookup in ("content__contains=x", "created__year=2026", "sender__username__startswith=a"):
            with self.subTest(lookup):
                self.assertEqual(self.admin.get(f"{LIST}?{lookup}").status_code, 400)


class DeleteUserTests(AdminTestCase):
    def setUp(self):
        super().setUp()
        send_message(sender=self.alice, receiver=self.bob, content="hi")

    def test_refuses_sender_and_receiver_of_a_message(self):
        for user in (self.alice, self.bob):
            with self.subTest(user):
                path = f"/admin/auth/user/{user.pk}/delete/"

                self.assertIn("would require deleting the following protected related objects", self.page(path))
                self.assertEqual(self.admin.post(path, {"post": "yes"}).status_code, 200)
                self.assertTrue(User.objects.filter(pk=user.pk).exists())

    def test_refuses_several_where_one_of_them_has_a_message(self):
        selected = {"action": "delete_selected", "_selected_action": [self.bob.pk, self.carol.pk], "post": "yes"}

        response = self.admin.post("/admin/auth/user/", selected)

        self.assertContains(response, "would require deleting the following protected related objects")
        self.assertEqual(User.objects.count(), 4)
