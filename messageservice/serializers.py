from typing import Any

from rest_framework import serializers

from accounts.serializers import UsernameField
from config.api.fields import TextField, WholeNumberField, shown_time
from config.api.schema import examples
from messageservice.models import MessageRow

LONGEST_CONTENT = 10_000  # characters


MESSAGE_EXAMPLE = {
    "id": 1,
    "sender": "alice",
    "receiver": "bob",
    "content": "Hello, bob 👋",
    "created": "2026-11-23T22:59:28.310552Z",
    "read": None,
}


def shown_message(row: MessageRow) -> dict[str, Any]:
    """What the fields of MessageSerializer would show, in a tenth of their time."""
    return {
        "id": row.id,
        "sender": row.sender,
        "receiver": row.receiver,
        "content": row.content,
        "created": shown_time(row.created),
        "read": row.read and shown_time(row.read),
    }


@examples(request={"receiver": "bob", "content": "Hello, bob 👋"})
class SendSerializer(serializers.Serializer):
    receiver = UsernameField()
    content = TextField(max_length=LONGEST_CONTENT)


@examples(response=MESSAGE_EXAMPLE)
class MessageSerializer(serializers.Serializer):  # shows a MessageRow
    id = serializers.IntegerField()
    sender = UsernameField()
    receiver = UsernameField()
    content = serializers.CharField()
    created = serializers.DateTimeField()
    read = serializers.DateTimeField(allow_null=True)

    def to_representation(self, row):
        return shown_message(row)


@examples(response={"user": "bob", "last_message": MESSAGE_EXAMPLE, "unread": 0})
class ConversationSerializer(serializers.Serializer):  # shows a ConversationRow
    user = UsernameField()
    last_message = MessageSerializer()
    unread = serializers.IntegerField()

    def to_representation(self, row):
        return {
            "user": row.user,
            "last_message": shown_message(row.last_message),
            "unread": row.unread,
        }


@examples(request={"up_to": 1}, response={"user": "bob", "unread": 0})
class ReadSerializer(serializers.Serializer):
    """Up to which message a conversation is read, and what is left in it."""

    user = UsernameField(source="partner", read_only=True)
    up_to = WholeNumberField(min_value=1, max_value=2**63 - 1, write_only=True)
    unread = serializers.IntegerField(read_only=True)
