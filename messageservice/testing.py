"""What the tests of messages share."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import connection

from messageservice.actions import send_message
from messageservice.models import Conversation, Mailbox, Message

EMPTY_PAGE = {"count": 0, "next": None, "previous": None, "results": []}
NO_SUCH_PAGE = {"detail": "Invalid page."}
# PostgreSQL writes a message and what counts it in one statement; SQLite has to be told each.
QUERIES_TO_STORE = 1 if connection.vendor == "postgresql" else 3


def stored(sender: User, receiver: User, content: str = "hi", created: datetime | None = None) -> Message:
    """A message as it stands in the database, written at another time than now where `created` says so."""
    row, _ = send_message(sender=sender, receiver=receiver, content=content)
    if created is not None:
        Message.objects.filter(pk=row.id).update(created=created)
    return Message.objects.select_related("sender", "receiver").get(pk=row.id)


def shown_time(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def shown(message: Message) -> dict:
    """The message as an answer holds it."""
    return {
        "id": message.pk,
        "sender": message.sender.username,
        "receiver": message.receiver.username,
        "content": message.content,
        "created": shown_time(message.created),
        "read": message.read and shown_time(message.read),
    }


class MessageAssertions:
    def assert_names(self, response, *fields: str) -> None:
        """A 400 that says what is wrong with these fields, or URL parameters, and with no other."""
        self.assertEqual(response.status_code, 400, response.content)
        self.assertEqual(response.json().keys(), set(fields))
        for reasons in response.json().values():
            self.assertTrue(reasons and all(reason and isinstance(reason, str) for reason in reasons), reasons)

    def assert_counters_agree(self) -> None:
        """What mailboxes and conversations count is what the messages themselves say, and places leave no gap."""
        for user in User.objects.all():
            messages = list(Message.objects.involving(user).order_by("pk"))
            sent = [message for message in messages if message.sender_id == user.pk]
            received = [message for message in messages if message.receiver_id == user.pk]
            mailbox = Mailbox.objects.of(user)

            self.assertEqual(
                (mailbox.total, mailbox.sent, mailbox.received, mailbox.unread, mailbox.conversations),
                (
                    len(messages),
                    len(sent),
                    len(received),
                    sum(message.read is None for message in received),
                    Conversation.objects.filter(owner=user).count(),
                ),
                user,
            )
            self.assertEqual(
                [self.places(message, user) for message in messages],
                [{place} for place in range(1, len(messages) + 1)],
                user,
            )
            self.assertEqual(
                {
                    row.partner_id: (row.sent, row.received, row.unread, row.last_message_id)
                    for row in Conversation.objects.filter(owner=user)
                },
                {
                    partner: (
                        sum(message.receiver_id == partner for message in sent),
                        sum(message.sender_id == partner for message in received),
                        sum(message.sender_id == partner and message.read is None for message in received),
                        max(message.pk for message in messages if partner in self.partners(message, user)),
                    )
                    for partner in set().union(*(self.partners(message, user) for message in messages))
                },
                user,
            )

    @staticmethod
    def places(message: Message, user: User) -> set[int]:
        """Where the message stands in the user's mailbox: one place, also when both ends are theirs."""
        ends = [(message.sender_id, message.sender_place), (message.receiver_id, message.receiver_place)]
        return {place for end, place in ends if end == user.pk}

    @staticmethod
    def partners(message: Message, user: User) -> set[int]:
        return {message.sender_id, message.receiver_id} - {user.pk} or {user.pk}


LISTS = ("/api/message", "/api/message/sent", "/api/message/received")

HOLDS = {
    "/api/message": lambda row, user: user in (row["sender"], row["receiver"]),
    "/api/message/sent": lambda row, user: user == row["sender"],
    "/api/message/received": lambda row, user: user == row["receiver"],
}

KEEPS = {
    "user": lambda row, user, partner: {user, partner} == {row["sender"], row["receiver"]},
    "sender": lambda row, user, sender: row["sender"] == sender,
    "receiver": lambda row, user, receiver: row["receiver"] == receiver,
    "date": lambda row, user, date: row["created"].startswith(date),
    "unread": lambda row, user, unread: (row["read"] is None) == (unread == "true"),
}


def rows_on(path: str, user: str, rows: list[dict], filters: dict[str, str]) -> list[dict]:
    """What of all messages, newest first, stands on a user's list: the filters as plainly as they can be said."""
    return [
        row
        for row in rows
        if HOLDS[path](row, user) and all(KEEPS[name](row, user, value) for name, value in filters.items())
    ]


def page_from(rows: list[dict], direction: str, start: int, size: int) -> tuple[list[dict], list[dict], list[dict]]:
    """The page before or after an id, and those that its `next` and its `previous` lead to; empty where they are null."""
    if direction == "before":
        newer = sum(row["id"] >= start for row in rows)
        older = newer + size
        return rows[newer:older], rows[older : older + size], rows[max(0, newer - size) : newer]
    older = sum(row["id"] > start for row in rows)
    newer = max(0, older - size)
    return rows[newer:older], rows[max(0, newer - size) : newer], rows[older : older + size]
