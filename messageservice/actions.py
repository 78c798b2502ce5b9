"""Sending messages, marking them as read, and deleting an account without its messages."""

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from accounts.actions import WRONG_CURRENT, anonymize_account, verify_password
from accounts.limits import is_window_running
from accounts.models import require_user
from blocking.models import Block
from config.api.exceptions import KeyUsedBefore, LimitReached
from config.log import current_request, record_event
from messageservice.listings import MessageListing, MessageRow
from messageservice.models import Conversation, Mailbox, Message
from messageservice.sending import LockedMailbox, lock_or_create, store_message


def send_message(
    *, sender: User, receiver: User, content: str, idempotency_key: str | None = None
) -> tuple[MessageRow, bool]:
    """Store a message, or return the one already stored under this idempotency key. Returns (message, replayed).

    Stores nothing and raises KeyUsedBefore if the key belongs to another message, PermissionDenied if the receiver blocks
    the sender, LimitReached beyond LIMIT_SEND, and ValidationError if the receiver or the sender is deactivated or deleted.

    Both mailboxes stay locked until the message is visible. Therefore messages become visible in the order of their places
    and ids, a second request with the same key finds the first one's message, and two users who send to each other wait but
    do not deadlock.
    """
    try:
        with transaction.atomic():
            sender_mailbox, receiver_mailbox = lock_or_create(sender, receiver)
            if idempotency_key is not None:
                message = MessageListing.sent_by(sender).with_key(idempotency_key)
                if message is not None:
                    if message.receiver != receiver.username or message.content != content:
                        raise KeyUsedBefore
                    return message, True
            if receiver_mailbox.blocks_sender:
                raise PermissionDenied("This user does not receive messages from you.")
            created = timezone.now()
            sender_mailbox = _next_send_window(sender_mailbox, created)
            message_id = store_message(
                sender_mailbox, receiver_mailbox, content=content, created=created, idempotency_key=idempotency_key
            )
            if message_id is None:
                require_user(receiver, "receiver")
                if User.objects.filter(pk=receiver.pk, is_active=True).exists():
                    raise ValidationError("Your account is deactivated.")
                raise ValidationError({"receiver": ["This user's account is deactivated."]})
    except PermissionDenied:
        record_event("Blocked Message", who=sender.username, whom=receiver.username)
        raise
    except IntegrityError:
        require_user(receiver, "receiver")
        raise
    record_event("Successful Message", who=sender.username, whom=receiver.username)
    read = created if sender == receiver else None
    return MessageRow(message_id, sender.username, receiver.username, content, created, read), False


def reject_used_key(sender: User, idempotency_key: str | None) -> None:
    """Raise KeyUsedBefore if the sender has already used the key, for a request whose receiver does not exist now."""
    if idempotency_key is not None and MessageListing.sent_by(sender).with_key(idempotency_key):
        raise KeyUsedBefore


def erase_account(user: User) -> bool:
    """Delete an account for good; its messages stay in the mailboxes of other users, under a reserved name.

    Returns False and changes nothing if it is already deleted, or its password has changed since `user` was read.

    This action is part of this app, not of accounts, because it locks the user's mailbox before the user's row, as a send
    does: the other order could deadlock. A send that waits for the mailbox then finds the account inactive.
    """
    with transaction.atomic():
        lock_or_create(user, user)
        erased = anonymize_account(user)
        if erased:
            Block.objects.involving(user).delete()
        else:
            transaction.set_rollback(True)  # if the user's row is gone, do not keep the mailbox just created for it
    return erased


def delete_account(*, user: User, current_password: str) -> None:
    """Erase the account on behalf of its user. Raises ValidationError for a wrong password, LimitReached after too many."""
    if not (verify_password(user, current_password) and erase_account(user)):
        raise ValidationError({"current_password": [WRONG_CURRENT]})
    record_event("Delete Account", who=user.username)


def erase_for_operator(user: User) -> bool:
    """Erase the account on behalf of an operator. Returns what `erase_account` returns."""
    erased = erase_account(user)
    if erased:
        record_event("Delete Account", who=current_request().user, whom=user.username)
    return erased


def _next_send_window(mailbox: LockedMailbox, now: datetime) -> LockedMailbox:
    """Return the sender's mailbox with one more message in its window of LIMIT_SEND. Raises LimitReached."""
    limit = settings.LIMIT_SEND
    if limit is None:
        return mailbox
    if mailbox.window_ends is None or not is_window_running(mailbox.window_ends, limit, now):
        return mailbox._replace(window_sent=1, window_ends=now + timedelta(seconds=limit.seconds))
    if mailbox.window_sent >= limit.count:
        raise LimitReached(ends=mailbox.window_ends, now=now)
    return mailbox._replace(window_sent=mailbox.window_sent + 1)


def mark_read(*, conversation: Conversation, up_to: int) -> Conversation:
    """Mark the messages of the partner to the owner as read, up to and including the message with the id `up_to`.

    Returns the conversation with its new `unread`. Raises ValidationError if the conversation has no such message. A message
    that was read before keeps its time.
    """
    reader, partner = conversation.owner, conversation.partner
    with transaction.atomic():
        # Makes sends, other requests that mark, and repairs wait: neither messages nor counters must change in between.
        lock_or_create(reader, partner)
        if not Message.objects.between(reader, partner).filter(pk=up_to).exists():
            raise ValidationError({"up_to": ["There is no such message in this conversation."]})
        unread = Message.objects.sent_by(partner).received_by(reader).unread().filter(pk__lte=up_to)
        marked = unread.update(read=timezone.now())
        Mailbox.objects.filter(user=reader).update(unread=F("unread") - marked)
        conversations = Conversation.objects.filter(owner=reader, partner=partner)
        conversations.update(unread=F("unread") - marked)
        conversation.unread = conversations.values_list("unread", flat=True).get()
    if marked:
        record_event("Read Conversation", who=reader.username, whom=partner.username)
    return conversation
