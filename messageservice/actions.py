"""What one can do with messages."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from accounts.models import require_user
from config.api.exceptions import KeyUsedBefore, LimitReached
from config.log import record_event
from messageservice.listings import MessageListing
from messageservice.models import Conversation, LockedMailbox, Mailbox, Message, MessageRow


def send_message(
    *, sender: User, receiver: User, content: str, idempotency_key: str | None = None
) -> tuple[MessageRow, bool]:
    """Store a message, unless one stands under the key already; the message, and whether it stood there.

    Raises KeyUsedBefore where the key stands for another message, PermissionDenied where the receiver blocks the sender,
    LimitReached where the sender has sent too much of late, ValidationError where the receiver was deleted meanwhile;
    nothing is stored then.

    Both mailboxes stay locked until the message is visible. So in each of them messages become visible in the order of their
    places and ids, of several with one key the second finds the first, and two who write to each other at once only wait for
    each other.
    """
    try:
        with transaction.atomic():
            mailboxes = Mailbox.objects.lock(sender, receiver)
            if idempotency_key is not None:
                stored = MessageListing.sent_by(sender).under_key(idempotency_key)
                if stored is not None:
                    if stored.receiver != receiver.username or stored.content != content:
                        raise KeyUsedBefore
                    return stored, True
            if mailboxes[receiver.pk].blocks_sender:
                raise PermissionDenied("This user does not receive messages from you.")
            now = timezone.now()
            window_sent, window_ends = _admit(mailboxes[sender.pk], now)
            message = Message.objects.store(
                sender=sender,
                receiver=receiver,
                content=content,
                created=now,
                idempotency_key=idempotency_key,
                mailboxes=mailboxes,
                window_sent=window_sent,
                window_ends=window_ends,
            )
    except PermissionDenied:
        record_event("Blocked Message", who=sender.username, whom=receiver.username)
        raise
    except IntegrityError:
        require_user(receiver, "receiver")
        raise
    record_event("Successful Message", who=sender.username, whom=receiver.username)
    return message, False


def _admit(mailbox: LockedMailbox, now: datetime) -> tuple[int, datetime | None]:
    """How many messages the mailbox's owner has sent in the window of LIMIT_SEND with the next one, and when it ends."""
    limit = settings.LIMIT_SEND
    if limit is None:
        return mailbox.window_sent, mailbox.window_ends
    if mailbox.window_ends is None or mailbox.window_ends <= now:
        return 1, now + timedelta(seconds=limit.seconds)
    if mailbox.window_sent >= limit.count:
        raise LimitReached(ends=mailbox.window_ends, now=now)
    return mailbox.window_sent + 1, mailbox.window_ends


def mark_read(*, conversation: Conversation, up_to: int) -> Conversation:
    """Mark as read what the partner sent the owner, up to and with the message of that id; the conversation as it is then.

    Raises ValidationError where the id is of no message in the conversation. What is read stays so, with its first time.
    """
    reader, partner = conversation.owner, conversation.partner
    with transaction.atomic():
        Mailbox.objects.lock(reader, reader)  # whoever sends to the reader locks it as well
        if not Message.objects.between(reader, partner).filter(pk=up_to).exists():
            raise ValidationError({"up_to": ["There is no such message in this conversation."]})
        unread = Message.objects.sent_by(partner).received_by(reader).unread().filter(pk__lte=up_to)
        marked = unread.update(read=timezone.now())
        Mailbox.objects.filter(user=reader).update(unread=F("unread") - marked)
        Conversation.objects.filter(pk=conversation.pk).update(unread=F("unread") - marked)
        conversation.refresh_from_db(fields=["unread"])
    if marked:
        record_event("Read Conversation", who=reader.username, whom=partner.username)
    return conversation
