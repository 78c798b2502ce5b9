from rest_framework import serializers

from accounts.serializers import UsernameField
from config.schema import examples
from config.serializers import TextField, WholeNumberField
from messageservice.models import Conversation, Message

LONGEST_CONTENT = 10_000  # characters


MESSAGE_EXAMPLE = {
    "id": 1,
    "sender": "alice",
    "receiver": "bob",
    "content": "Hello, bob 👋",
    "created": "2026-11-23T22:59:28.310552Z",
    "read": None,
}


@examples(request={"receiver": "bob", "content": "Hello, bob 👋"}, response=MESSAGE_EXAMPLE)
class MessageSerializer(serializers.ModelSerializer):
    sender = UsernameField(read_only=True)
    receiver = UsernameField()
    content = TextField(max_length=LONGEST_CONTENT)

    class Meta:
        model = Message
        fields = ["id", "sender", "receiver", "content", "created", "read"]
        read_only_fields = ["created", "read"]


@examples(response={"user": "bob", "last_message": MESSAGE_EXAMPLE, "unread": 0})
class ConversationSerializer(serializers.ModelSerializer):
    user = UsernameField(source="partner", read_only=True)
    last_message = MessageSerializer(read_only=True)

    class Meta:
        model = Conversation
        fields = ["user", "last_message", "unread"]
        read_only_fields = ["unread"]


@examples(request={"up_to": 1}, response={"user": "bob", "unread": 0})
class ReadSerializer(serializers.Serializer):
    """Up to which message a conversation is read, and what is left in it."""

    user = UsernameField(source="partner", read_only=True)
    up_to = WholeNumberField(min_value=1, max_value=2**63 - 1, write_only=True)
    unread = serializers.IntegerField(read_only=True)
