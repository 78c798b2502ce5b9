"""What is kept beside the messages, compared with them: the counts, places and conversations of each user."""

from typing import NamedTuple

from django.contrib.auth.models import User

from config.database.sql import execute, fetch_all


class Misplaced(NamedTuple):
    """How many messages of a mailbox are not in their places, and the first of them."""

    messages: int
    first: int
    place: int
    right_place: int


class Comparison(NamedTuple):
    """What is kept of a mailbox, or of one of its conversations, and what it should be by its messages.

    Nothing is `kept` where the row is missing, and nothing is `right` where a conversation has no messages.
    """

    user_id: int
    username: str
    partner_id: int | None
    partner: str
    kept: dict[str, int]
    right: dict[str, int]
    misplaced: Misplaced | None


# What the messages of the users in a range of ids say of each mailbox. One to oneself is there once; where it has been given
# two places, its place reads 0, which is never right.
PLACES = """
    SELECT entry.*, row_number() OVER (PARTITION BY owner_id ORDER BY id) AS right_place
    FROM (
        SELECT
            sender_id AS owner_id, receiver_id AS partner_id, id,
            CASE WHEN sender_id = receiver_id AND sender_place <> receiver_place THEN 0 ELSE sender_place END AS place,
            1 AS sent,
            CASE WHEN sender_id = receiver_id THEN 1 ELSE 0 END AS received,
            CASE WHEN sender_id = receiver_id AND read IS NULL THEN 1 ELSE 0 END AS unread
        FROM messageservice_message WHERE sender_id BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT receiver_id, sender_id, id, receiver_place, 0, 1, CASE WHEN read IS NULL THEN 1 ELSE 0 END
        FROM messageservice_message WHERE receiver_id BETWEEN %(first)s AND %(last)s AND sender_id <> receiver_id
    ) entry
"""
FIGURES = ("total", "sent", "received", "unread", "conversations", "last_message_id")
COMPARE = f"""
    WITH pair AS (
        SELECT
            owner_id, partner_id, count(*) AS total, sum(sent) AS sent, sum(received) AS received, sum(unread) AS unread,
            max(id) AS last_message_id,
            sum(CASE WHEN place <> right_place THEN 1 ELSE 0 END) AS misplaced,
            min(CASE WHEN place <> right_place THEN id END) AS first_misplaced,
            min(CASE WHEN place <> right_place THEN right_place END) AS right_place
        FROM ({PLACES}) places GROUP BY owner_id, partner_id
    )
    SELECT
        u.id AS user_id, u.username, NULL AS partner_id, '' AS partner,
        b.total, b.sent, b.received, b.unread, b.conversations, NULL,
        coalesce(r.total, 0), coalesce(r.sent, 0), coalesce(r.received, 0), coalesce(r.unread, 0),
        coalesce(r.conversations, 0), NULL,
        r.misplaced, r.first_misplaced,
        CASE WHEN m.sender_id = u.id AND m.sender_place <> r.right_place THEN m.sender_place ELSE m.receiver_place END,
        r.right_place
    FROM auth_user u
    LEFT JOIN messageservice_mailbox b ON b.user_id = u.id
    LEFT JOIN (
        SELECT
            owner_id, sum(total) AS total, sum(sent) AS sent, sum(received) AS received, sum(unread) AS unread,
            count(*) AS conversations, sum(misplaced) AS misplaced, min(first_misplaced) AS first_misplaced,
            min(right_place) AS right_place
        FROM pair GROUP BY owner_id
    ) r ON r.owner_id = u.id
    LEFT JOIN messageservice_message m ON m.id = r.first_misplaced
    WHERE u.id BETWEEN %(first)s AND %(last)s
    UNION ALL
    SELECT
        c.owner_id, o.username, c.partner_id, p.username,
        NULL, c.kept_sent, c.kept_received, c.kept_unread, NULL, c.kept_last,
        NULL, c.sent, c.received, c.unread, NULL, c.last, NULL, NULL, NULL, NULL
    FROM (
        SELECT
            owner_id, partner_id, max(sent) AS sent, max(received) AS received, max(unread) AS unread, max(last) AS last,
            max(kept_sent) AS kept_sent, max(kept_received) AS kept_received, max(kept_unread) AS kept_unread,
            max(kept_last) AS kept_last
        FROM (
            SELECT
                owner_id, partner_id, sent, received, unread, last_message_id AS last,
                NULL AS kept_sent, NULL AS kept_received, NULL AS kept_unread, NULL AS kept_last
            FROM pair
            UNION ALL
            SELECT owner_id, partner_id, NULL, NULL, NULL, NULL, sent, received, unread, last_message_id
            FROM messageservice_conversation WHERE owner_id BETWEEN %(first)s AND %(last)s
        ) both_sides
        GROUP BY owner_id, partner_id
        HAVING count(*) <> 2 OR max(sent) <> max(kept_sent) OR max(received) <> max(kept_received)
            OR max(unread) <> max(kept_unread) OR max(last) <> max(kept_last)
    ) c
    JOIN auth_user o ON o.id = c.owner_id JOIN auth_user p ON p.id = c.partner_id
    ORDER BY user_id, partner
"""
BEYOND_PLACES = 2**62  # more than the service ever gives
MOVE_AWAY = f"""
    UPDATE messageservice_message AS m SET
        sender_place = CASE WHEN m.sender_id = %(first)s THEN %(beyond)s + right_place ELSE m.sender_place END,
        receiver_place = CASE WHEN m.receiver_id = %(first)s THEN %(beyond)s + right_place ELSE m.receiver_place END
    FROM ({PLACES}) places WHERE places.id = m.id AND places.place <> places.right_place
"""
MOVE_BACK = """
    UPDATE messageservice_message SET {end}_place = {end}_place - %(beyond)s
    WHERE {end}_id = %(user)s AND {end}_place > %(beyond)s
"""


def compare(first: int, last: int) -> list[Comparison]:
    """The mailboxes of the users whose ids lie in the range, each followed by those of its conversations that differ.

    One statement, and so one snapshot: what is being sent meanwhile is in all of it or in nothing.
    """
    rows = fetch_all(COMPARE, first=first, last=last)
    return [
        Comparison(
            *row[:4],
            kept=_figures(row[4:10]),
            right=_figures(row[10:16]),
            misplaced=Misplaced(*map(int, row[16:])) if row[16] else None,
        )
        for row in rows
    ]


def _figures(values: tuple) -> dict[str, int]:
    """By the names of the models' fields. What a sum adds up comes from PostgreSQL as a Decimal."""
    return {name: int(value) for name, value in zip(FIGURES, values, strict=True) if value is not None}


def renumber(user: User) -> None:
    """Put all messages in their right places in the user's mailbox, which is locked; in no other are they moved.

    In two steps, by way of places where there is nothing yet: none may be taken twice even for a moment.
    """
    execute(MOVE_AWAY, first=user.pk, last=user.pk, beyond=BEYOND_PLACES)
    for end in ("sender", "receiver"):
        execute(MOVE_BACK.format(end=end), user=user.pk, beyond=BEYOND_PLACES)
