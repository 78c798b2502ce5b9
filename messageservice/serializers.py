from rest_framework import serializers

from accounts.serializers import UsernameField
from config.api.fields import TextField, WholeNumberField, shown_time
from config.api.schema import examples
from config.database.sql import LARGEST_ID

LONGEST_CONTENT = 10_000  # characters

MESSAGE_EXAMPLE = {
    "id": 1,
    "sender": "alice",
    "receiver": "bob",
    "content": "Hello, bob 👋",
    "created": "2026-11-23T22:59:28.310552Z",
    "read": None,
}


@examples(request={"receiver": "bob", "content": "Hello, bob 👋"})
class SendSerializer(serializers.Serializer):
    receiver = UsernameField()
    content = TextField(max_length=LONGEST_CONTENT)


@examples(response=MESSAGE_EXAMPLE)
class MessageSerializer(serializers.Serializer):
    """Shows a MessageRow."""

    id = serializers.IntegerField()
    sender = serializers.CharField()
    receiver = serializers.CharField()
    content = serializers.CharField()
    created = serializers.DateTimeField()
    read = serializers.DateTimeField(allow_null=True)

    def to_representation(self, row):
        """The same as the fields, which would take a quarter of the time of a whole page."""
        return {
            "id": row.id,
            "sender": row.sender,
            "receiver": row.receiver,
            "content": row.content,
            "created": shown_time(row.created),
            "read": None if row.read is None else shown_time(row.read),
        }


@examples(response={"user": "bob", "last_message": MESSAGE_EXAMPLE, "unread": 0})
class ConversationSerializer(serializers.Serializer):
    """Shows a ConversationRow."""

    user = serializers.CharField()
    last_message = MessageSerializer()
    unread = serializers.IntegerField()


@examples(request={"up_to": 1}, response={"user": "bob", "unread": 0})
class ReadSerializer(serializers.Serializer):
    """Takes the id of the last message that was read; shows how many messages of the conversation are still unread."""

    user = UsernameField(source="partner", read_only=True)
    up_to = WholeNumberField(min_value=1, max_value=LARGEST_ID, write_only=True)
    unread = serializers.IntegerField(read_only=True)
