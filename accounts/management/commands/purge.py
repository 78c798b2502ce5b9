from django.core.management.base import BaseCommand
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from accounts.authentication import AuthToken
from accounts.models import Tally

BATCH = 1000  # rows that are locked and deleted at a time; some tens of milliseconds


def delete_in_batches(rows: QuerySet) -> int:
    """Delete the rows and return how many; each batch is committed before the next begins.

    Walks along the primary key, so that no batch looks again at what the ones before it have passed. What a request holds is
    left for the next purge: who never waits for a row cannot deadlock with those who lock several.
    """
    deleted = 0
    last = ""
    while True:
        with transaction.atomic():
            free = rows.filter(pk__gt=last).order_by("pk").select_for_update(skip_locked=True)
            keys = list(free.values_list("pk", flat=True)[:BATCH])
            rows.filter(pk__in=keys).delete()
        if not keys:
            return deleted
        deleted += len(keys)
        last = keys[-1]


class Command(BaseCommand):
    help = "Deletes what has no effect any more: expired tokens, and limit records whose window is over."

    def handle(self, **options):
        now = timezone.now()
        tokens = delete_in_batches(AuthToken.objects.filter(expiry__lte=now))
        tallies = delete_in_batches(Tally.objects.filter(ends__lte=now))
        self.stdout.write(f"Deleted: expired tokens {tokens}, limit records {tallies}")
