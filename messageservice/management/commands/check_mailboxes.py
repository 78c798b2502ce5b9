"""Compares what is kept beside the messages with the messages themselves, while the service runs."""

import sys
import time
from collections.abc import Iterator

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db import OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from config.database.sql import execute
from messageservice import comparisons
from messageservice.comparisons import Comparison
from messageservice.models import Conversation, Mailbox

BATCH = 100  # users that are compared by one statement; a tenth of a second where each has some hundred messages
PATIENCE = 10  # seconds to try for the rows of one user, which a request holds for five at most
BACK = "\r\033[K"  # to the begin of an empty line
FOUND = "{}: {} is {}, should be {}"
REPAIRED = "{}: {} was {}, is {} now"


def id_ranges() -> Iterator[tuple[int, int, int]]:
    """The first and the last id of each batch of users, and how many they are."""
    last = 0
    while ids := list(User.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH]):
        last = ids[-1]
        yield ids[0], last, len(ids)


def discrepancies(compared: Comparison) -> list[tuple[str, int | str, int | str]]:
    """What differs, how it is kept, and how it should be."""
    row = f"conversation with {compared.partner}" if compared.partner else "mailbox"
    found = []
    if compared.misplaced:
        messages, first, place, right_place = compared.misplaced
        what = f"place of message {first}"
        if messages > 1:
            what += f", the first of {messages:,} out of place,"
        found.append((what, place, right_place))
    if not compared.right:
        found.append((row, "there", "absent"))
    elif compared.kept:
        for name, right in compared.right.items():
            if compared.kept[name] != right:
                what = f"{label(name)} in {row}" if compared.partner else label(name)
                found.append((what, compared.kept[name], right))
    elif any(compared.right.values()):
        figures = ", ".join(f"{label(name)} {right}" for name, right in compared.right.items())
        found.append((row, "absent", f"there with {figures}"))
    return found


def label(field: str) -> str:
    return "last message" if field == "last_message_id" else field


def report(compared: list[Comparison], line: str) -> list[str]:
    return [line.format(one.username, *difference) for one in compared for difference in discrepancies(one)]


def repaired(user: User) -> list[Comparison]:
    """Put right what is kept of the user, and return how it was found. Tries again while a request holds what it needs."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return repaired_at_once(user)
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable) or time.monotonic() > deadline:
                raise


@transaction.atomic
def repaired_at_once(user: User) -> list[Comparison]:
    had_mailbox = Mailbox.objects.filter(user=user).exists()
    Mailbox.objects.lock(user, user)
    if connection.vendor == "postgresql":
        # Who marks messages as read holds some of them without this lock, and may wait for others that are held here. This
        # transaction has to give in first: after a second PostgreSQL would end either.
        execute("SET LOCAL lock_timeout = 100")
    mailbox, *conversations = comparisons.compare(user.pk, user.pk)
    if mailbox.misplaced:
        comparisons.renumber(user)
    for one in conversations:
        if not one.right:
            Conversation.objects.filter(owner=user, partner=one.partner_id).delete()
    Conversation.objects.bulk_create(
        [Conversation(owner=user, partner_id=one.partner_id, **one.right) for one in conversations if one.right],
        batch_size=1000,
        update_conflicts=True,
        unique_fields=["owner", "partner"],
        update_fields=["sent", "received", "unread", "last_message"],
    )
    Mailbox.objects.filter(user=user).update(**mailbox.right)
    return [mailbox if had_mailbox else mailbox._replace(kept={}), *conversations]


def counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def outcome(differing: int, repair: bool) -> str:
    if not differing:
        return "all agree"
    if repair:
        return f"{counted(differing, 'user', 'users')} repaired"
    return f"{counted(differing, 'user differs', 'users differ')}; run again with --repair"


class Command(BaseCommand):
    help = (
        "Verifies for every user that the counters, places and conversations kept beside the messages agree with them, "
        "while the service runs. Prints a line for each that does not, and ends with status 1 then."
    )

    def add_arguments(self, parser):
        parser.add_argument("--repair", action="store_true", help="put right what differs, by what the messages say")

    def handle(self, *, repair, **options):
        users = User.objects.count()
        checked = messages = differing = 0
        for first, last, in_batch in id_ranges():
            compared = comparisons.compare(first, last)
            messages += sum(one.right["sent"] for one in compared if one.partner_id is None)
            users_of_batch = {one.user_id for one in compared if discrepancies(one)}
            differing += len(users_of_batch)
            if repair:
                for user in User.objects.filter(pk__in=users_of_batch).order_by("pk"):
                    self.say(report(repaired(user), REPAIRED))
            else:
                self.say(report(compared, FOUND))
            checked += in_batch
            self.show_progress(f"{checked:,} of {users:,} users")
        seen = f"{counted(checked, 'mailbox', 'mailboxes')}, {counted(messages, 'message', 'messages')}"
        self.say([f"{seen}: {outcome(differing, repair)}"])
        if differing and not repair:
            sys.exit(1)

    def say(self, lines: list[str]) -> None:
        self.show_progress("")
        for line in lines:
            self.stdout.write(line)

    def show_progress(self, text: str) -> None:
        """On standard error where that is a terminal, in place of what was shown before."""
        if self.stderr.isatty():
            self.stderr.write(f"{BACK}{text}", style_func=str, ending="")
            self.stderr.flush()
