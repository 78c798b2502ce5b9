import secrets
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from blocking.actions import block_user
from messageservice.actions import mark_read, send_message
from messageservice.models import Conversation, Mailbox, Message, MessageRow

# Names that nobody who tries the service out is likely to have registered.
ALICE, BOB, CAROL = NAMES = "demo-alice", "demo-bob", "demo-carol"

MESSAGES = [  # hours ago, sender, receiver, content
    (75, ALICE, BOB, "Hello Bob, are you coming to the lake on Sunday?"),
    (74, BOB, ALICE, "Gladly! When?"),
    (73, ALICE, BOB, "At ten, by the boats.\nBring something to read 📖"),
    (50, CAROL, ALICE, "I found your umbrella."),
    (49, ALICE, CAROL, "Oh, thank you! Keep it till Friday?"),
    (27, BOB, CAROL, "Alice says you have her umbrella."),
    (26, CAROL, BOB, "So I do."),
    (25, ALICE, CAROL, "Buy umbrellas! Cheap umbrellas!"),
    (3, BOB, ALICE, "That was a fine day."),
    (2, BOB, ALICE, "Next week again?"),
]

HOURS_UNREAD = 24  # what is older has been read

NEXT = """\
Users      {alice}, {bob}, {carol}, each with this password: {password}
Messages   some, over the last days; {carol} blocks {alice}

Log in as {alice}, then see whom she wrote with, what bob wrote, write to him, and be refused by carol:

TOKEN=$(curl -sS -d '{{"username": "{alice}", "password": "{password}"}}' {api}/auth/login \\
    | sed 's/.*"token":"\\([^"]*\\).*/\\1/')
curl -sS -H "Authorization: Token $TOKEN" {api}/conversation
curl -sS -H "Authorization: Token $TOKEN" "{api}/message/received?sender={bob}&unread=true"
curl -sS -H "Authorization: Token $TOKEN" -d '{{"receiver": "{bob}", "content": "With pleasure!"}}' {api}/message
curl -sS -H "Authorization: Token $TOKEN" -d '{{"receiver": "{carol}", "content": "Umbrellas!"}}' {api}/message"""


def api_url() -> str:
    """Where the service answers a client on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.HOST, settings.HOST)  # noqa: S104 - not an address to call
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}/api"


def send_in_the_past(sender: User, receiver: User, content: str, created: datetime) -> MessageRow:
    message, _ = send_message(sender=sender, receiver=receiver, content=content)
    Message.objects.filter(pk=message.id).update(created=created)
    # The window of LIMIT_SEND that it counted towards is over as well: the limit, however low, never stops the next one.
    Mailbox.objects.filter(user=sender).update(window_sent=0, window_ends=None)
    return message


def fill(alice: User, bob: User, carol: User) -> None:
    users = {user.username: user for user in (alice, bob, carol)}
    now = timezone.now()
    for hours, sender, receiver, content in MESSAGES:
        message = send_in_the_past(users[sender], users[receiver], content, now - timedelta(hours=hours))
        if hours >= HOURS_UNREAD:
            mark_read(conversation=Conversation.objects.between(users[receiver], users[sender]), up_to=message.id)
    block_user(blocker=carol, blocked=alice)


class Command(BaseCommand):
    help = (
        "Makes three users, some messages over the last days and a block to try the service with, and prints how to go on. "
        "Run again, it adds nothing but gives the three a new password."
    )

    def add_arguments(self, parser):
        parser.add_argument(
            "--beside-other-users", action="store_true", help="also where there are users who are not the demo's"
        )

    def handle(self, *, beside_other_users, **options):
        if not beside_other_users and User.objects.exclude(username__in=NAMES).exists():
            raise CommandError("There are other users here. To add the demo's beside them: --beside-other-users")
        password = secrets.token_urlsafe(max(12, settings.PASSWORD_MIN_LENGTH))
        with transaction.atomic():
            users = [User.objects.get_or_create(username=name)[0] for name in NAMES]
            for user in users:
                user.set_password(password)
                user.is_active = True  # whatever was tried out in the admin
                user.save()
            if not any(Mailbox.objects.of(user).total for user in users):
                fill(*users)
        self.stdout.write(NEXT.format(alice=ALICE, bob=BOB, carol=CAROL, password=password, api=api_url()))
