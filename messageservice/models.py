"""Messages, and what is kept beside them so that no list ever counts or sorts a mailbox."""

from datetime import UTC, date, datetime, time
from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Q
from django.utils import timezone


class MailboxQuerySet(models.QuerySet):
    def of(self, user: User) -> "Mailbox":
        """The user's mailbox; an unsaved, empty one for whom no message was ever stored."""
        return self.filter(user=user).first() or Mailbox(user=user)

    def lock(self, *users: User) -> dict[int, "Mailbox"]:
        """The mailboxes of the users by user id, made where missing, and nobody else's until the transaction ends.

        In the order of their keys, so that two who lock the same pair never wait for each other. SQLite has locked the whole
        database already, as its transactions begin IMMEDIATE.
        """
        ids = {user.pk for user in users}
        locked = self.select_for_update().order_by("pk").in_bulk(ids)
        if len(locked) < len(ids):
            self.bulk_create([Mailbox(user_id=pk) for pk in sorted(ids)], ignore_conflicts=True)
            locked = self.select_for_update().order_by("pk").in_bulk(ids)
        return locked


class Mailbox(models.Model):
    """How many messages a user has. Who locks it decides which message is the next one in it."""

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    total = models.PositiveBigIntegerField(default=0)
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)

    objects = MailboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return f"mailbox of {self.user}"


class MessageQuerySet(models.QuerySet):
    def sent_by(self, user: User) -> Self:
        return self.filter(sender=user)

    def received_by(self, user: User) -> Self:
        return self.filter(receiver=user)

    def involving(self, user: User) -> Self:
        """What the user sent or received; each message once, those to oneself as well."""
        return self.filter(Q(sender=user) | Q(receiver=user))

    def in_places(self, user: User, first: int, last: int) -> Self:
        """What holds the places from `first` to `last`, both included, in the user's mailbox."""
        places = (first, last)
        return self.filter(Q(sender=user, sender_place__range=places) | Q(receiver=user, receiver_place__range=places))

    def on(self, day: date) -> Self:
        """What was sent between the two midnights of a day in UTC."""
        return self.filter(
            created__range=(datetime.combine(day, time.min, tzinfo=UTC), datetime.combine(day, time.max, tzinfo=UTC))
        )

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


class Conversation(models.Model):
    """What `owner` has exchanged with `partner`, as the owner sees it. Of each pair both have one; they change together."""

    owner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+", db_index=False)
    partner = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    last_message = models.ForeignKey(Message, on_delete=models.PROTECT, related_name="+", db_index=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "partner"], name="conversation_once_per_partner")]
        indexes = [models.Index(fields=["owner", "last_message"], name="conversation_latest")]

    def __str__(self) -> str:
        return f"conversation of {self.owner} with {self.partner}"
