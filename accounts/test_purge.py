from datetime import timedelta
from io import StringIO
from unittest.mock import patch

from django.core.management import call_command
from django.utils import timezone

from accounts.authentication import AuthToken, issue_token
from accounts.limits import Counter, Tries
from accounts.management.commands import purge
from accounts.models import Tally
from config.environment import Limit
from config.testing.cases import ApiTestCase


class PurgeTests(ApiTestCase):
    def setUp(self):
        super().setUp()
        self.now = timezone.now()

    def purge(self):
        out = StringIO()
        call_command("purge", stdout=out)
        return out.getvalue()

    def make_token(self, expiry):
        token, _ = issue_token(self.alice)
        AuthToken.objects.filter(pk=token.pk).update(expiry=expiry)
        return token

    def test_deletes_expired_tokens(self):
        self.make_token(self.now - timedelta(seconds=1))
        lives = [self.make_token(self.now + timedelta(minutes=1)), self.make_token(None)]

        out = self.purge()

        self.assertCountEqual(AuthToken.objects.all(), lives)
        self.assertEqual(out, "Deleted: expired tokens 1, limit records 0\n")

    def test_deletes_tallies_whose_window_is_over(self):
        Tally.objects.create(key="over", count=3, ends=self.now - timedelta(seconds=1))
        running = Tally.objects.create(key="running", count=3, ends=self.now + timedelta(minutes=1))

        out = self.purge()

        self.assertEqual(Tally.objects.get(), running)
        self.assertEqual(out, "Deleted: expired tokens 0, limit records 1\n")

    def test_goes_on_until_all_batches_are_deleted(self):
        Tally.objects.bulk_create(Tally(key=str(number), count=1, ends=self.now) for number in range(5))

        with patch.object(purge, "BATCH", 2):
            out = self.purge()

        self.assertFalse(Tally.objects.exists())
        self.assertEqual(out, "Deleted: expired tokens 0, limit records 5\n")

    def test_a_failure_counts_whose_tally_is_purged_meanwhile(self):
        Tally.objects.create(key="over", count=3, ends=self.now - timedelta(seconds=1))
        make, purge_then = Tally.objects.bulk_create, iter([self.purge])

        def make_then_purge(*arguments, **options):
            make(*arguments, **options)
            for purge_once in purge_then:
                purge_once()

        with patch.object(Tally.objects, "bulk_create", make_then_purge):
            Tries(Counter(Limit(10, 60), "over")).count()

        self.assertEqual(Tally.objects.get().count, 1)

    def test_leaves_nothing_for_a_second_run(self):
        self.make_token(self.now - timedelta(seconds=1))
        self.purge()

        self.assertEqual(self.purge(), "Deleted: expired tokens 0, limit records 0\n")
