import re
from datetime import datetime

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from accounts.serializers import UsernameField
from config.api.fields import TextField
from config.api.schema import examples
from messageservice.models import LARGEST_ID

LONGEST_CONTENT = 10_000  # characters
UNREAD = "The number of messages from the other user that you have not marked as read"

MESSAGE_EXAMPLE = {
    "id": 1,
    "sender": "bob",
    "receiver": "alice",
    "content": "Hello 👋",
    "created": "2026-11-23T22:59:28.310552Z",
    "read": None,
}


def format_time(time: datetime) -> str:
    """Return a time in UTC, naive or aware, in the format of the API."""
    return f"{time.isoformat(timespec='microseconds')[:26]}Z"


@extend_schema_field(OpenApiTypes.INT64)
class WholeNumberField(serializers.IntegerField):
    """A JSON integer, or its digits in a form. DRF's own field also accepts `5.0`, `" 5"` and `"1_0"`.

    The schema gives it 64 bits: without a format, generated clients in Java or C# have 32.
    """

    def to_internal_value(self, data):
        if not isinstance(data, int | str) or not re.fullmatch("-?[0-9]+", str(data)):
            self.fail("invalid")
        return super().to_internal_value(data)


@examples(request={"receiver": "alice", "content": "Hello 👋"})
class SendSerializer(serializers.Serializer):
    """A message to send."""

    receiver = UsernameField(help_text="The username of the receiver, in any letter case. It may be your own")
    content = TextField(max_length=LONGEST_CONTENT, help_text="The text of the message, kept to the letter")


@examples(response=MESSAGE_EXAMPLE)
class MessageSerializer(serializers.Serializer):
    """A message that the user sent or received."""

    id = WholeNumberField(help_text="Grows with each message: a newer message has a larger id")
    sender = serializers.CharField(help_text="The username of the sender")
    receiver = serializers.CharField(help_text="The username of the receiver")
    content = serializers.CharField(help_text="The text of the message, as it was sent")
    created = serializers.DateTimeField(help_text="When the message was stored")
    read = serializers.DateTimeField(
        allow_null=True, help_text="When the receiver marked it as read, or null if they have not"
    )

    def to_representation(self, row):
        """Return the same as the fields would, in much less time."""
        return {
            "id": row.id,
            "sender": row.sender,
            "receiver": row.receiver,
            "content": row.content,
            "created": format_time(row.created),
            "read": None if row.read is None else format_time(row.read),
        }


@examples(response={"user": "bob", "last_message": MESSAGE_EXAMPLE, "unread": 1})
class ConversationSerializer(serializers.Serializer):
    """All messages between the user and one other user."""

    user = serializers.CharField(help_text="The username of the other user")
    last_message = MessageSerializer(help_text="The latest message of the conversation")
    unread = WholeNumberField(help_text=UNREAD)


@examples(request={"up_to": 1}, response={"user": "bob", "unread": 0})
class ReadSerializer(serializers.Serializer):
    """How far a conversation is read."""

    user = UsernameField(source="partner", read_only=True, help_text="The username of the other user")
    up_to = WholeNumberField(
        min_value=1,
        max_value=LARGEST_ID,
        write_only=True,
        help_text="The id of the last message of the conversation to mark",
    )
    unread = WholeNumberField(read_only=True, help_text=UNREAD)
