"""What one can do with messages."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from blocking.models import Block
from config.log import record_event
from config.refusals import KeyUsedBefore, LimitReached
from messageservice.models import Conversation, Mailbox, Message


def send_message(*, sender: User, receiver: User, content: str, idempotency_key: str | None = None) -> tuple[Message, bool]:
    """Store a message, unless one stands under the key already; the message, and whether it stood there.

    Raises KeyUsedBefore where the key stands for another message, PermissionDenied where the receiver blocks the sender,
    LimitReached where the sender has sent too much of late; nothing is stored then.

    Both mailboxes stay locked until the message is visible. So in each of them messages become visible in the order of their
    places and ids, of several with one key the second finds the first, and two who write to each other at once only wait for
    each other.
    """
    try:
        with transaction.atomic():
            mailboxes = Mailbox.objects.lock(sender, receiver)
            if idempotency_key is not None:
                under_key = Message.objects.sent_by(sender).filter(idempotency_key=idempotency_key)
                stored = under_key.select_related("sender", "receiver").first()
                if stored is not None:
                    if stored.receiver_id != receiver.pk or stored.content != content:
                        raise KeyUsedBefore
                    return stored, True
            if Block.objects.between(blocker=receiver, blocked=sender).exists():
                raise PermissionDenied("This user does not receive messages from you.")
            message = _store(mailboxes, sender=sender, receiver=receiver, content=content, idempotency_key=idempotency_key)
    except PermissionDenied:
        record_event("Blocked Message", who=sender.username, whom=receiver.username)
        raise
    record_event("Successful Message", who=sender.username, whom=receiver.username)
    return message, False


def _store(
    mailboxes: dict[int, Mailbox], *, sender: User, receiver: User, content: str, idempotency_key: str | None
) -> Message:
    now = timezone.now()
    to_oneself = sender == receiver
    _admit(mailboxes[sender.pk], now)
    message = Message.objects.create(
        sender=sender,
        receiver=receiver,
        content=content,
        created=now,
        read=now if to_oneself else None,
        idempotency_key=idempotency_key,
        sender_place=mailboxes[sender.pk].total + 1,
        receiver_place=mailboxes[receiver.pk].total + 1,
    )
    if to_oneself:
        _count(mailboxes, message, owner=sender, partner=sender, sent=1, received=1, unread=0)
    else:
        _count(mailboxes, message, owner=sender, partner=receiver, sent=1, received=0, unread=0)
        _count(mailboxes, message, owner=receiver, partner=sender, sent=0, received=1, unread=1)
    return message


def _admit(mailbox: Mailbox, now: datetime) -> None:
    """Count one more message of the mailbox's owner towards LIMIT_SEND; the mailbox is locked."""
    limit = settings.LIMIT_SEND
    if limit is None:
        return
    if mailbox.window_ends is None or mailbox.window_ends <= now:
        mailbox.window_sent, mailbox.window_ends = 0, now + timedelta(seconds=limit.seconds)
    if mailbox.window_sent >= limit.count:
        raise LimitReached(ends=mailbox.window_ends, now=now)
    mailbox.window_sent += 1


def _count(
    mailboxes: dict[int, Mailbox],
    message: Message,
    *,
    owner: User,
    partner: User,
    sent: int,
    received: int,
    unread: int,
) -> None:
    """Add the message to the owner's mailbox and to their conversation with the partner."""
    mailbox = mailboxes[owner.pk]
    mailbox.total += 1
    mailbox.sent += sent
    mailbox.received += received
    mailbox.unread += unread
    mailbox.save()
    counted = Conversation.objects.filter(owner=owner, partner=partner).update(
        sent=F("sent") + sent, received=F("received") + received, unread=F("unread") + unread, last_message=message
    )
    if not counted:
        Conversation.objects.create(
            owner=owner, partner=partner, sent=sent, received=received, unread=unread, last_message=message
        )


def mark_read(*, conversation: Conversation, up_to: int) -> Conversation:
    """Mark as read what the partner sent the owner, up to and with the message of that id; the conversation as it is then.

    Raises ValidationError where the id is of no message in the conversation. What is read stays so, with its first time.
    """
    reader, partner = conversation.owner, conversation.partner
    with transaction.atomic():
        mailbox = Mailbox.objects.lock(reader)[reader.pk]  # whoever sends to the reader locks it as well
        if not Message.objects.between(reader, partner).filter(pk=up_to).exists():
            raise ValidationError({"up_to": ["There is no such message in this conversation."]})
        unread = Message.objects.sent_by(partner).received_by(reader).unread().filter(pk__lte=up_to)
        marked = unread.update(read=timezone.now())
        mailbox.unread = F("unread") - marked
        mailbox.save(update_fields=["unread"])
        Conversation.objects.filter(pk=conversation.pk).update(unread=F("unread") - marked)
        conversation.refresh_from_db(fields=["unread"])
    if marked:
        record_event("Read Conversation", who=reader.username, whom=partner.username)
    return conversation
