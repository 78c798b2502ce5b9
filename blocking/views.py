from rest_framework.generics import CreateAPIView

from blocking.actions import block_user
from blocking.serializers import BlockSerializer
from config.parameters import StrictParametersMixin


class BlockView(StrictParametersMixin, CreateAPIView):
    serializer_class = BlockSerializer

    def perform_create(self, serializer):
        serializer.instance = block_user(blocker=self.request.user, **serializer.validated_data)
