"""Messages, and what is kept beside them so that no list ever counts or sorts a mailbox."""

from datetime import UTC, date, datetime, time
from typing import Self

from django.contrib.auth.models import User
from django.db import models
from django.db.models import Exists, Q
from django.db.models.functions import Greatest, Least
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
        ids = sorted({user.pk for user in users})
        # None where one is missing: it would be made, and so locked, after one with a higher key.
        all_or_none = self.filter(*(Exists(Mailbox.objects.filter(pk=pk)) for pk in ids))
        in_order = all_or_none.select_for_update().order_by("pk")
        locked = in_order.in_bulk(ids)
        if not locked:
            self.bulk_create([Mailbox(user_id=pk) for pk in ids], ignore_conflicts=True)
            locked = in_order.in_bulk(ids)
        return locked


class Mailbox(models.Model):
    """How many messages a user has, and how many they sent in the running window of LIMIT_SEND.

    Who locks it decides which message is the next one in it.
    """

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="+")
    total = models.PositiveBigIntegerField(default=0)
    sent = models.PositiveBigIntegerField(default=0)
    received = models.PositiveBigIntegerField(default=0)
    unread = models.PositiveBigIntegerField(default=0)
    window_sent = models.PositiveIntegerField(default=0)
    window_ends = models.DateTimeField(null=True, blank=True)

    objects = MailboxQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "mailboxes"

    def __str__(self) -> str:
        return f"mailbox of {self.user}"


FIRST_OF_PAIR = Least("sender_id", "receiver_id")
SECOND_OF_PAIR = Greatest("sender_id", "receiver_id")


class MessageQuerySet(models.QuerySet):
    def sent_by(self, user: User) -> Self:
        return self.filter(sender=user)

    def received_by(self, user: User) -> Self:
        return self.filter(receiver=user)

    def between(self, one: User, other: User) -> Self:
        """What either of the two sent the other."""
        return self.alias(first=FIRST_OF_PAIR, second=SECOND_OF_PAIR).filter(
            first=min(one.pk, other.pk), second=max(one.pk, other.pk)
        )

    def unread(self, wanted: bool = True) -> Self:
        """What its receiver has not marked as read; with False, what they have."""
        return self.filter(read__isnull=wanted)

    def involving(self, user: User) -> Self:
        """What the user sent or received; each message once, those to oneself as well."""
        return self.filter(Q(sender=user) | Q(receiver=user))

    def in_places(self, user: User, first: int, last: int) -> Self:
        """What holds the places from `first` to `last`, both included, in the user's mailbox."""
        places = (first, last)
        return self.filter(Q(sender=user, sender_place__range=places) | Q(receiver=user, receiver_place__range=places))

    def last_place(self, user: User, *, before: int) -> int:
        """The place, in the user's mailbox, of the newest message with an id below `before`; 0 where there is none."""
        sent = self.filter(sender=user, pk__lt=before).order_by("-pk").values_list("sender_place", flat=True).first()
        received = self.filter(receiver=user, pk__lt=before).order_by("-pk").values_list("receiver_place", flat=True).first()
        return max(sent or 0, received or 0)

    def on(self, day: date) -> Self:
        """What was sent between the two midnights of a day in UTC."""
        return self.filter(
            created__range=(datetime.combine(day, time.min, tzinfo=UTC), datetime.combine(day, time.max, tzinfo=UTC))
        )

    def older_than(self, pk: int, limit: int) -> Self:
        """The rows next older than an id, newest first."""
        return self.filter(pk__lt=pk).order_by("-pk")[:limit]

    def newer_than(self, pk: int, limit: int) -> Self:
        """The rows next newer than an id, oldest first."""
        return self.filter(pk__gt=pk).order_by("pk")[:limit]

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
            models.Index(FIRST_OF_PAIR, SECOND_OF_PAIR, "id", name="message_of_pair"),
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

    def unread(self, wanted: bool = True) -> Self:
        """Those with something unread for their owner; with False, those without."""
        return self.filter(unread__gt=0) if wanted else self.filter(unread=0)

    def latest_first(self) -> Self:
        return self.order_by("-last_message_id")


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

    @property
    def total(self) -> int:
        """How many messages there are, each counted once, those to oneself as well."""
        return self.sent if self.owner_id == self.partner_id else self.sent + self.received
