"""The effect of migrations on existing rows."""

from importlib import import_module
from unittest.mock import patch

from django.apps import apps
from django.db import connection

from config.testing.cases import ApiTestCase
from messageservice.models import Mailbox
from messageservice.testing import MessageAssertions, make_message

migration = import_module("messageservice.migrations.0004_count_conversations")


class CountConversationsTests(MessageAssertions, ApiTestCase):
    def test_counts_the_conversations_of_each_mailbox_in_batches(self):
        for sender, receiver in ((self.alice, self.bob), (self.bob, self.carol), (self.alice, self.alice)):
            make_message(sender, receiver)
        Mailbox.objects.update(conversations=0)

        with patch.object(migration, "BATCH", 2):
            migration.count_conversations(apps, connection.schema_editor())

        self.assert_counters_agree()
