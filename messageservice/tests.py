from config.testing import ApiTestCase, ConcurrentTestCase
from messageservice.models import Mailbox, Message


class SendTests(ApiTestCase):
    def test_stores_and_answers_with_the_message(self):
        response = self.as_user(self.alice).post("/api/message", {"receiver": "bob", "content": " hi\n"})

        self.assertEqual(response.status_code, 201)
        message = Message.objects.get()
        self.assertTime(response.json()["created"])
        self.assertEqual(
            response.json(),
            {
                "id": message.pk,
                "sender": "alice",
                "receiver": "bob",
                "content": " hi\n",
                "created": response.json()["created"],
                "read": None,
            },
        )
        self.assertEqual(self.events(), [("Successful Message", "alice", "bob")])


class SendAtOnceTests(ConcurrentTestCase):
    def test_two_who_write_to_each_other(self):
        alice, bob = self.as_user(self.alice), self.as_user(self.bob)

        responses = self.at_once(
            *[lambda: alice.post("/api/message", {"receiver": "bob", "content": "a"})] * 8,
            *[lambda: bob.post("/api/message", {"receiver": "alice", "content": "b"})] * 8,
        )

        self.assertEqual([response.status_code for response in responses], [201] * 16)
        places = Message.objects.involving(self.alice).order_by("pk")
        self.assertEqual(Mailbox.objects.of(self.alice).total, 16)
        self.assertEqual(
            [m.sender_place if m.sender_id == self.alice.pk else m.receiver_place for m in places], list(range(1, 17))
        )
