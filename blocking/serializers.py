from rest_framework import serializers

from accounts.serializers import UsernameField
from blocking.models import Block
from config.api.schema import examples


@examples(request={"blocked": "bob"}, response={"blocked": "bob", "created": "2026-11-23T22:59:29.000318Z"})
class BlockSerializer(serializers.ModelSerializer):
    blocked = UsernameField()

    class Meta:
        model = Block
        fields = ["blocked", "created"]
        read_only_fields = ["created"]
