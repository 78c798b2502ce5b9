"""Compares the stored counters, places and conversations with the messages that they are derived from, and repairs them."""

from collections import defaultdict, namedtuple

from django.contrib.auth.models import User
from django.db import connection, transaction

from config.database.sql import execute, fetch_all
from messageservice.models import CONVERSATION, MAILBOX, MESSAGE, Conversation, Mailbox
from messageservice.sending import lock_or_create

MAILBOX_FIGURES = ("total", "sent", "received", "unread", "conversations")
CONVERSATION_FIGURES = ("sent", "received", "unread", "last_message_id")
# Figures of a mailbox or of one of its conversations, or the number of a mailbox's messages with a wrong place.
Figures = namedtuple("Figures", [*MAILBOX_FIGURES, "last_message_id", "misplaced"], defaults=[0] * 7)
# By the ids of user and partner (0 for the mailbox, -1 for its places): the figures as they should be, and as stored.
Differences = dict[tuple[int, int], list[Figures]]

# A message has an entry for its sender and one for its receiver. If they are the same user, both share a place.
ENTRIES = f"""
    SELECT entries.*, dense_rank() OVER (PARTITION BY user_id ORDER BY id) AS expected_place
    FROM (
        SELECT {MESSAGE.id} AS id, {MESSAGE.sender} AS user_id, {MESSAGE.receiver} AS partner_id,
            {MESSAGE.sender_place} AS place, 1 AS sent, 0 AS received, 0 AS unread
        FROM {MESSAGE} WHERE {MESSAGE.sender} BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT {MESSAGE.id}, {MESSAGE.receiver}, {MESSAGE.sender},
            {MESSAGE.receiver_place}, 0, 1, CASE WHEN {MESSAGE.read} IS NULL THEN 1 ELSE 0 END
        FROM {MESSAGE} WHERE {MESSAGE.receiver} BETWEEN %(first)s AND %(last)s
    ) entries
"""
KEYS_AND_FIGURES = "user_id, partner_id, total, sent, received, unread, conversations, last_message, misplaced"
# Figures that agree are twice in the union, stored and expected: `HAVING` drops them, and those that are all 0.
COMPARE = f"""
    WITH entries AS ({ENTRIES})
    SELECT max(is_stored), {KEYS_AND_FIGURES} FROM (
        SELECT 0 AS is_stored, user_id, 0 AS partner_id, max(expected_place) AS total, sum(sent) AS sent,
            sum(received) AS received, sum(unread) AS unread, count(DISTINCT partner_id) AS conversations,
            0 AS last_message, 0 AS misplaced
        FROM entries GROUP BY user_id
        UNION ALL
        SELECT 1, {MAILBOX.user}, 0, {MAILBOX.total}, {MAILBOX.sent}, {MAILBOX.received}, {MAILBOX.unread},
            {MAILBOX.conversations}, 0, 0
        FROM {MAILBOX} WHERE {MAILBOX.user} BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT 1, user_id, -1, 0, 0, 0, 0, 0, 0, count(*) FROM entries WHERE place <> expected_place GROUP BY user_id
        UNION ALL
        SELECT 0, user_id, partner_id, 0, sum(sent), sum(received), sum(unread), 0, max(id), 0
        FROM entries GROUP BY user_id, partner_id
        UNION ALL
        SELECT 1, {CONVERSATION.owner}, {CONVERSATION.partner}, 0, {CONVERSATION.sent}, {CONVERSATION.received},
            {CONVERSATION.unread}, 0, {CONVERSATION.last_message}, 0
        FROM {CONVERSATION} WHERE {CONVERSATION.owner} BETWEEN %(first)s AND %(last)s
    ) figures
    GROUP BY {KEYS_AND_FIGURES}
    HAVING count(*) = 1 AND (total, sent, received, unread, conversations, last_message, misplaced) <> (0, 0, 0, 0, 0, 0, 0)
    ORDER BY user_id, partner_id
"""
UNUSED_PLACE = 2**62  # no mailbox has a place beyond it
MOVE_MISPLACED = f"""
    UPDATE {MESSAGE} AS m SET {{place}} = %(base)s + expected_place
    FROM ({ENTRIES}) entries WHERE entries.id = m.{MESSAGE.id} AND {{user}} = %(first)s AND place <> expected_place
"""


def compare(first: int, last: int) -> Differences:
    """Return the differences of the users whose ids are in the range.

    The one statement sees one snapshot: a message that is being sent counts in all of its figures or in none.
    """
    differences = defaultdict(lambda: [Figures(), Figures()])
    for is_stored, user_id, partner_id, *figures in fetch_all(COMPARE, first=first, last=last):
        differences[user_id, partner_id][is_stored] = Figures(*figures)
    return differences


@transaction.atomic
def repair_user(user: User) -> Differences:
    """Make what is stored for the user agree with the messages. Returns the differences.

    The lock on the user's mailbox makes every request wait that sends to or from the user, or marks such messages as read.
    """
    if connection.vendor == "postgresql":
        execute("SET LOCAL lock_timeout = '10s'")  # no request holds a lock for longer than 5 s
    lock_or_create(user, user)
    differences = compare(user.pk, user.pk)
    conversations = []
    for (_, partner_id), (expected, stored) in differences.items():
        if stored.misplaced:
            renumber(user)
        elif not partner_id:
            Mailbox.objects.filter(user=user).update(**{name: getattr(expected, name) for name in MAILBOX_FIGURES})
        elif expected.last_message_id:
            values = {name: getattr(expected, name) for name in CONVERSATION_FIGURES}
            conversations.append(Conversation(owner=user, partner_id=partner_id, **values))
        else:
            Conversation.objects.filter(owner=user, partner=partner_id).delete()
    keys, figures = ("owner", "partner"), CONVERSATION_FIGURES
    Conversation.objects.bulk_create(conversations, 1000, update_conflicts=True, unique_fields=keys, update_fields=figures)
    return differences


def renumber(user: User) -> None:
    """Move misplaced messages to their places, by way of unused ones: no two messages of a mailbox may share a place."""
    for base in (UNUSED_PLACE, 0):
        for column, place in ((MESSAGE.sender, MESSAGE.sender_place), (MESSAGE.receiver, MESSAGE.receiver_place)):
            execute(MOVE_MISPLACED.format(user=column, place=place), first=user.pk, last=user.pk, base=base)
