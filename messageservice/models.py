"""Messages, and the counters, places and conversations stored with them so that no list counts or sorts a mailbox."""

from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.utils import timezone

from config.database.sql import Table

LARGEST_ID = models.BigAutoField.MAX_BIGINT


class Mailbox(models.Model):
    """The counters of a user's messages and conversations, and of messages sent in the current window of LIMIT_SEND.

    A send locks the row first (`sending.lock_or_create`), so that messages enter a mailbox one after the other.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    total = models.PositiveBigIntegerField(default=0)
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    conversations = models.PositiveBigIntegerField(default=0, db_default=0)
    window_sent = models.PositiveIntegerField(default=0)
    window_ends = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return f"mailbox of {self.user}"


class MessageQuerySet(models.QuerySet):
    def sent_by(self, user: User) -> Self:
        return self.filter(sender=user)

    def received_by(self, user: User) -> Self:
        return self.filter(receiver=user)

    def between(self, user: User, partner: User) -> Self:
        """The messages that either user sent to the other."""
        return self.filter(Q(sender=user, receiver=partner) | Q(sender=partner, receiver=user))

    def unread(self) -> Self:
        """The messages that their receiver has not marked as read."""
        return self.filter(read__isnull=True)

    def involving(self, user: User) -> Self:
        """The messages that the user sent or received, each once, messages to oneself included."""
        return self.filter(Q(sender=user) | Q(receiver=user))

    def newest_first(self) -> Self:
        """Order by id: in each mailbox, messages become visible in the order of their ids. A clock can go backwards."""
        return self.order_by("-pk")


class Message(models.Model):
    """A message and its place in the mailbox of its sender and of its receiver.

    The places of a mailbox count from 1 without a gap, so that a page at any depth is a range of places. Never delete a
    message: with a gap, a page would not be a range of places any more.
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


class Conversation(models.Model):
    """The messages that `owner` and `partner` exchanged, as the owner sees them. Each pair of users has one per owner."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    partner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    last_message = models.ForeignKey(Message, on_delete=models.PROTECT, related_name="+", db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "partner"], name="conversation_once_per_partner")]
        indexes = [
            models.Index(fields=["owner", "last_message"], name="conversation_latest"),
            models.Index(fields=["owner", "last_message"], condition=Q(unread__gt=0), name="conversation_unread"),
        ]

    def __str__(self) -> str:
        return f"conversation of {self.owner} with {self.partner}"


MAILBOX, MESSAGE, CONVERSATION = Table(Mailbox), Table(Message), Table(Conversation)
