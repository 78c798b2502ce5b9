from django.core.management.base import BaseCommand
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.authentication import AuthToken
from accounts.limits import longest_window
from accounts.models import Tally

BATCH = 1000  # rows that one transaction locks and deletes, in some tens of milliseconds


def delete_in_batches(rows: QuerySet) -> int:
    """Delete the rows and return how many; each batch is committed before the next begins.

    Rows that a request has locked stay until the next purge: a command that never waits for a row cannot deadlock.
    """
    deleted = 0
    while True:
        with transaction.atomic():
            unlocked = rows.select_for_update(skip_locked=True).values_list("pk", flat=True)
            count, _ = rows.filter(pk__in=list(unlocked[:BATCH])).delete()
        if not count:
            return deleted
        deleted += count


class Command(BaseCommand):
    help = "Deletes expired tokens, and limit records whose window is over."

    def handle(self, **options):
        now = timezone.now()
        tokens = delete_in_batches(AuthToken.objects.filter(expiry__lte=now))
        is_over = Q(ends__lte=now) | Q(ends__gt=now + longest_window())  # stored by a wrong clock
        tallies = delete_in_batches(Tally.objects.filter(is_over))
        self.stdout.write(f"Deleted: expired tokens {tokens}, limit records {tallies}")
