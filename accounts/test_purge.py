from datetime import timedelta
from functools import partial
from io import StringIO
from unittest.mock import patch

from django.core.management import call_command
from django.db import transaction
from django.test import override_settings, skipUnlessDBFeature
from django.utils import timezone

from accounts.authentication import AuthToken, issue_token
from accounts.management.commands import purge
from accounts.models import Tally
from config.environment import Limit
from config.testing.cases import ApiTestCase, ConcurrentTestCase


class PurgeMixin:
    def setUp(self):
        super().setUp()
        self.now = timezone.now()

    def purge(self):
        out = StringIO()
        call_command("purge", stdout=out)
        return out.getvalue()


class PurgeTests(PurgeMixin, ApiTestCase):
    def make_token(self, expiry):
        token, _ = issue_token(self.alice)
        AuthToken.objects.filter(pk=token.pk).update(expiry=expiry)
        return token

    def test_deletes_expired_tokens(self):
        self.make_token(self.now - timedelta(seconds=1))
        live = [self.make_token(self.now + timedelta(minutes=1)), self.make_token(None)]

        out = self.purge()

        self.assertCountEqual(AuthToken.objects.all(), live)
        self.assertEqual(out, "Deleted: expired tokens 1, limit records 0\n")

    def test_deletes_tallies_whose_window_is_over(self):
        Tally.objects.create(key="over", count=3, ends=self.now - timedelta(seconds=1))
        running = Tally.objects.create(key="running", count=3, ends=self.now + timedelta(minutes=1))

        out = self.purge()

        self.assertEqual(Tally.objects.get(), running)
        self.assertEqual(out, "Deleted: expired tokens 0, limit records 1\n")

    def test_deletes_tallies_that_end_later_than_any_window(self):
        """A wrong clock or an earlier, longer limit has stored them."""
        long = Limit(count=3, seconds=30 * 86_400)
        valid = Tally.objects.create(key="running", count=3, ends=self.now + timedelta(days=30))
        Tally.objects.create(key="far away", count=3, ends=self.now + timedelta(days=31))

        with override_settings(LIMIT_PASSWORD=long):
            self.purge()
            self.assertEqual(Tally.objects.get(), valid)
        self.purge()
        self.assertFalse(Tally.objects.exists())

    def test_deletes_all_batches(self):
        Tally.objects.bulk_create(Tally(key=str(number), count=1, ends=self.now) for number in range(5))

        with patch.object(purge, "BATCH", 2):
            out = self.purge()

        self.assertFalse(Tally.objects.exists())
        self.assertEqual(out, "Deleted: expired tokens 0, limit records 5\n")

    def test_keeps_a_failure_counted_at_the_same_moment(self):
        client = self.as_user(self.alice)
        change = partial(client.post, "/api/auth/password", {"current_password": "wrong", "new_password": "a new secret"})
        change()
        Tally.objects.update(ends=self.now)
        create, purges = Tally.objects.bulk_create, iter([self.purge])

        def create_then_purge(*arguments, **options):
            create(*arguments, **options)
            for purge_once in purges:
                purge_once()

        with patch.object(Tally.objects, "bulk_create", create_then_purge):
            self.assertEqual(change().status_code, 400)

        self.assertEqual(Tally.objects.get().count, 1)

    def test_a_second_run_deletes_nothing(self):
        self.make_token(self.now - timedelta(seconds=1))
        self.purge()

        self.assertEqual(self.purge(), "Deleted: expired tokens 0, limit records 0\n")


class ParallelPurgeTests(PurgeMixin, ConcurrentTestCase):
    @skipUnlessDBFeature("has_select_for_update_skip_locked")
    def test_skips_rows_that_another_transaction_has_locked(self):
        Tally.objects.bulk_create(Tally(key=key, count=1, ends=self.now) for key in ("unlocked", "locked"))

        with transaction.atomic():
            Tally.objects.select_for_update().get(key="locked")
            [out] = self.in_parallel(self.purge)

        self.assertEqual(Tally.objects.get().key, "locked")
        self.assertEqual(out, "Deleted: expired tokens 0, limit records 1\n")
