"""What one can do with messages."""

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from blocking.models import Block
from config.log import record_event
from messageservice.models import Conversation, Mailbox, Message


def send_message(*, sender: User, receiver: User, content: str) -> Message:
    """Store a message; raises PermissionDenied, and stores nothing, where the receiver blocks the sender.

    Both mailboxes stay locked until the message is visible: in each of them messages become visible in the order of their
    places and ids, and two who write to each other at once only wait for each other.
    """
    with transaction.atomic():
        mailboxes = Mailbox.objects.lock(sender, receiver)
        blocked = Block.objects.between(blocker=receiver, blocked=sender).exists()
        if not blocked:
            message = _store(mailboxes, sender=sender, receiver=receiver, content=content)
    if blocked:
        record_event("Blocked Message", who=sender.username, whom=receiver.username)
        raise PermissionDenied("This user does not receive messages from you.")
    record_event("Successful Message", who=sender.username, whom=receiver.username)
    return message


def _store(mailboxes: dict[int, Mailbox], *, sender: User, receiver: User, content: str) -> Message:
    now = timezone.now()
    to_oneself = sender == receiver
    message = Message.objects.create(
        sender=sender,
        receiver=receiver,
        content=content,
        created=now,
        read=now if to_oneself else None,
        sender_place=mailboxes[sender.pk].total + 1,
        receiver_place=mailboxes[receiver.pk].total + 1,
    )
    if to_oneself:
        _count(message, owner=sender, partner=sender, sent=1, received=1, unread=0)
    else:
        _count(message, owner=sender, partner=receiver, sent=1, received=0, unread=0)
        _count(message, owner=receiver, partner=sender, sent=0, received=1, unread=1)
    return message


def _count(message: Message, *, owner: User, partner: User, sent: int, received: int, unread: int) -> None:
    """Add the message to the owner's mailbox, which is locked, and to their conversation with the partner."""
    Mailbox.objects.filter(user=owner).update(total=F("total") + 1, sent=F("sent") + sent, received=F("received") + received)
    counted = Conversation.objects.filter(owner=owner, partner=partner).update(
        sent=F("sent") + sent, received=F("received") + received, unread=F("unread") + unread, last_message=message
    )
    if not counted:
        Conversation.objects.create(
            owner=owner, partner=partner, sent=sent, received=received, unread=unread, last_message=message
        )
