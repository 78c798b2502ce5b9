from django.contrib.auth.models import User
from rest_framework import serializers

from benchmarks.ordinary.models import Message


class UserSerializer(serializers.ModelSerializer):
    class Meta:
        model = User
        fields = ["username", "email"]


class MessageSerializer(serializers.ModelSerializer):
    sender = serializers.SlugRelatedField(slug_field="username", read_only=True)
    receiver = serializers.SlugRelatedField(slug_field="username", queryset=User.objects.all())

    class Meta:
        model = Message
        fields = ["id", "sender", "receiver", "content", "created", "read"]
        read_only_fields = ["created", "read"]


class ConversationSerializer(serializers.Serializer):
    user = serializers.CharField()
    last_message = MessageSerializer()
    unread = serializers.IntegerField()
