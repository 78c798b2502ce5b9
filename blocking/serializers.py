from rest_framework import serializers

from accounts.serializers import UsernameField
from blocking.models import Block


class BlockSerializer(serializers.ModelSerializer):
    blocked = UsernameField()

    class Meta:
        model = Block
        fields = ["blocked", "created"]
        read_only_fields = ["created"]
