"""Messages, and what is kept beside them so that no list ever counts or sorts a mailbox."""

from datetime import datetime
from typing import NamedTuple, Self

from django.contrib.auth.models import User
from django.db import connection, models
from django.db.models import Q
from django.utils import timezone

from config.database.sql import execute, fetch_all, fetch_one, in_utc


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
