"""Messages, and what is kept beside them so that no list ever counts or sorts a mailbox."""

from datetime import datetime
from typing import NamedTuple, Self

from django.contrib.auth.models import User
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone

from config.database import execute, fetch_all, fetch_one, in_utc


class MessageRow(NamedTuple):
    """A message as it is shown."""

    id: int
    sender: str
    receiver: str
    content: str
    created: datetime
    read: datetime | None


class LockedMailbox(NamedTuple):
    """What a send needs to know of a mailbox that nobody else writes to meanwhile."""

    total: int
    window_sent: int
    window_ends: datetime | None
    blocks_sender: bool


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


class MailboxQuerySet(models.QuerySet):
    def of(self, user: User) -> "Mailbox":
        """The user's mailbox; an unsaved, empty one for whom no message was ever stored."""
        return self.filter(user=user).first() or Mailbox(user=user)

    def lock(self, sender: User, receiver: User) -> dict[int, LockedMailbox]:
        """The mailboxes of the two, who may be one, by user id; made where missing, nobody else's until the end.

        In the order of their keys, so that two who lock the same pair never wait for each other. SQLite has locked the whole
        database already, as its transactions begin IMMEDIATE.
        """
        locked = self._lock(sender, receiver)
        if not locked:
            missing = [Mailbox(user_id=pk) for pk in sorted({sender.pk, receiver.pk})]
            self.bulk_create(missing, ignore_conflicts=True)
            locked = self._lock(sender, receiver)
        return locked

    @staticmethod
    def _lock(sender: User, receiver: User) -> dict[int, LockedMailbox]:
        """None where one is missing: it would be made, and so locked, after one with a higher key."""
        rows = fetch_all(
            "SELECT user_id, total, window_sent, window_ends,"
            " EXISTS (SELECT 1 FROM blocking_block WHERE blocker_id = user_id AND blocked_id = %(sender)s)"
            " FROM messageservice_mailbox WHERE user_id IN (%(sender)s, %(receiver)s)"
            " AND EXISTS (SELECT 1 FROM messageservice_mailbox WHERE user_id = %(sender)s)"
            " AND EXISTS (SELECT 1 FROM messageservice_mailbox WHERE user_id = %(receiver)s)"
            " ORDER BY user_id" + (" FOR UPDATE" if connection.features.has_select_for_update else ""),
            sender=sender.pk,
            receiver=receiver.pk,
        )
        return {user: LockedMailbox(total, sent, in_utc(ends), bool(blocks)) for user, total, sent, ends, blocks in rows}

    @staticmethod
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


class Mailbox(models.Model):
    """How many messages and conversations a user has, and how many messages they sent in the running window of LIMIT_SEND.

    Who locks it decides which message is the next one in it.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    total = models.PositiveBigIntegerField(default=0)
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    conversations = models.PositiveBigIntegerField(default=0, db_default=0)
    window_sent = models.PositiveIntegerField(default=0)
    window_ends = models.DateTimeField(null=True, blank=True)

    objects = MailboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return f"mailbox of {self.user}"


# What one message changes, each for both of its ends, which may be the same user.
ADD_MESSAGE = """
    INSERT INTO messageservice_message
        (sender_id, receiver_id, content, created, read, idempotency_key, sender_place, receiver_place)
    VALUES (
        %(sender)s, %(receiver)s, %(content)s, %(created)s, %(read)s, %(idempotency_key)s,
        %(sender_place)s, %(receiver_place)s
    )
    RETURNING id
"""
COUNT_IN_MAILBOXES = """
    UPDATE messageservice_mailbox SET
        total = total + 1,
        sent = sent + CASE WHEN user_id = %(sender)s THEN 1 ELSE 0 END,
        received = received + CASE WHEN user_id = %(receiver)s THEN 1 ELSE 0 END,
        unread = unread + CASE WHEN user_id <> %(sender)s THEN 1 ELSE 0 END,
        conversations = conversations + CASE WHEN EXISTS (
            SELECT 1 FROM messageservice_conversation WHERE owner_id = %(sender)s AND partner_id = %(receiver)s
        ) THEN 0 ELSE 1 END,
        window_sent = CASE WHEN user_id = %(sender)s THEN %(window_sent)s ELSE window_sent END,
        window_ends = CASE WHEN user_id = %(sender)s THEN %(window_ends)s ELSE window_ends END
    WHERE user_id IN (%(sender)s, %(receiver)s)
"""
COUNT_IN_CONVERSATIONS = """
    INSERT INTO messageservice_conversation AS c (owner_id, partner_id, sent, received, unread, last_message_id)
    SELECT %(sender)s, %(receiver)s, 1, CASE WHEN %(sender)s = %(receiver)s THEN 1 ELSE 0 END, 0, {message}
    UNION ALL SELECT %(receiver)s, %(sender)s, 0, 1, 1, {message} WHERE %(sender)s <> %(receiver)s
    ON CONFLICT (owner_id, partner_id) DO UPDATE SET
        sent = c.sent + excluded.sent,
        received = c.received + excluded.received,
        unread = c.unread + excluded.unread,
        last_message_id = excluded.last_message_id
"""

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


class MessageQuerySet(models.QuerySet):
    def store(
        self,
        *,
        sender: User,
        receiver: User,
        content: str,
        created: datetime,
        idempotency_key: str | None,
        mailboxes: dict[int, LockedMailbox],
        window_sent: int,
        window_ends: datetime | None,
    ) -> MessageRow:
        """Write a message into both mailboxes, which are locked, and count it there and in both conversations."""
        read = created if sender == receiver else None
        parameters = {
            "sender": sender.pk,
            "receiver": receiver.pk,
            "content": content,
            "created": created,
            "read": read,
            "idempotency_key": idempotency_key,
            "sender_place": mailboxes[sender.pk].total + 1,
            "receiver_place": mailboxes[receiver.pk].total + 1,
            "window_sent": window_sent,
            "window_ends": window_ends,
        }
        if connection.vendor == "postgresql":
            (pk,) = fetch_one(
                f"WITH message AS ({ADD_MESSAGE}), mailboxes AS ({COUNT_IN_MAILBOXES}), conversations AS"
                f" ({COUNT_IN_CONVERSATIONS.format(message='(SELECT id FROM message)')}) SELECT id FROM message",
                **parameters,
            )
        else:
            (pk,) = fetch_one(ADD_MESSAGE, **parameters)
            execute(COUNT_IN_MAILBOXES, **parameters)
            execute(COUNT_IN_CONVERSATIONS.format(message="%(message)s"), **parameters, message=pk)
        return MessageRow(pk, sender.username, receiver.username, content, created, read)

    @staticmethod
    def renumber(user: User) -> None:
        """Put all messages in their right places in the user's mailbox, which is locked; in no other are they moved.

        In two steps, by way of places where there is nothing yet: none may be taken twice even for a moment.
        """
        execute(MOVE_AWAY, first=user.pk, last=user.pk, beyond=BEYOND_PLACES)
        for end in ("sender", "receiver"):
            execute(MOVE_BACK.format(end=end), user=user.pk, beyond=BEYOND_PLACES)

    def sent_by(self, user: User) -> Self:
        return self.filter(sender=user)

    def received_by(self, user: User) -> Self:
        return self.filter(receiver=user)

    def between(self, one: User, other: User) -> Self:
        """What either of the two sent the other."""
        return self.filter(Q(sender=one, receiver=other) | Q(sender=other, receiver=one))

    def unread(self) -> Self:
        """What its receiver has not marked as read."""
        return self.filter(read__isnull=True)

    def involving(self, user: User) -> Self:
        """What the user sent or received; each message once, those to oneself as well."""
        return self.filter(Q(sender=user) | Q(receiver=user))

    def newest_first(self) -> Self:
        """By id: in every mailbox ids rise in the order in which messages became visible, which times do not promise."""
        return self.order_by("-pk")


class Message(models.Model):
    """One message, with its place in the mailbox of each of its two, counted from 1 without a gap.

    A page of a mailbox is a range of places: it costs the same at any depth.
    """

    sender = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    receiver = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    content = models.TextField()
    created = models.DateTimeField(default=timezone.now)
    read = models.DateTimeField(null=True, blank=True)
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)
    sender_place = models.PositiveBigIntegerField()
    receiver_place = models.PositiveBigIntegerField()

    objects = MessageQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sender", "sender_place"], name="message_place_of_sender"),
            models.UniqueConstraint(fields=["receiver", "receiver_place"], name="message_place_of_receiver"),
            models.UniqueConstraint(
                fields=["sender", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="message_once_per_key",
            ),
        ]
        indexes = [
            models.Index(fields=["sender", "id"], name="message_sent"),
            models.Index(fields=["receiver", "id"], name="message_received"),
            models.Index(fields=["sender", "receiver", "id"], name="message_between"),
            models.Index(fields=["sender", "created"], name="message_sent_on_day"),
            models.Index(fields=["receiver", "created"], name="message_received_on_day"),
            models.Index(fields=["receiver", "id"], condition=Q(read__isnull=True), name="message_unread"),
        ]

    def __str__(self) -> str:
        return f"message {self.pk} from {self.sender} to {self.receiver}"


class ConversationQuerySet(models.QuerySet):
    def of(self, user: User) -> Self:
        return self.filter(owner=user)

    def between(self, owner: User, partner: User) -> "Conversation":
        """The owner's conversation with the partner; an unsaved, empty one where they never wrote to each other."""
        return self.filter(owner=owner, partner=partner).first() or Conversation(owner=owner, partner=partner)


class Conversation(models.Model):
    """What `owner` has exchanged with `partner`, as the owner sees it. Of each pair both have one; they change together."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    partner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    last_message = models.ForeignKey(Message, on_delete=models.PROTECT, related_name="+", db_index=False)

    objects = ConversationQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "partner"], name="conversation_once_per_partner")]
        indexes = [
            models.Index(fields=["owner", "last_message"], name="conversation_latest"),
            models.Index(fields=["owner", "last_message"], condition=Q(unread__gt=0), name="conversation_unread"),
        ]

    def __str__(self) -> str:
        return f"conversation of {self.owner} with {self.partner}"
