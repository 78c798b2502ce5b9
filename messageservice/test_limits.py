from collections import Counter
from functools import partial

from django.test import override_settings

from accounts.test_limits import THREE_A_MINUTE, LimitTestCase
from blocking.models import Block
from config.environment import Limit
from config.testing.cases import ConcurrentTestCase
from messageservice.models import Conversation, Mailbox, Message


def stored():
    """Return everything that a message leaves in the database."""
    return [list(model.objects.order_by("pk").values()) for model in (Message, Mailbox, Conversation)]


@override_settings(LIMIT_SEND=THREE_A_MINUTE)
class SendLimitTests(LimitTestCase):
    def setUp(self):
        super().setUp()
        self.alices_client = self.as_user(self.alice)

    def send(self, receiver="bob", content="hello", client=None, **headers):
        fields = {"receiver": receiver, "content": content}
        return (client or self.alices_client).post("/api/message", fields, headers=headers)

    def fill(self):
        for receiver in ("bob", "carol", "alice"):
            self.assertEqual(self.send(receiver).status_code, 201)

    def test_rejects_one_more_to_any_receiver(self):
        self.fill()
        before, events = stored(), self.events()

        for receiver in ("bob", "carol", "alice"):
            with self.subTest(receiver):
                self.assert_limited(self.send(receiver))
        self.assertEqual(stored(), before)
        self.assertEqual(self.events(), events)

    def test_allows_sends_after_retry_after(self):
        self.send()
        self.advance_clock(20.5)
        self.send()
        self.send()

        self.assert_allowed_after(40, self.send, 201)
        self.assertEqual([self.send().status_code for _ in range(3)], [201, 201, 429])

    def test_rejects_no_longer_than_the_window(self):
        self.assert_ignores_distant_ends("LIMIT_SEND", self.send, 201)

    def test_does_not_affect_other_senders(self):
        self.fill()

        bob = self.as_user(self.bob)
        self.assertEqual([self.send("alice", client=bob).status_code for _ in range(4)], [201, 201, 201, 429])

    def test_does_not_count_a_rejected_message(self):
        Block.objects.create(blocker=self.carol, blocked=self.alice)
        rejected = (("carol", "hello", 403), ("nobody", "hello", 400), ("bob", " ", 400), ("bob", "x" * 10_001, 400))
        for receiver, content, status in rejected * 2:
            with self.subTest(receiver, content=content[:5]):
                self.assertEqual(self.send(receiver, content).status_code, status)

        self.assertEqual([self.send().status_code for _ in range(4)], [201, 201, 201, 429])

    def test_replays_beyond_the_limit_without_counting(self):
        first = self.send(idempotency_key="one")
        again = [self.send(idempotency_key="one") for _ in range(4)]
        self.send()
        self.send()

        beyond = self.send(idempotency_key="one")

        self.assert_limited(self.send())
        for response in (*again, beyond):
            self.assertEqual((response.status_code, response.json()), (201, first.json()))
            self.assertEqual(response.headers["Idempotency-Replayed"], "true")
        self.assertEqual(self.send(content="other", idempotency_key="one").status_code, 422)
        self.assertEqual(Message.objects.count(), 3)

    def test_a_rejected_send_does_not_use_up_its_key(self):
        self.fill()
        self.assert_limited(self.send(idempotency_key="one"))
        self.advance_clock(60)

        response = self.send(content="other", idempotency_key="one")

        self.assertEqual(response.status_code, 201)
        self.assertNotIn("Idempotency-Replayed", response.headers)

    @override_settings(LIMIT_SEND=None)
    def test_allows_all_when_off(self):
        self.fill()

        self.assertEqual(self.send().status_code, 201)


@override_settings(LIMIT_SEND=Limit(count=5, seconds=3600))
class ParallelSendLimitTests(ConcurrentTestCase):
    def test_stores_as_many_as_the_limit_allows(self):
        client, receivers = self.as_user(self.alice), ("alice", "bob", "carol") * 7

        responses = self.in_parallel(
            *[partial(client.post, "/api/message", {"receiver": name, "content": "hello"}) for name in receivers]
        )

        self.assertEqual(Counter(response.status_code for response in responses), {201: 5, 429: 16})
        self.assertEqual(Message.objects.count(), 5)
        self.assertEqual(Mailbox.objects.get(user=self.alice).sent, 5)
        self.assertEqual(sum(box.received for box in Mailbox.objects.all()), 5)
        self.assertEqual(sum(conversation.sent for conversation in Conversation.objects.all()), 5)
        self.assertEqual([event for event, _, _ in self.events()], ["Successful Message"] * 5)
