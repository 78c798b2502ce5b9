from rest_framework import serializers

from accounts.serializers import UsernameField
from blocking.models import Block
from config.api.schema import examples


@examples(request={"blocked": "bob"}, response={"blocked": "bob", "created": "2026-11-23T22:59:29.000318Z"})
class BlockSerializer(serializers.ModelSerializer):
    """A user whose messages the owner of the block does not receive."""

    blocked = UsernameField(help_text="The username of the blocked user")

    class Meta:
        model = Block
        fields = ["blocked", "created"]
        extra_kwargs = {"created": {"read_only": True, "help_text": "When you blocked the user"}}
