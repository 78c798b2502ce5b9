from rest_framework import serializers

from accounts.serializers import UsernameField
from config.serializers import TextField
from messageservice.models import Message

LONGEST_CONTENT = 10_000  # characters


class MessageSerializer(serializers.ModelSerializer):
    sender = UsernameField(read_only=True)
    receiver = UsernameField()
    content = TextField(max_length=LONGEST_CONTENT)

    class Meta:
        model = Message
        fields = ["id", "sender", "receiver", "content", "created"]
        read_only_fields = ["created"]
