"""The two steps of a send, in SQL: lock both mailboxes, then store the message and count it."""

from datetime import UTC, datetime
from typing import NamedTuple

from django.contrib.auth.models import User
from django.db import connection

from accounts.models import USER
from blocking.models import blocks
from config.database.sql import execute, fetch_all, fetch_one
from messageservice.models import CONVERSATION, MAILBOX, MESSAGE, Mailbox


class LockedMailbox(NamedTuple):
    """What a send needs from a mailbox. No other transaction can change it until this one ends."""

    user_id: int
    total: int
    window_sent: int
    window_ends: datetime | None
    blocks_sender: bool


LOCK = f"""
    SELECT {MAILBOX.user}, {MAILBOX.total}, {MAILBOX.window_sent}, {MAILBOX.window_ends},
        {blocks(blocker=MAILBOX.user, blocked="%(sender)s")}
    FROM {MAILBOX}
    WHERE {MAILBOX.user} IN (%(sender)s, %(receiver)s)
        AND EXISTS (SELECT 1 FROM {MAILBOX} WHERE {MAILBOX.user} = %(sender)s)
        AND EXISTS (SELECT 1 FROM {MAILBOX} WHERE {MAILBOX.user} = %(receiver)s)
    ORDER BY {MAILBOX.user}
"""
ADD_MESSAGE = f"""
    INSERT INTO {MESSAGE} (
        {MESSAGE.sender}, {MESSAGE.receiver}, {MESSAGE.content}, {MESSAGE.created}, {MESSAGE.read},
        {MESSAGE.idempotency_key}, {MESSAGE.sender_place}, {MESSAGE.receiver_place}
    )
    SELECT %(sender)s, {USER.id}, %(content)s, %(created)s, %(read)s,
        %(idempotency_key)s, %(sender_place)s, %(receiver_place)s
    FROM {USER} WHERE {USER.id} = %(receiver)s AND {USER.is_active}
        AND EXISTS (SELECT 1 FROM {USER} WHERE {USER.id} = %(sender)s AND {USER.is_active})
    RETURNING {MESSAGE.id}
"""
COUNT_IN_MAILBOXES = f"""
    UPDATE {MAILBOX} SET
        {MAILBOX.total} = {MAILBOX.total} + 1,
        {MAILBOX.sent} = {MAILBOX.sent} + CASE WHEN {MAILBOX.user} = %(sender)s THEN 1 ELSE 0 END,
        {MAILBOX.received} = {MAILBOX.received} + CASE WHEN {MAILBOX.user} = %(receiver)s THEN 1 ELSE 0 END,
        {MAILBOX.unread} = {MAILBOX.unread} + CASE WHEN {MAILBOX.user} <> %(sender)s THEN 1 ELSE 0 END,
        {MAILBOX.conversations} = {MAILBOX.conversations} + CASE WHEN EXISTS (
            SELECT 1 FROM {CONVERSATION} WHERE {CONVERSATION.owner} = %(sender)s AND {CONVERSATION.partner} = %(receiver)s
        ) THEN 0 ELSE 1 END,
        {MAILBOX.window_sent} = CASE WHEN {MAILBOX.user} = %(sender)s THEN %(window_sent)s ELSE {MAILBOX.window_sent} END,
        {MAILBOX.window_ends} = CASE WHEN {MAILBOX.user} = %(sender)s THEN %(window_ends)s ELSE {MAILBOX.window_ends} END
    WHERE {MAILBOX.user} IN (%(sender)s, %(receiver)s)
"""
COUNT_IN_CONVERSATIONS = f"""
    INSERT INTO {CONVERSATION} AS c (
        {CONVERSATION.owner}, {CONVERSATION.partner},
        {CONVERSATION.sent}, {CONVERSATION.received}, {CONVERSATION.unread}, {CONVERSATION.last_message}
    )
    SELECT %(sender)s, %(receiver)s, 1, CASE WHEN %(sender)s = %(receiver)s THEN 1 ELSE 0 END, 0, message.id FROM {{message}}
    UNION ALL SELECT %(receiver)s, %(sender)s, 0, 1, 1, message.id FROM {{message}} WHERE %(sender)s <> %(receiver)s
    ON CONFLICT ({CONVERSATION.owner}, {CONVERSATION.partner}) DO UPDATE SET
        {CONVERSATION.sent} = c.{CONVERSATION.sent} + excluded.{CONVERSATION.sent},
        {CONVERSATION.received} = c.{CONVERSATION.received} + excluded.{CONVERSATION.received},
        {CONVERSATION.unread} = c.{CONVERSATION.unread} + excluded.{CONVERSATION.unread},
        {CONVERSATION.last_message} = excluded.{CONVERSATION.last_message}
"""
STORE_AT_ONCE = f"""
    WITH message (id) AS ({ADD_MESSAGE}), mailboxes AS ({COUNT_IN_MAILBOXES}),
        conversations AS ({COUNT_IN_CONVERSATIONS.format(message="message")})
    SELECT id FROM message
"""


def lock_or_create(sender: User, receiver: User) -> tuple[LockedMailbox, LockedMailbox]:
    """Lock the mailboxes of both users until the transaction ends; create those that are missing.

    The rows are locked in the order of their keys, so that two transactions that lock the same pair cannot deadlock. While a
    row is missing neither is locked: creating it after locking the other one would break that order. SQLite has locked the
    whole database already, because its transactions begin IMMEDIATE.
    """
    lock = LOCK + (" FOR UPDATE" if connection.features.has_select_for_update else "")
    while not (rows := fetch_all(lock, sender=sender.pk, receiver=receiver.pk)):
        missing = [Mailbox(user_id=pk) for pk in sorted({sender.pk, receiver.pk})]
        Mailbox.objects.bulk_create(missing, ignore_conflicts=True)
    locked = {row.user_id: row._replace(window_ends=assume_utc(row.window_ends)) for row in map(LockedMailbox._make, rows)}
    return locked[sender.pk], locked[receiver.pk]


def assume_utc(time: datetime | None) -> datetime | None:
    """Set the time zone of a time that was read from the database, which stores times in UTC."""
    return None if time is None else time.replace(tzinfo=UTC)


def store_message(
    sender: LockedMailbox, receiver: LockedMailbox, *, content: str, created: datetime, idempotency_key: str | None
) -> int | None:
    """Store a message, count it in both mailboxes and conversations, and return its id.

    Returns None if the receiver or the sender is deactivated or deleted, even since the request began; roll the transaction
    back then.
    """
    parameters = {
        "sender": sender.user_id,
        "receiver": receiver.user_id,
        "content": content,
        "created": created,
        "read": created if sender.user_id == receiver.user_id else None,
        "idempotency_key": idempotency_key,
        "sender_place": sender.total + 1,
        "receiver_place": receiver.total + 1,
        "window_sent": sender.window_sent,
        "window_ends": sender.window_ends,
    }
    if connection.vendor == "postgresql":  # one round trip; SQLite has no writes in a WITH
        row = fetch_one(STORE_AT_ONCE, **parameters)
    elif row := fetch_one(ADD_MESSAGE, **parameters):
        execute(COUNT_IN_MAILBOXES, **parameters)
        message = "(SELECT %(message_id)s AS id) message"
        execute(COUNT_IN_CONVERSATIONS.format(message=message), **parameters, message_id=row[0])
    return row[0] if row else None
