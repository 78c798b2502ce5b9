"""A hand-written `to_representation` must return what the fields of the serializer, and so the schema, describe."""

from datetime import UTC, datetime
from typing import NamedTuple

from django.contrib.auth.models import User
from django.test import SimpleTestCase
from rest_framework.serializers import Serializer

import accounts.serializers
import blocking.serializers
import messageservice.serializers
from messageservice.listings import MessageRow

WHOLE_SECOND, TIME = datetime(2020, 1, 5, tzinfo=UTC), datetime(2020, 1, 5, 1, 2, 3, 4, tzinfo=UTC)


class NewSession(NamedTuple):
    user: User
    token: str
    expiry: datetime


SAMPLES = {
    accounts.serializers.SessionSerializer: [
        NewSession(User(username="alice", email="alice@example.com"), "8f5c", TIME),
        NewSession(User(username="bob", email=""), "41d0", WHOLE_SECOND),
    ],
    messageservice.serializers.MessageSerializer: [
        MessageRow(1, "alice", "bob", " hi\n", TIME, None),
        MessageRow(2**63 - 1, "bob", "bob", "👋", WHOLE_SECOND, WHOLE_SECOND),
    ],
}


class RepresentationTests(SimpleTestCase):
    def test_hand_written_representations_agree_with_the_fields(self):
        modules = (accounts.serializers, blocking.serializers, messageservice.serializers)
        classes = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
        hand_written = {cls for cls in classes if issubclass(cls, Serializer) and "to_representation" in vars(cls)}

        self.assertLessEqual(hand_written, SAMPLES.keys())
        for cls, samples in SAMPLES.items():
            for sample in samples:
                with self.subTest(serializer=cls.__name__, sample=sample):
                    by_hand, by_fields = cls().to_representation(sample), Serializer.to_representation(cls(), sample)

                    self.assertEqual(list(by_hand.items()), list(by_fields.items()))
