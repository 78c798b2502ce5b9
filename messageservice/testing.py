"""Helpers of the message tests."""

import sys
import time
from datetime import datetime

from django.contrib.auth.models import User
from django.db import connection
from django.db.backends.sqlite3.base import SQLiteCursorWrapper

from config.database.sql import fetch_one
from config.database.sqlite.base import DatabaseWrapper
from messageservice.actions import send_message
from messageservice.models import Conversation, Mailbox, Message

EMPTY_PAGE = {"count": 0, "next": None, "previous": None, "results": []}
NO_SUCH_PAGE = {"detail": "Invalid page."}
# PostgreSQL stores and counts a message in one statement, SQLite in three.
QUERIES_TO_STORE = 1 if connection.vendor == "postgresql" else 3


def make_message(sender: User, receiver: User, content: str = "hi", created: datetime | None = None) -> Message:
    """Send a message, and return it as stored; `created` replaces its time."""
    row, _ = send_message(sender=sender, receiver=receiver, content=content)
    if created is not None:
        Message.objects.filter(pk=row.id).update(created=created)
    return Message.objects.select_related("sender", "receiver").get(pk=row.id)


def time_json(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def as_json(message: Message) -> dict:
    """Return the message as it is in responses."""
    return {
        "id": message.pk,
        "sender": message.sender.username,
        "receiver": message.receiver.username,
        "content": message.content,
        "created": time_json(message.created),
        "read": message.read and time_json(message.read),
    }


def wait_until_lock_is_awaited() -> None:
    """Return when another transaction waits for a lock: on SQLite in a thread of this process."""
    deadline = time.monotonic() + 10
    while not _lock_is_awaited():
        if time.monotonic() > deadline:
            raise AssertionError("No transaction waits for a lock.")
        time.sleep(0.01)


def _lock_is_awaited() -> bool:
    if connection.vendor == "sqlite":
        before = _positions_in_the_backend()
        time.sleep(0.1)
        return not before.isdisjoint(_positions_in_the_backend())
    fetch_one("SELECT pg_stat_clear_snapshot()")  # within a transaction the server would return the same rows again
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return fetch_one(waiting) != (0,)


def _positions_in_the_backend() -> set[tuple[int, int]]:
    """Return where threads are that begin a transaction on SQLite or execute a statement."""
    functions = (DatabaseWrapper._start_transaction_under_autocommit, SQLiteCursorWrapper.execute)
    codes = [function.__code__ for function in functions]
    return {(id(frame), frame.f_lasti) for frame in sys._current_frames().values() if frame.f_code in codes}


class MessageAssertions:
    def assert_invalid(self, response, *fields: str) -> None:
        """Assert that the response is a 400 with errors of these fields or URL parameters, and of no others."""
        self.assertEqual(response.status_code, 400, response.content)
        self.assertEqual(response.json().keys(), set(fields))
        for reasons in response.json().values():
            self.assertTrue(reasons and all(reason and isinstance(reason, str) for reason in reasons), reasons)

    def assert_counters_agree(self) -> None:
        """Assert that all counters agree with the messages, and that the places have no gap."""
        for user in User.objects.all():
            messages = list(Message.objects.involving(user).order_by("pk"))
            sent = [message for message in messages if message.sender_id == user.pk]
            received = [message for message in messages if message.receiver_id == user.pk]
            mailbox = Mailbox.objects.filter(user=user).first() or Mailbox()

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
        """The places of the message in the user's mailbox: a single place, even if the user sent it to themselves."""
        entries = [(message.sender_id, message.sender_place), (message.receiver_id, message.receiver_place)]
        return {place for owner, place in entries if owner == user.pk}

    @staticmethod
    def partners(message: Message, user: User) -> set[int]:
        return {message.sender_id, message.receiver_id} - {user.pk} or {user.pk}


LISTS = ("/api/message", "/api/message/sent", "/api/message/received")

BELONGS = {
    "/api/message": lambda row, user: user in (row["sender"], row["receiver"]),
    "/api/message/sent": lambda row, user: user == row["sender"],
    "/api/message/received": lambda row, user: user == row["receiver"],
}

MATCHES = {
    "user": lambda row, user, partner: {user, partner} == {row["sender"], row["receiver"]},
    "sender": lambda row, user, sender: row["sender"] == sender,
    "receiver": lambda row, user, receiver: row["receiver"] == receiver,
    "date": lambda row, user, date: row["created"].startswith(date),
    "since": lambda row, user, since: row["created"] >= since,  # a time in the format of responses
    "until": lambda row, user, until: row["created"] < until,
    "unread": lambda row, user, unread: (row["read"] is None) == (unread == "true"),
}


def expected_rows(path: str, user: str, rows: list[dict], filters: dict[str, str]) -> list[dict]:
    """Return which rows of all messages belong on a user's list: a plain model of the lists and their filters."""
    return [
        row
        for row in rows
        if BELONGS[path](row, user) and all(MATCHES[name](row, user, value) for name, value in filters.items())
    ]


def expected_page(rows: list[dict], direction: str, start: int, size: int) -> tuple[list[dict], list[dict], list[dict]]:
    """Return the page at an id, and the pages behind its `next` and `previous`; an empty list for a null link."""
    if direction == "before":
        newer = sum(row["id"] >= start for row in rows)
        older = newer + size
        return rows[newer:older], rows[older : older + size], rows[max(0, newer - size) : newer]
    older = sum(row["id"] > start for row in rows)
    newer = max(0, older - size)
    return rows[newer:older], rows[max(0, newer - size) : newer], rows[older : older + size]
