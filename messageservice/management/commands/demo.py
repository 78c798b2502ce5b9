import secrets
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import user_named
from blocking.actions import block_user
from messageservice.actions import mark_read, send_message
from messageservice.models import Conversation, Mailbox, Message

ALICE, BOB, CAROL = NAMES = "demo-alice", "demo-bob", "demo-carol"
MESSAGES = [  # hours ago, sender, receiver, content
    (75, ALICE, BOB, "Hello Bob, are you coming to the lake on Sunday?"),
    (74, BOB, ALICE, "Gladly! When?"),
    (73, ALICE, BOB, "At ten, by the boats.\nBring something to read 📖"),
    (50, CAROL, ALICE, "I found your umbrella."),
    (49, ALICE, CAROL, "Oh, thank you! Keep it till Friday?"),
    (27, BOB, CAROL, "Alice says you have her umbrella."),
    (25, ALICE, CAROL, "Buy umbrellas! Cheap umbrellas!"),
    (3, BOB, ALICE, "That was a fine day."),
    (2, BOB, ALICE, "Next week again?"),
]
THEY_EXIST = "There are demo users already."
HOURS_UNREAD = 24  # older messages are marked as read


class Command(BaseCommand):
    help = "Creates the users demo-alice, demo-bob and demo-carol, messages over some days, and a block, to try the service."

    @transaction.atomic
    def handle(self, **options):
        if any(user_named(name) for name in NAMES):
            raise CommandError(THEY_EXIST)
        password = secrets.token_urlsafe(max(12, settings.PASSWORD_MIN_LENGTH))
        try:
            users = {name: User.objects.create_user(name, password=password) for name in NAMES}
        except IntegrityError:  # another process has just created them
            raise CommandError(THEY_EXIST) from None
        for hours, sender, receiver, content in MESSAGES:
            message, _ = send_message(sender=users[sender], receiver=users[receiver], content=content)
            Message.objects.filter(pk=message.id).update(created=timezone.now() - timedelta(hours=hours))
            # LIMIT_SEND, however low, must not stop the next message.
            Mailbox.objects.filter(user=users[sender]).update(window_ends=None)
            if hours > HOURS_UNREAD:
                conversation = Conversation.objects.get(owner=users[receiver], partner=users[sender])
                mark_read(conversation=conversation, up_to=message.id)
        block_user(blocker=users[CAROL], blocked=users[ALICE])
        self.stdout.write(f"Created {', '.join(NAMES)}. Each has the password {password}\n{CAROL} blocks {ALICE}.")
